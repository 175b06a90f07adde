"""Inputs that only wait one second: how soon does a pool without any settings have a container for each?

Two clocks: from the map (the server runs, no container does) and from nothing (the server or pool is started as well).
"""

import time
from functools import partial

import upswell
from benchmarks import peers, work
from benchmarks.harness import CpuClock, Figures, Measure, Target, raise_open_files

app = upswell.App("bench-sleeps")


@app.function()
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def on_upswell(inputs: int) -> Figures:
    cpu, started = CpuClock(), time.perf_counter()
    with app.run():
        nap.get_current_stats()  # once the server answers it runs: a program does not wait for that
        mapped = time.perf_counter()
        total = sum(nap.map([1.0] * inputs))
        ended = time.perf_counter()
        spent = cpu.seconds()
    assert total == inputs
    return {"from nothing s": ended - started, "from the map s": ended - mapped, "CPU s": spent}


def on_pool(inputs: int) -> Figures:
    """A pool that somebody sized by hand: a process for each input."""
    raise_open_files()
    cpu, started = CpuClock(), time.perf_counter()
    with peers.start("pool", inputs) as pool:
        mapped = time.perf_counter()
        total = sum(pool.map(work.nap, [1.0] * inputs, 1))
        ended = time.perf_counter()
        spent = cpu.seconds()
    assert total == inputs
    return {"from nothing s": ended - started, "from the map s": ended - mapped, "CPU s": spent}


MEASURES = [
    Measure(
        "sleeps_100",
        "100 inputs that sleep 1 s, from zero, no settings",
        {"upswell": partial(on_upswell, 100), "mp.Pool(100)": partial(on_pool, 100)},
        (Target("from the map s", 1.4, 1.15),),
        rounds=3,
    ),
    Measure(
        "sleeps_1000",
        "1,000 inputs that sleep 1 s, from zero, no settings",
        {"upswell": partial(on_upswell, 1_000), "mp.Pool(1000)": partial(on_pool, 1_000)},
        (Target("from nothing s", 1.3, 0.7, against="mp.Pool(1000)"),),
        rounds=3,
    ),
]
