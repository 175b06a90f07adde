"""Short versions of the campaigns that `make soak` and `make chaos` run at length."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=170, check=False)


def test_weeks_on_the_calendar() -> None:
    done = campaign("tests.soak", "--inputs", "60000", "--seconds", "6")
    assert done.returncode == 0, done.stderr
    assert "60,000 inputs in 24 days" in done.stdout


def test_everything_is_killed() -> None:
    done = campaign("tests.chaos", "--seed", "7", "--kills", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "are complete" in done.stdout
    assert "container" in done.stdout.partition(";")[0]
