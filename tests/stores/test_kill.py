"""kill -9 at any time: what was said to be kept is kept, each step whole. UPSWELL_KILLS=n kills n times."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from .desk import Desk

KILLS = int(os.environ.get("UPSWELL_KILLS", "6"))
SEED = 20
MOST_LINES = 300  # said before the end; how long a process lives is a matter of what it has done, not of the clock


def run_and_kill(home: Path, seed: int, lines: int) -> list[str]:
    """Let a process write until it has said so many lines; everything it said."""
    command = [sys.executable, "-m", "tests.stores.kill_me", str(home), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [line for line, _ in zip(process.stdout, range(lines), strict=False)]
    process.kill()
    said += [line for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    assert process.wait() == -9, "it ended by itself"
    return said


def test_what_was_said_to_be_kept_is_kept(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    accepted: dict[str, int] = {}
    settled: set[str] = set()
    for _ in range(KILLS):
        for line in run_and_kill(tmp_path, chance.getrandbits(32), chance.randint(1, MOST_LINES)):
            what, call, count = line.split()
            if what == "accepted":
                accepted[call] = int(count)
            else:
                settled.add(call)
        with Desk(tmp_path) as desk:
            records = {record.id: record for record in desk.store.calls(1_000_000)}
            assert accepted.keys() <= records.keys()
            for call, record in records.items():
                assert record.submitted == record.total == accepted.setdefault(call, record.submitted)
                positions = [outcome.first for outcome in desk.store.outcomes(call)]
                if record.finished_at is None:
                    assert call not in settled
                    assert not positions
                    assert desk.store.inputs(call, 0).payload
                else:
                    settled.add(call)
                    assert positions == list(range(record.submitted))
