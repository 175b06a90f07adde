"""A map that does nothing, on two warm processes: what one input costs, and when the first result is there."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import upswell
from benchmarks import peers, work
from benchmarks.harness import CpuClock, Figures, Measure, Target

INPUTS, FEWER_INPUTS = 100_000, 5_000  # fewer for who moves inputs one by one: the figures are per input
WARM_UP_INPUTS = 5_000
REPEATS = 3

app = upswell.App("bench-noop-map")


@app.function(min_containers=2, max_containers=2)
def noop(x: int) -> int:
    return x


def measured(mapped: Callable[[Iterable[int]], Iterable[Any]], inputs: int) -> Figures:
    for _ in range(2):
        deque(mapped(range(WARM_UP_INPUTS)), maxlen=0)
    time.sleep(0.2)
    runs = [_once(mapped, inputs) for _ in range(REPEATS)]
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}


def _once(mapped: Callable[[Iterable[int]], Iterable[Any]], inputs: int) -> Figures:
    cpu = CpuClock()
    started = time.perf_counter()
    results = iter(mapped(range(inputs)))
    total = next(results)
    first = time.perf_counter() - started
    total += sum(results)
    seconds = time.perf_counter() - started
    spent = cpu.seconds()
    assert total == inputs * (inputs - 1) // 2
    return {"inputs/s": inputs / seconds, "CPU µs/input": spent / inputs * 1e6, "first result ms": first * 1e3}


def on_upswell() -> Figures:
    with app.run():
        return measured(lambda inputs: noop.map(inputs), INPUTS)


def on_peer(name: str, chunksize: int, inputs: int = INPUTS) -> Figures:
    with peers.start(name) as peer:
        return measured(lambda numbers: peer.map(work.noop, numbers, chunksize), inputs)


MEASURES = [
    Measure(
        "noop_map",
        "No-op map over 100,000 ints, 2 warm processes",
        {
            "upswell": on_upswell,
            "mp.Pool.imap(1000)": partial(on_peer, "pool", 1000),
            "mp.Pool.imap(1)": partial(on_peer, "pool", 1, FEWER_INPUTS),
            "ProcessPoolExecutor(100)": partial(on_peer, "executor", 100),
            "ProcessPoolExecutor(1)": partial(on_peer, "executor", 1, FEWER_INPUTS),
            "joblib": partial(on_peer, "joblib", 0),
            "loky(100)": partial(on_peer, "loky", 100),
            "ray actors(100)": partial(on_peer, "ray", 100),
            "dask(100)": partial(on_peer, "dask", 100),
        },
        (
            Target("inputs/s", 0.4, 1.0, against="mp.Pool.imap(1000)", higher_is_better=True),
            Target("inputs/s", 3.0, against="joblib", higher_is_better=True),
            Target("CPU µs/input", 1.5, 0.7),
            Target("first result ms", 5.0, 2.0),
        ),
        optional={"ray actors(100)": "ray", "dask(100)": "dask"},
    )
]
