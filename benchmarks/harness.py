"""What a measure is made of, and how it is run: every contender in a fresh process, in turn, round after round.

A contender is a function without arguments that returns figures, each named with its unit. Rounds go ABAB, so that a
machine that slows down slows everybody; a ratio is the median of the ratios of single rounds.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SECONDS_PER_RUN = 300.0  # a contender that takes longer has failed
Figures = dict[str, float]
OURS = "upswell"


@dataclass(frozen=True, slots=True)
class Target:
    """What one figure of ours must reach and aims at: absolute, or as a multiple of another contender's."""

    figure: str
    must: float
    aim: float | None = None
    against: str | None = None
    higher_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    title: str
    contenders: dict[str, Callable[[], Figures]]
    targets: tuple[Target, ...]
    rounds: int = 5
    # Contenders that need an extra: the name of the extra's package, as in WITH=ray,dask.
    optional: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    measure: Measure
    runs: dict[str, list[Figures]]
    failures: dict[str, str]

    def median(self, contender: str, figure: str) -> float | None:
        values = [run[figure] for run in self.runs.get(contender, []) if figure in run]
        return statistics.median(values) if values else None

    def reached(self, target: Target) -> float | None:
        """Return our figure, or its ratio to the other's; None where a run is missing."""
        ours = [run[target.figure] for run in self.runs.get(OURS, []) if target.figure in run]
        if target.against is None:
            return statistics.median(ours) if ours else None
        theirs = [run[target.figure] for run in self.runs.get(target.against, []) if target.figure in run]
        ratios = [our / their for our, their in zip(ours, theirs, strict=False)]
        return statistics.median(ratios) if ratios else None

    def verdict(self, target: Target) -> str:
        value = self.reached(target)
        if value is None:
            return "not measured"
        sign = 1 if target.higher_is_better else -1
        if target.aim is not None and sign * value >= sign * target.aim:
            return "aim reached"
        return "must reached" if sign * value >= sign * target.must else "MISSED"


class CpuClock:
    """The CPU time spent since it was made, by this process and everything below it, living and reaped.

    A living process is read through its own CPU clock, in nanoseconds (the id of that clock is made from the process
    id, see clock_getcpuclockid(3)); the statistics in /proc count in hundredths of a second, too coarse for a fast map.
    Reading the others costs time too: our own clock is read last at the start and first at the end.
    """

    def __init__(self) -> None:
        self._others_at_start = self._others()
        self._own_at_start = time.process_time()

    def seconds(self) -> float:
        own = time.process_time() - self._own_at_start
        return own + self._others() - self._others_at_start

    @staticmethod
    def _others() -> float:
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = reaped.ru_utime + reaped.ru_stime
        for process in psutil.Process().children(recursive=True):
            try:
                times = process.cpu_times()
                total += clock_of(process.pid) + times.children_user + times.children_system
            except (psutil.Error, OSError):
                continue  # ended just now: its parent has it among the reaped
        return total


def clock_of(pid: int) -> float:
    if sys.platform == "linux":
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def pss_megabytes(pids: Iterable[int]) -> float:
    """Return the mean proportional set size: private memory, plus a fair part of what is shared."""
    sizes = [psutil.Process(pid).memory_full_info().pss / 2**20 for pid in pids]
    return statistics.mean(sizes)


def adopt_orphans() -> None:
    """Make descendants whose parent ended our children, so that their CPU time is still found (Linux)."""
    if sys.platform == "linux":
        set_child_subreaper = 36  # prctl(2)
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def raise_open_files() -> None:
    """Allow as many open files as the system lets us: a thousand processes have several thousand pipes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(measure: Measure, module: str, rounds: int | None, extras: frozenset[str]) -> Result:
    result = Result(measure, {}, {})
    names = [name for name in measure.contenders if measure.optional.get(name) in (None, *extras)]
    for number in range(rounds or measure.rounds):
        for name in names:
            if name in result.failures:
                continue
            _show(f"{measure.name}: round {number + 1}, {name}")
            figures = _run_in_fresh_process(module, measure.name, name)
            if isinstance(figures, str):
                result.failures[name] = figures
            else:
                result.runs.setdefault(name, []).append(figures)
    _show("")
    return result


def _show(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{progress}\033[K", end="", file=sys.stderr, flush=True)


def _run_in_fresh_process(module: str, measure: str, contender: str) -> Figures | str:
    """Return a contender's figures, or what went wrong in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks.contender", module, measure, contender, str(path)]
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                status = process.wait(SECONDS_PER_RUN)
            except subprocess.TimeoutExpired:
                return f"no result within {SECONDS_PER_RUN:.0f} s"
            finally:
                with contextlib.suppress(ProcessLookupError):  # whatever the contender left behind
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if status == 0 and path.exists():
                figures: Figures = json.loads(path.read_text())
                return figures
            output.seek(0)
            lines = output.read().strip().splitlines()
            return f"exit status {status}: {lines[-1] if lines else 'no output'}"
