"""A no-op function that holds everything back until a file is there."""

import os
import time

import upswell

app = upswell.App("bench-gate")
passed = False


@app.function(max_containers=2)
def noop(x: int) -> int:
    global passed
    while not passed:
        passed = os.path.exists(os.environ["BENCH_GATE"])
        if not passed:
            time.sleep(0.005)
    return x


@app.function(min_containers=1, max_containers=1)
def warm(x: int) -> int:
    return x


@app.function(max_containers=20, scaledown_window=600)
def scaled(x: int) -> int:
    return x
