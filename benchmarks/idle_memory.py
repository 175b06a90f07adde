"""The memory of a process that has worked and now waits: proportional set size, so that shared pages count in part."""

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import upswell
from benchmarks import peers, work
from benchmarks.harness import Figures, Measure, Target, pss_megabytes

INPUTS = 100
SETTLE_SECONDS = 1.0

app = upswell.App("bench-idle-memory")


@app.function(min_containers=2, max_containers=2)
def process_id(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def measured(mapped: Callable[[Iterable[int]], Iterable[Any]]) -> Figures:
    pids = set(mapped(range(INPUTS)))
    assert len(pids) == 2, f"{len(pids)} processes have worked, not 2"
    time.sleep(SETTLE_SECONDS)
    return {"PSS MB/process": pss_megabytes(pids)}


def on_upswell() -> Figures:
    with app.run():
        return measured(lambda inputs: process_id.map(inputs))


def on_peer(name: str) -> Figures:
    with peers.start(name) as peer:
        return measured(lambda inputs: peer.map(work.process_id, inputs, 1))


MEASURES = [
    Measure(
        "idle_memory",
        "Memory of an idle process, 2 processes",
        {
            "upswell": on_upswell,
            "mp.Pool": partial(on_peer, "pool"),
            "ProcessPoolExecutor": partial(on_peer, "executor"),
            "loky": partial(on_peer, "loky"),
            "joblib": partial(on_peer, "joblib"),
            "ray actor": partial(on_peer, "ray"),
            "dask worker": partial(on_peer, "dask"),
        },
        (Target("PSS MB/process", 8.0, 5.0),),
        rounds=3,
        optional={"ray actor": "ray", "dask worker": "dask"},
    )
]
