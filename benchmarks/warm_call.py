"""One call after the other on a warm pool: the time until each result is back."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import upswell
from benchmarks import peers, work
from benchmarks.harness import CpuClock, Figures, Measure, Target

WARM_UP_CALLS, CALLS, FEWER_CALLS = 200, 2_000, 200

app = upswell.App("bench-warm-call")


@app.function(min_containers=2, max_containers=2)
def noop(x: int) -> int:
    return x


def measured(call: Callable[[int], Any], calls: int) -> Figures:
    for number in range(WARM_UP_CALLS):
        call(number)
    cpu, times = CpuClock(), []
    for number in range(calls):
        started = time.perf_counter()
        result = call(number)
        times.append(time.perf_counter() - started)
        assert result == number
    spent = cpu.seconds()
    return {
        "p50 µs": statistics.median(times) * 1e6,
        "p99 µs": statistics.quantiles(times, n=100)[98] * 1e6,
        "CPU µs/call": spent / calls * 1e6,
    }


def on_upswell() -> Figures:
    with app.run():
        return measured(noop.remote, CALLS)


def on_peer(name: str, calls: int = CALLS) -> Figures:
    with peers.start(name) as peer:
        return measured(lambda number: peer.call(work.noop, number), calls)


MEASURES = [
    Measure(
        "warm_call",
        "One warm call at a time, 2 warm processes",
        {
            "upswell": on_upswell,
            "ProcessPoolExecutor": partial(on_peer, "executor"),
            "mp.Pool.apply": partial(on_peer, "pool"),
            "loky": partial(on_peer, "loky"),
            "joblib": partial(on_peer, "joblib", FEWER_CALLS),
            "ray actor": partial(on_peer, "ray"),
            "dask": partial(on_peer, "dask", FEWER_CALLS),
        },
        (Target("p50 µs", 1.0, 0.6, against="ProcessPoolExecutor"),),
        optional={"ray actor": "ray", "dask": "dask"},
    )
]
