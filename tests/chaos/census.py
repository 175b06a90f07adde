"""What is deployed and called while processes are killed: every output tells whether it is right."""

import os
import time

import upswell

app = upswell.App("chaos")
VERSION = os.environ.get("CHAOS_VERSION", "1")


@app.function(max_containers=3, scaledown_window=2)
def square(x: int) -> int:
    """Almost no work."""
    return x * x


@app.function(max_containers=3, scaledown_window=2, env={"CHAOS_VERSION": VERSION})
def cube(x: int) -> int:
    """Some work; each deploy makes a new version of it."""
    time.sleep(0.01)
    return x * x * x


@app.function(max_containers=2, scaledown_window=2)
def outer(x: int) -> int:
    """A call within a call."""
    return square.remote(x) + 1


@app.function(schedule=upswell.Period(seconds=1), scaledown_window=2)
def tick() -> str:
    """What the schedule calls."""
    return "tick"
