"""`make soak`: two million inputs while weeks pass on the server's calendar, schedules and retention included.

The calendar waits for the calls: results are kept for a week of it, and who is held up must not find them gone.
At the end every result was right, the schedule's calls are there, memory is flat, and the file is no larger in the last
third than in the one before, as results that are older than a week are gone.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

import upswell
from tests.soak import work

AT_ONCE = 1000  # inputs of one spawned call
CALLS = 10  # that are fetched together
DAYS = 5.0  # at most, between the first of them and the fetching: results are kept for seven
MIB = 1 << 20
SLACK_MIB = 8.0  # of memory, and of the log beside the file
STEP_SECONDS = 0.02  # between two looks of the calendar at the clock
FLAT = 1.1  # what the last third may be of the one before


class Soak:
    """One run."""

    def __init__(self, folder: Path, inputs: int, days: float, seconds: float) -> None:
        self._home = folder
        self._inputs, self._days, self._seconds = inputs, days, seconds
        self._calendar, self._began_at = folder / "calendar", time.time()
        self._part, self._looked_at = 0.0, 0.0  # how much of the days has passed, and when that was looked at
        self.memory: list[float] = []  # MiB, looked at again and again
        self.size: list[float] = []
        self.fires = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        os.environ["UPSWELL_HOME"] = str(self._home)
        os.environ["UPSWELL_SERVER"] = f"unix:{self._home}/server.sock"
        self._calendar.touch()
        self._set_calendar()
        here = [str(self._home), str(self._seconds)]
        server = subprocess.Popen([sys.executable, "-m", "tests.soak.server", *here])
        try:
            while not (self._home / "server.sock").exists() and server.poll() is None:
                time.sleep(0.01)
            self._work(psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait()
        self._judge()

    def _work(self, server: psutil.Process) -> None:
        work.app.deploy()
        calls, self._looked_at = self._inputs // AT_ONCE, time.monotonic()
        waiting: list[upswell.FunctionCall[int]] = []
        for number in range(calls):
            waiting.append(work.square.spawn_map(range(number, number + AT_ONCE)))
            if len(waiting) == CALLS:
                self._collect(number + 1 - CALLS, waiting)
                waiting = []
                self.memory.append(server.memory_info().rss / MIB)
                self.size.append(sum(file.stat().st_size for file in self._home.glob("upswell.db*")) / MIB)
            self._pass_time((number + 1) / calls)

    def _pass_time(self, until: float) -> None:
        """Let the calendar go on to this part of the days, which it does while calls are made, too, but no further."""
        while self._part < until:
            before, self._looked_at = self._looked_at, time.monotonic()
            self._part = min(until, self._part + (self._looked_at - before) / self._seconds)
            self._set_calendar()
            time.sleep(STEP_SECONDS if self._part < until else 0.0)

    def _set_calendar(self) -> None:
        now = self._began_at + self._part * self._days * 86_400
        os.utime(self._calendar, (now, now))

    def _collect(self, first: int, calls: list[upswell.FunctionCall[int]]) -> None:
        for number, call in enumerate(calls, first):
            if list(call.iter()) != [x * x for x in range(number, number + AT_ONCE)]:
                self.wrong.append(f"results of call {number}")

    def _judge(self) -> None:
        with sqlite3.connect(self._home / "upswell.db") as database:
            fires = "SELECT count(*) FROM calls WHERE function LIKE '%/hourly'"
            (self.fires,) = database.execute(fires).fetchone()
        for name, values in (("memory", self.memory), ("the file", self.size)):
            third = len(values) // 3
            before, last = max(values[third : 2 * third], default=0.0), max(values[2 * third :], default=0.0)
            if last > FLAT * before + SLACK_MIB:
                self.wrong.append(f"{name} grew from {before:.1f} to {last:.1f} MiB")


def main() -> int:
    """Run one soak, print what was measured, and say what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2_000_000)
    parser.add_argument("--days", type=float, default=24.0)
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    fewest = int(arguments.days / DAYS * CALLS * AT_ONCE)
    if arguments.inputs < fewest:
        parser.error(
            f"in {arguments.days:g} days at least {fewest:,} inputs, else results expire before they are fetched"
        )
    with tempfile.TemporaryDirectory(prefix="upswell-soak-") as folder:
        soak = Soak(Path(folder), arguments.inputs, arguments.days, arguments.seconds)
        soak.run()
    print(f"{arguments.inputs:,} inputs in {arguments.days:g} days; {soak.fires} calls of an hourly schedule are kept")
    print(f"memory: {soak.memory[0]:.1f} MiB at first, {max(soak.memory):.1f} at most, {soak.memory[-1]:.1f} at last")
    print(f"the file: {soak.size[0]:.1f} MiB at first, {max(soak.size):.1f} at most, {soak.size[-1]:.1f} at last")
    for words in soak.wrong:
        print(f"WRONG: {words}", file=sys.stderr)
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
