"""The same core in simulated time: physics, faults, workloads."""
