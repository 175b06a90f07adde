"""upswell on a Ray cluster beside Ray itself: `make bench ENGINE=ray`, on three nodes on this machine.

Each contender has the cluster for itself, one after the other, as leases and actors hold processors.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import report, server_cost
from benchmarks.harness import OURS, Figures, Measure, Result, Target

CLUSTER = Path(__file__).resolve().parent.parent / "tests" / "conformance" / "ray_cluster.py"
INPUTS, TASKS, CALLS, CROWD = 100_000, 3_000, 300, 30
SLEEPS, SLEEP_SECONDS = 80, 0.1
DETECTION_SECONDS = 1.0  # of a node that is killed with all its processes: its connections break
START_SECONDS = 60.0
TASKS_OF_RAY, POOL_OF_RAY, ACTOR, ACTORS = "Ray tasks", "ray.util.multiprocessing", "Ray actor", f"{CROWD} Ray actors"
NOOP_MAP = Measure(
    "cluster_noop_map",
    f"No-op map of {INPUTS:,}, 2 containers on 2 nodes ({TASKS:,} for tasks)",
    {},
    (
        Target("inputs/s", 200, 1_000, TASKS_OF_RAY, higher_is_better=True),
        Target("inputs/s", 3, 6, POOL_OF_RAY, higher_is_better=True),
    ),
)
WARM_CALL = Measure("cluster_warm_call", "One warm call at a time", {}, (Target("p50 ms", 0.6, 0.3, ACTOR),))
FROM_ZERO = Measure(
    "cluster_from_zero",
    f"{CROWD} containers, all with a result: the server runs, without a lease; or with empty ones that it still has",
    {},
    (Target("from zero s", 1 / 8, 1 / 20, ACTORS),),
)
NODE_KILLED = Measure(
    "cluster_node_killed",
    "A node killed in mid-map, all results right",
    {},
    (Target("s more", DETECTION_SECONDS + 2),),
)
SERVER_COST = Measure(
    "cluster_server_cost",
    "CPU of the server for each of 200 containers in leases, and of fewer",
    {},
    server_cost.TARGETS,
)
# In this order: at the first there is no lease yet, and at the last a node is lost.
MEASURES = (FROM_ZERO, NOOP_MAP, WARM_CALL, SERVER_COST, NODE_KILLED)
AGENTS = ("ray::Dashboard", "ray::RuntimeEnv")  # Ray's own processes on each node, which stay
Contenders = dict[str, Figures]


def nothing(x: Any) -> Any:
    return x


def who(_: int) -> int:
    time.sleep(1.0)
    return os.getpid()


def doze(x: int) -> int:
    time.sleep(SLEEP_SECONDS)
    return x * x


def timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def warm(call: Callable[[], Any]) -> float:
    """Median seconds of a call that is made again and again."""
    call()
    return statistics.median(timed(call) for _ in range(CALLS))


class Cluster:
    """The cluster's program, and its words."""

    def __init__(self, folder: Path) -> None:
        self._program = subprocess.Popen(
            [sys.executable, str(CLUSTER), str(folder / "ray"), "2", "2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"},
            text=True,
        )
        assert self._program.stdin is not None and self._program.stdout is not None
        self._said, self._heard = self._program.stdin, self._program.stdout
        self.address = self._heard.readline().strip()

    def do(self, line: str) -> None:
        self._said.write(line + "\n")
        self._said.flush()
        self._heard.readline()

    def rest(self) -> None:
        """Wait until the workers of one contender are gone, which would slow the next one."""
        wait_for(lambda: not self._workers())

    def _workers(self) -> list[str]:
        names = [process.name() for process in psutil.Process(self._program.pid).children(recursive=True)]
        return [name for name in names if name.startswith("ray::") and not name.startswith(AGENTS)]

    def close(self) -> None:
        self._said.close()
        self._program.wait()


@contextmanager
def server(folder: Path, address: str) -> Iterator[int]:
    """A server of upswell's on the cluster, for programs of this process; yields its process."""
    home = folder / "home"
    command = [sys.executable, "-P", "-m", "upswell.server", "--home", str(home), "--engine", "ray"]
    process = subprocess.Popen([*command, "--ray-address", address], stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while not (home / "server.sock").exists():
        assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.05)
    os.environ["UPSWELL_SERVER"] = f"unix:{home / 'server.sock'}"
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


class Upswell:
    """What is measured of upswell, by the name of the measure; `server` is its process."""

    def __init__(self, cluster: Cluster, server: int) -> None:
        self._cluster = cluster
        self._server = server

    def cluster_from_zero(self) -> Contenders:
        return {OURS: {"from zero s": from_zero(), "with empty leases s": from_zero()}}

    def cluster_noop_map(self) -> Contenders:
        with two_containers() as plain:
            return {OURS: {"inputs/s": INPUTS / timed(lambda: list(plain.map(range(INPUTS))))}}

    def cluster_warm_call(self) -> Contenders:
        with two_containers() as plain:
            return {OURS: {"p50 ms": 1000 * warm(lambda: plain.remote(1))}}

    def cluster_server_cost(self) -> Contenders:
        crowds = server_cost.CROWDS.items()
        return {name: server_cost.crowded(containers, self._server, cpu=0.01) for name, containers in crowds}

    def cluster_node_killed(self) -> Contenders:
        import upswell

        app = upswell.App("cluster-kill")
        dozing = app.function(cpu=1, max_containers=4, serialized=True, name="dozing")(doze)
        with app.run():
            list(dozing.map(range(8)))
            calm = timed(lambda: list(dozing.map(range(SLEEPS))))
            results: list[int] = []

            def disturbed() -> None:
                for result in dozing.map(range(SLEEPS)):
                    results.append(result)
                    if len(results) == SLEEPS // 4:
                        self._cluster.do("kill 1")

            more = timed(disturbed) - calm
        assert results == [x * x for x in range(SLEEPS)], "all results are right"
        return {OURS: {"s more": more}}


@contextmanager
def two_containers() -> Iterator[Any]:
    """A function with one on each of the two nodes, as each takes two cpus."""
    import upswell

    app = upswell.App("cluster-benchmark")
    plain = app.function(cpu=2, max_containers=2, min_containers=2, serialized=True, name="plain")(nothing)
    with app.run():
        wait_for(lambda: plain.get_current_stats().num_total_runners == 2)
        assert sum(1 for _ in plain.map(range(1000))) == 1000
        yield plain


def from_zero() -> float:
    """Seconds until every one of the crowd has a result, less the second that each takes for it."""
    import upswell

    app = upswell.App("cluster-crowd")
    crowd = app.function(cpu=0.1, min_containers=CROWD, serialized=True, name="crowd")(who)
    began, processes = time.perf_counter(), set[int]()
    with app.run():
        while len(processes) < CROWD:
            wait_for(lambda: crowd.get_current_stats().num_total_runners == CROWD)
            processes |= set(crowd.map(range(CROWD)))
        return time.perf_counter() - began - 1.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Ray:
    """What is measured of Ray itself, likewise."""

    def cluster_noop_map(self) -> Contenders:
        import ray
        from ray.util.multiprocessing import Pool

        task = ray.remote(nothing)
        ray.get([task.remote(x) for x in range(100)])
        tasks = TASKS / timed(lambda: ray.get([task.remote(x) for x in range(TASKS)]))
        with Pool(2) as pool:
            pool.map(nothing, range(1000))
            pooled = INPUTS / timed(lambda: pool.map(nothing, range(INPUTS)))
        return {TASKS_OF_RAY: {"inputs/s": tasks}, POOL_OF_RAY: {"inputs/s": pooled}}

    def cluster_warm_call(self) -> Contenders:
        import ray

        actor = ray.remote(Actor).options(num_cpus=1).remote()
        called = warm(lambda: ray.get(actor.call.remote(1)))
        ray.kill(actor)
        return {ACTOR: {"p50 ms": 1000 * called}}

    def cluster_from_zero(self) -> Contenders:
        import ray

        def crowd() -> None:
            actors = [ray.remote(Actor).options(num_cpus=0.1).remote() for _ in range(CROWD)]
            assert len(set(ray.get([one.who.remote(0) for one in actors]))) == CROWD

        return {ACTORS: {"from zero s": timed(crowd) - 1.0}}


class Actor:
    """The least that one of Ray's may be."""

    def call(self, x: Any) -> Any:
        return x

    def who(self, x: int) -> int:
        return who(x)


@contextmanager
def joined(address: str) -> Iterator[Ray]:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        yield Ray()
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    known = {measure.name: measure for measure in MEASURES}
    parser.add_argument("--only", default=",".join(known), help=f"measures, separated by commas: {', '.join(known)}")
    chosen = parser.parse_args().only.split(",")
    if unknown := set(chosen) - set(known):
        parser.error(f"no measure is called {', '.join(unknown)}; there are {', '.join(known)}")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    found: dict[str, Contenders] = {name: {} for name in known if name in chosen}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        cluster = Cluster(folder)
        os.environ["RAY_TMPDIR"] = name
        try:
            with joined(cluster.address) as ray:
                measure_all(ray, found)
            cluster.rest()
            with server(folder, cluster.address) as process:
                measure_all(Upswell(cluster, process), found)
        finally:
            cluster.close()
    results = [
        Result(known[name], {contender: [one] for contender, one in contenders.items()}, {})
        for name, contenders in found.items()
    ]
    report.print_heading()
    for result in results:
        report.print_result(result)
    report.print_verdicts(results)


def measure_all(side: Upswell | Ray, found: dict[str, Contenders]) -> None:
    for name in found:
        if measure := getattr(side, name, None):
            found[name] |= measure()


if __name__ == "__main__":
    main()
