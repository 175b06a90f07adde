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

CLUSTER = Path(__file__).resolve().parent.parent / "tests" / "conformance" / "ray_cluster.py"
INPUTS, TASKS, CALLS, CROWD = 100_000, 3_000, 300, 30
SLEEPS, SLEEP_SECONDS = 80, 0.1
START_SECONDS = 60.0
Figures = dict[str, float]


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

    def close(self) -> None:
        self._said.close()
        self._program.wait()


@contextmanager
def server(folder: Path, address: str) -> Iterator[None]:
    """A server of upswell's on the cluster, for programs of this process."""
    home = folder / "home"
    command = [sys.executable, "-P", "-m", "upswell.server", "--home", str(home), "--engine", "ray"]
    process = subprocess.Popen([*command, "--ray-address", address], stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while not (home / "server.sock").exists():
        assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.05)
    os.environ["UPSWELL_SERVER"] = f"unix:{home / 'server.sock'}"
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def of_upswell(cluster: Cluster) -> Figures:
    import upswell

    found: Figures = {}
    app = upswell.App("cluster-crowd")
    crowd = app.function(cpu=0.1, min_containers=CROWD, serialized=True, name="crowd")(who)
    began, processes = time.perf_counter(), set[int]()
    with app.run():
        while len(processes) < CROWD:
            wait_for(lambda: crowd.get_current_stats().num_total_runners == CROWD)
            processes |= set(crowd.map(range(CROWD)))
        found[f"{CROWD} containers from zero, s"] = time.perf_counter() - began - 1.0
    app = upswell.App("cluster-benchmark")
    # Two cpus each, so that there is one container on each of the two nodes.
    plain = app.function(cpu=2, max_containers=2, min_containers=2, serialized=True, name="plain")(nothing)
    with app.run():
        wait_for(lambda: plain.get_current_stats().num_total_runners == 2)
        assert sum(1 for _ in plain.map(range(1000))) == 1000
        found["no-op inputs per second"] = INPUTS / timed(lambda: list(plain.map(range(INPUTS))))
        found["warm call, ms"] = 1000 * warm(lambda: plain.remote(1))
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
                    cluster.do("kill 1")

        found["node killed in mid-map, s more"] = timed(disturbed) - calm
        assert results == [x * x for x in range(SLEEPS)], "all results are right"
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def of_ray(address: str) -> Figures:
    import ray
    from ray.util.multiprocessing import Pool

    class Actor:
        def call(self, x: Any) -> Any:
            return x

        def who(self, x: int) -> int:
            return who(x)

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    found: Figures = {}
    try:
        task = ray.remote(nothing)
        ray.get([task.remote(x) for x in range(100)])
        found["no-op inputs per second, tasks"] = TASKS / timed(lambda: ray.get([task.remote(x) for x in range(TASKS)]))
        with Pool(2) as pool:
            pool.map(nothing, range(1000))
            found["no-op inputs per second, its Pool"] = INPUTS / timed(lambda: pool.map(nothing, range(INPUTS)))
        actor = ray.remote(Actor).options(num_cpus=1).remote()
        found["warm call, ms"] = 1000 * warm(lambda: ray.get(actor.call.remote(1)))
        ray.kill(actor)
        time.sleep(1.0)

        def crowd() -> None:
            actors = [ray.remote(Actor).options(num_cpus=0.1).remote() for _ in range(CROWD)]
            assert len(set(ray.get([one.who.remote(0) for one in actors]))) == CROWD

        found[f"{CROWD} actors from zero, s"] = timed(crowd) - 1.0
    finally:
        ray.shutdown()
    return found


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__).parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        cluster = Cluster(folder)
        os.environ["RAY_TMPDIR"] = name
        try:
            ray = of_ray(cluster.address)
            with server(folder, cluster.address):
                ours = of_upswell(cluster)
        finally:
            cluster.close()
    for contender, figures in (("Ray", ray), ("upswell", ours)):
        for words, value in figures.items():
            print(f"{contender:<8} {words:<36} {value:>12,.2f}")


if __name__ == "__main__":
    main()
