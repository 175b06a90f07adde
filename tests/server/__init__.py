"""The shell around the core: connections, peers, and the loop."""
