"""Where user code runs: the zygote, the loader, the executor and the container's own connection."""
