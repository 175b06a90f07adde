"""Arrays of 1 MiB, in and out: each is doubled, so that what comes back is a new array."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy

import upswell
from benchmarks import peers, work
from benchmarks.harness import CpuClock, Figures, Measure, Target

ARRAYS, WARM_UP_ARRAYS = 200, 20
ELEMENTS = 2**20 // 8

app = upswell.App("bench-arrays")


@app.function(min_containers=2, max_containers=2)
def double(array: Any) -> Any:
    return array * 2


def arrays(count: int) -> Iterable[Any]:
    return (numpy.full(ELEMENTS, float(number)) for number in range(count))


def measured(mapped: Callable[[Iterable[Any]], Iterable[Any]]) -> Figures:
    for result in mapped(arrays(WARM_UP_ARRAYS)):
        assert result.nbytes == 2**20
    time.sleep(0.2)
    cpu, started = CpuClock(), time.perf_counter()
    total = sum(float(result[-1]) for result in mapped(arrays(ARRAYS)))
    seconds = time.perf_counter() - started
    spent = cpu.seconds()
    assert total == ARRAYS * (ARRAYS - 1)
    return {"MiB/s each way": ARRAYS / seconds, "CPU ms/array": spent / ARRAYS * 1e3}


def on_upswell() -> Figures:
    with app.run():
        return measured(lambda inputs: double.map(inputs))


def on_peer(name: str, chunksize: int = 1) -> Figures:
    with peers.start(name) as peer:
        return measured(lambda inputs: peer.map(work.double, inputs, chunksize))


MEASURES = [
    Measure(
        "arrays",
        "200 numpy arrays of 1 MiB in and out, 2 warm processes",
        {
            "upswell": on_upswell,
            "loky": partial(on_peer, "loky"),
            "joblib (memmap)": partial(on_peer, "joblib"),
            "mp.Pool.imap": partial(on_peer, "pool"),
            "ProcessPoolExecutor": partial(on_peer, "executor"),
            "ray actors": partial(on_peer, "ray"),
            "dask": partial(on_peer, "dask"),
        },
        (
            Target("MiB/s each way", 2.0, 6.0, against="loky", higher_is_better=True),
            Target("MiB/s each way", 2.0, 6.0, against="joblib (memmap)", higher_is_better=True),
        ),
        optional={"ray actors": "ray", "dask": "dask"},
    )
]
