"""1,980 inputs of 2 ms and 20 of 100 ms on two processes: how near to two bare threads that pull from one list?"""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import upswell
from benchmarks import peers, work
from benchmarks.harness import Figures, Measure, Target

WARM_UP_NAPS = 200

app = upswell.App("bench-skew")


@app.function(min_containers=2, max_containers=2)
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def measured(shuffled: bool, mapped: Callable[[Iterable[float]], Iterable[Any]]) -> Figures:
    naps = work.skewed(shuffled)
    list(mapped([work.SHORT_SECONDS] * WARM_UP_NAPS))
    started = time.perf_counter()
    total = sum(mapped(naps))
    seconds = time.perf_counter() - started
    assert abs(total - sum(naps)) < 1e-6
    return {"inputs/s": len(naps) / seconds, "seconds": seconds}


def on_upswell(shuffled: bool) -> Figures:
    with app.run():
        return measured(shuffled, lambda inputs: nap.map(inputs))


def on_threads(shuffled: bool) -> Figures:
    return measured(shuffled, _two_threads)


def _two_threads(inputs: Iterable[float]) -> list[float]:
    """The ideal: nothing between a worker and the list."""
    waiting, done = iter(list(inputs)), []
    lock = threading.Lock()

    def pull() -> None:
        while True:
            with lock:
                seconds = next(waiting, None)
            if seconds is None:
                return
            done.append(work.nap(seconds))

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def on_peer(name: str, chunksize: int, shuffled: bool) -> Figures:
    with peers.start(name) as peer:
        return measured(shuffled, lambda inputs: peer.map(work.nap, inputs, chunksize))


def measure(shuffled: bool) -> Measure:
    order = "shuffled" if shuffled else "tail"
    return Measure(
        f"skew_{order}",
        f"1,980 × 2 ms + 20 × 100 ms on 2 processes, {'shuffled' if shuffled else 'the long ones last'}",
        {
            "upswell": partial(on_upswell, shuffled),
            "two bare threads": partial(on_threads, shuffled),
            "mp.Pool.map": partial(on_peer, "pool", 0, shuffled),
            "ProcessPoolExecutor(16)": partial(on_peer, "executor", 16, shuffled),
            "joblib": partial(on_peer, "joblib", 0, shuffled),
            "ray actors(16)": partial(on_peer, "ray", 16, shuffled),
            "dask(16)": partial(on_peer, "dask", 16, shuffled),
        },
        (Target("inputs/s", 0.95, 0.98, against="two bare threads", higher_is_better=True),),
        rounds=3,
        optional={"ray actors(16)": "ray", "dask(16)": "dask"},
    )


MEASURES = [measure(shuffled=True), measure(shuffled=False)]
