"""A server with a home: spawned calls that are on disk when they are accepted, also through the server's death."""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

import upswell
from benchmarks.harness import CpuClock, Figures, Measure, Target

INPUTS = 1_000_000
SEQUENTIAL, TASKS, OF_A_TASK = 1_000, 100, 100
FUNCTIONS, CALLS, IDLE_SECONDS = 10_000, 500, 10.0
MIB = 1 << 20


class Home:
    """A server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"
        self._home = folder / "home"
        os.environ["UPSWELL_HOME"] = str(self._home)
        os.environ["UPSWELL_SERVER"] = f"unix:{self._home}/server.sock"
        os.environ["BENCH_GATE"] = str(self.gate)
        self.serve()

    def serve(self) -> None:
        command = [sys.executable, "-P", "-m", "upswell.server", "--home", str(self._home)]
        (self._home / "server.sock").unlink(missing_ok=True)
        self._process = subprocess.Popen(command)
        while not (self._home / "server.sock").exists():
            time.sleep(0.001)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()

    def megabytes(self) -> float:
        return float(psutil.Process(self._process.pid).memory_info().rss / MIB)

    def cpu_seconds(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        server = Home(Path(folder))
        try:
            yield server
        finally:
            server.end()


def spawned() -> Figures:
    """A million inputs: until they are on disk, while they wait, through a kill, and until all have their results."""
    from benchmarks.kept import gate

    with home() as server:
        gate.app.deploy()
        started = time.perf_counter()
        call = gate.noop.spawn_map(range(INPUTS))
        accepted = time.perf_counter() - started
        pending = server.megabytes()
        server.kill()
        started = time.perf_counter()
        server.serve()
        assert gate.noop.get_current_stats().backlog > INPUTS - 10_000
        again = time.perf_counter() - started
        pending = max(pending, server.megabytes())
        started = time.perf_counter()
        server.gate.touch()
        while gate.noop.get_current_stats().backlog or gate.noop.get_current_stats().num_running_inputs:
            time.sleep(0.02)
        drained = time.perf_counter() - started
        assert list(call.iter()) == list(range(INPUTS))
    return {
        "accepted/s": INPUTS / accepted,
        "pending MB": pending,
        "serves again s": again,
        "drained/s": INPUTS / drained,
    }


def singles() -> Figures:
    from benchmarks.kept import gate

    with home() as server:
        gate.app.deploy()
        server.gate.touch()
        for number in range(20):
            gate.warm.spawn(number)
        started = time.perf_counter()
        for number in range(SEQUENTIAL):
            gate.warm.spawn(number)
        single = SEQUENTIAL / (time.perf_counter() - started)

        async def task(name: int) -> None:
            for number in range(OF_A_TASK):
                await gate.warm.spawn.aio(name * OF_A_TASK + number)

        async def tasks() -> float:
            started = time.perf_counter()
            await asyncio.gather(*map(task, range(TASKS)))
            return TASKS * OF_A_TASK / (time.perf_counter() - started)

        def thread(name: int) -> None:
            for number in range(OF_A_TASK):
                gate.warm.spawn(name * OF_A_TASK + number)

        grouped = asyncio.run(tasks())
        with ThreadPoolExecutor(TASKS) as threads:
            started = time.perf_counter()
            list(threads.map(thread, range(TASKS)))
            threaded = TASKS * OF_A_TASK / (time.perf_counter() - started)
    return {"one by one/s": single, "100 tasks/s": grouped, "100 threads/s": threaded}


def disk_alone() -> Figures:
    """What the disk gives to a program that writes as much as one small call adds, and waits until it is there."""
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        started = time.perf_counter()
        for number in range(SEQUENTIAL):
            os.pwrite(file.fileno(), bytes(20_000), number * 20_000)
            os.fdatasync(file.fileno())
        return {"one by one/s": SEQUENTIAL / (time.perf_counter() - started)}


def many_functions(count: int) -> Figures:
    """The server's CPU while nothing happens, and a warm call, with so many functions deployed."""
    app = upswell.App("bench-many")
    for number in range(count):
        app.function(serialized=True, name=f"f{number}", min_containers=1 if number == 0 else None)(_identity)
    with home() as server:
        app.deploy()
        warm = upswell.Function.from_name("bench-many", "f0")
        for number in range(100):
            warm.remote(number)
        before = server.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = (server.cpu_seconds() - before) / IDLE_SECONDS
        times, cpu = [], CpuClock()
        for number in range(CALLS):
            started = time.perf_counter()
            warm.remote(number)
            times.append(time.perf_counter() - started)
        spent = cpu.seconds()
        size = server.megabytes()
    return {
        "idle % of a core": idle * 100,
        "p50 µs": statistics.median(times) * 1e6,
        "client CPU µs/call": spent / CALLS * 1e6,
        "server MB": size,
    }


def _identity(x: int) -> int:
    return x


def on_many() -> Figures:
    return many_functions(FUNCTIONS)


def on_one() -> Figures:
    return many_functions(1)


MEASURES = [
    Measure(
        "kept_calls",
        "spawn_map of 1,000,000 inputs, kept: on disk, pending, after kill -9, drained by 2 containers",
        {"upswell": spawned},
        (
            Target("accepted/s", 300_000, 1_000_000, higher_is_better=True),
            Target("pending MB", 500, 100),
            Target("serves again s", 3.0, 0.5),
            Target("drained/s", 100_000, 400_000, higher_is_better=True),
        ),
        rounds=3,
    ),
    Measure(
        "kept_singles",
        "Durable spawns: one after the other, and from 100 tasks at once",
        {"upswell": singles, "the disk alone": disk_alone},
        (
            Target("one by one/s", 2_000, 5_000, higher_is_better=True),
            Target("100 tasks/s", 20_000, 50_000, higher_is_better=True),
        ),
        rounds=3,
    ),
    Measure(
        "many_functions",
        "10,000 deployed functions, and 1: the server at rest, and one warm call at a time",
        {"upswell": on_many, "with 1 function": on_one},
        (Target("idle % of a core", 1.0), Target("p50 µs", 1.5, against="with 1 function")),
        rounds=3,
    ),
]
