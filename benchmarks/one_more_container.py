"""One more container on a busy pool: from the submission of an input to its result in a process that was not there."""

import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection

import numpy

import upswell
from benchmarks.harness import CpuClock, Figures, Measure, Target

CONTAINERS = 10
HELD_SECONDS = 120.0  # longer than the whole measure: a container once held stays busy
SETTLE_SECONDS = 0.15

app = upswell.App("bench-one-more-container")


@app.function(min_containers=1, timeout=600)
def process_id(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid() if numpy.ones(1)[0] else 0


def on_upswell() -> Figures:
    times: list[float] = []
    with app.run():
        seen = {process_id.remote(0.0)}
        cpu = CpuClock()
        while len(times) < CONTAINERS:
            process_id.spawn(HELD_SECONDS)  # takes the container that is idle
            time.sleep(SETTLE_SECONDS)
            started = time.perf_counter()
            pid = process_id.remote(0.0)
            seconds = time.perf_counter() - started
            assert pid not in seen, "the input found an idle container: nothing was started"
            seen.add(pid)
            times.append(seconds)
        spent = cpu.seconds()
    return {
        "p50 ms": statistics.median(times) * 1e3,
        "max ms": max(times) * 1e3,
        "CPU ms/container": spent / CONTAINERS * 1e3,
    }


def _send_process_id(connection: Connection) -> None:
    connection.send(os.getpid() if numpy.ones(1)[0] else 0)


def bare_fork() -> Figures:
    """The floor: a process forked from one that has numpy, with nothing around it."""
    times, cpu = [], CpuClock()
    context = multiprocessing.get_context("fork")
    for _ in range(CONTAINERS):
        ours, theirs = context.Pipe()
        started = time.perf_counter()
        process = context.Process(target=_send_process_id, args=(theirs,))
        process.start()
        ours.recv()
        times.append(time.perf_counter() - started)
        process.join()
        time.sleep(SETTLE_SECONDS)
    return {
        "p50 ms": statistics.median(times) * 1e3,
        "max ms": max(times) * 1e3,
        "CPU ms/container": cpu.seconds() / CONTAINERS * 1e3,
    }


def one_more_ray_actor() -> Figures:
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=CONTAINERS + 1, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)

    class Actor:
        def process_id(self) -> int:
            return os.getpid() if numpy.ones(1)[0] else 0

    actor = ray.remote(Actor).options(num_cpus=1)
    times, cpu, kept = [], CpuClock(), []
    for _ in range(3):
        started = time.perf_counter()
        kept.append(actor.remote())
        ray.get(kept[-1].process_id.remote())
        times.append(time.perf_counter() - started)
    spent = cpu.seconds()
    ray.shutdown()
    return {
        "p50 ms": statistics.median(times) * 1e3,
        "max ms": max(times) * 1e3,
        "CPU ms/container": spent / len(times) * 1e3,
    }


def one_more_dask_worker() -> Figures:
    from distributed import Client, LocalCluster

    times, cpu = [], CpuClock()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for number in range(3):
            known = set(client.scheduler_info()["workers"])
            started = time.perf_counter()
            cluster.scale(number + 2)
            client.wait_for_workers(number + 2)
            added = set(client.scheduler_info()["workers"]) - known
            client.submit(lambda: float(numpy.ones(1)[0]), workers=list(added), pure=False).result()
            times.append(time.perf_counter() - started)
        spent = cpu.seconds()
    return {
        "p50 ms": statistics.median(times) * 1e3,
        "max ms": max(times) * 1e3,
        "CPU ms/container": spent / len(times) * 1e3,
    }


MEASURES = [
    Measure(
        "one_more_container",
        "One more container on a live pool, to its first result, numpy imported",
        {
            "upswell": on_upswell,
            "bare fork": bare_fork,
            "ray actor": one_more_ray_actor,
            "dask worker": one_more_dask_worker,
        },
        (Target("p50 ms", 6.0, 2.0),),
        rounds=3,
        optional={"ray actor": "ray", "dask worker": "dask"},
    )
]
