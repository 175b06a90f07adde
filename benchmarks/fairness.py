"""One call at a time on a pool that is busy with a map of 100,000 inputs: how long until its result is back?"""

import statistics
import threading
import time

import upswell
from benchmarks.harness import Figures, Measure, Target

INPUT_SECONDS = 0.001
MAP_INPUTS, WARM_OUTPUTS = 100_000, 2_000
IDLE_CALLS, BUSY_CALLS = 200, 300
PAUSE_SECONDS = 0.005  # between calls, uneven to the containers' rhythm
RANGE_SECONDS = 0.010
IDLE_LATENCIES = 5  # a call may take so many of its idle latencies, and one range

app = upswell.App("bench-fairness")


@app.function(min_containers=2, max_containers=2)
def nap(_: int) -> None:
    time.sleep(INPUT_SECONDS)


def p90(calls: int) -> float:
    times = []
    for number in range(calls):
        started = time.perf_counter()
        nap.remote(number)
        times.append(time.perf_counter() - started)
        time.sleep(PAUSE_SECONDS * (1 + number % 7 / 7))
    return statistics.quantiles(times, n=10)[-1]


class Busy:
    """A map in a thread of its own, for as long as the block lasts."""

    def __init__(self) -> None:
        self.outputs = 0
        self._leaving = False
        self._warm = threading.Event()
        self._thread = threading.Thread(target=self._consume)

    def _consume(self) -> None:
        for _ in nap.map(range(MAP_INPUTS)):
            self.outputs += 1
            if self.outputs == WARM_OUTPUTS:
                self._warm.set()
            if self._leaving:
                break

    def __enter__(self) -> "Busy":
        self._thread.start()
        assert self._warm.wait(60), "the map does not get going"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread.is_alive(), "the map ended before the calls did"
        self._leaving = True
        self._thread.join()


def on_upswell() -> Figures:
    with app.run():
        p90(IDLE_CALLS)
        idle = p90(IDLE_CALLS)
        with Busy() as busy:
            before, started = busy.outputs, time.perf_counter()
            beside = p90(BUSY_CALLS)
            rate = (busy.outputs - before) / (time.perf_counter() - started)
    allowed = IDLE_LATENCIES * idle + RANGE_SECONDS
    return {"idle p90 ms": idle * 1e3, "busy p90 ms": beside * 1e3, "of what is fair": beside / allowed, "map/s": rate}


MEASURES = [
    Measure(
        "fairness",
        "One call at a time beside a map of 100,000 inputs of 1 ms, 2 warm containers",
        {"upswell": on_upswell},
        (Target("of what is fair", 1.0),),
        rounds=3,
    )
]
