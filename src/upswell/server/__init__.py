"""The shell around the core: it performs what the plane decides."""
