"""The same core in simulated time: physics, faults, workloads, rival policies, and the report that compares them."""
