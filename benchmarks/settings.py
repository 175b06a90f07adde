"""Settings of a deployed function, changed while it runs: until they are kept, and until they have had their effect."""

import statistics
import time

from benchmarks.harness import Figures, Measure, Target
from benchmarks.kept_calls import home

CHANGES = 10
SETTLE_SECONDS = 0.2


def changed() -> Figures:
    """`update_autoscaler` with one container more, again and again: it returns once that is on disk and the server goes
    by it; the effect is there when the server counts one more container that is ready for an input.
    """
    from benchmarks.kept import gate

    kept, effective = [], []
    with home():
        gate.app.deploy()
        gate.scaled.remote(0)  # the code is imported, and one container is warm
        for containers in range(2, 2 + CHANGES):
            time.sleep(SETTLE_SECONDS)
            started = time.perf_counter()
            assert gate.scaled.update_autoscaler(min_containers=containers).min_containers == containers
            kept.append(time.perf_counter() - started)
            while gate.scaled.get_current_stats().input_headroom < containers:
                time.sleep(0.0005)
            effective.append(time.perf_counter() - started)
    return {
        "kept p50 ms": statistics.median(kept) * 1e3,
        "in effect p50 ms": statistics.median(effective) * 1e3,
        "in effect max ms": max(effective) * 1e3,
    }


MEASURES = [
    Measure(
        "settings",
        "update_autoscaler(min_containers=n + 1) on a deployed function: kept, and one more container that is ready",
        {"upswell": changed},
        (Target("in effect max ms", 100),),
        rounds=3,
    )
]
