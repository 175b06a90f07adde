"""The core in simulated time: its laws under faults, and what its policy promises."""
