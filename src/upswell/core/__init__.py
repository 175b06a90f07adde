"""Every decision: pure, driven by events and a clock that is passed in."""
