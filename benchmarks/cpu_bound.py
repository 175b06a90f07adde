"""2,000 inputs of 10 ms of CPU time on two processes: what is left of two bare processes that just compute?"""

import multiprocessing
import time
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any

import upswell
from benchmarks import peers, work
from benchmarks.harness import CpuClock, Figures, Measure, Target

INPUTS, WARM_UP_INPUTS = 2_000, 40

app = upswell.App("bench-cpu-bound")


@app.function(min_containers=2, max_containers=2)
def spin(x: int) -> int:
    end = time.thread_time() + work.SPIN_SECONDS
    while time.thread_time() < end:
        pass
    return x


def measured(mapped: Callable[[Iterable[int]], Iterable[Any]]) -> Figures:
    list(mapped(range(WARM_UP_INPUTS)))
    time.sleep(0.2)
    cpu, started = CpuClock(), time.perf_counter()
    total = sum(mapped(range(INPUTS)))
    seconds = time.perf_counter() - started
    spent = cpu.seconds()
    assert total == INPUTS * (INPUTS - 1) // 2
    return {"inputs/s": INPUTS / seconds, "CPU ms/input": spent / INPUTS * 1e3}


def on_upswell() -> Figures:
    with app.run():
        return measured(lambda inputs: spin.map(inputs))


def on_peer(name: str, chunksize: int) -> Figures:
    with peers.start(name) as peer:
        return measured(lambda inputs: peer.map(work.spin, inputs, chunksize))


def _spin_half(barrier: Barrier) -> None:
    barrier.wait()
    for number in range(INPUTS // 2):
        work.spin(number)


def on_bare_processes() -> Figures:
    """The ideal: each process has its half from the start, and nothing to report."""
    barrier = multiprocessing.Barrier(3)
    processes = [multiprocessing.Process(target=_spin_half, args=(barrier,)) for _ in range(2)]
    for process in processes:
        process.start()
    cpu = CpuClock()
    barrier.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - started
    return {"inputs/s": INPUTS / seconds, "CPU ms/input": cpu.seconds() / INPUTS * 1e3}


MEASURES = [
    Measure(
        "cpu_bound",
        "2,000 × 10 ms of CPU time, 2 warm processes",
        {
            "upswell": on_upswell,
            "two bare processes": on_bare_processes,
            "mp.Pool.imap(1)": partial(on_peer, "pool", 1),
            "joblib": partial(on_peer, "joblib", 0),
            "ray actors(10)": partial(on_peer, "ray", 10),
            "dask(10)": partial(on_peer, "dask", 10),
        },
        (Target("inputs/s", 0.95, 0.99, against="two bare processes", higher_is_better=True),),
        rounds=3,
        optional={"ray actors(10)": "ray", "dask(10)": "dask"},
    )
]
