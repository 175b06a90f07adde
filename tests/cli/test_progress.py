"""The progress lines: one a function, one line high whatever the width, gone when there is nothing to wait for."""

import io
import re
import sys

import pytest
from rich.console import Console

from upswell.cli.progress import LiveProgress, Rate, at_terminal, draw
from upswell.wire.messages import FunctionProgress, Progress


def function(name: str = "square", **counts: int) -> FunctionProgress:
    every = {"pending": 0, "running": 0, "succeeded": 0, "failed": 0, "starting": 0, "ready": 0, **counts}
    return FunctionProgress(name=name, **every)


def drawn(width: int, *rows: tuple[FunctionProgress, float], height: int = 20) -> list[str]:
    return draw(Console(file=io.StringIO(), width=width, height=height), list(rows)).splitlines()


def test_a_line_says_all() -> None:
    (line,) = drawn(160, (function(pending=50, running=4, succeeded=1040, failed=6, starting=2, ready=3), 2500.0))
    for words in ("square", "1,046/1,100, 6 failed", "2.5k/s", "4 running", "50 pending", "3 containers + 2 starting"):
        assert words in line


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_a_function_is_one_line_high(width: int) -> None:
    many = [(function("f" * 64 + str(number), pending=10**9, ready=1), 1e9) for number in range(3)]
    lines = drawn(width, *many)
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (80, ["simmer", "━", "12/40", "9.0/s", "2 running", "2 containers"]),
        (60, ["simmer", "12/40", "9.0/s", "2 running", "2 containers"]),
        (40, ["simmer", "12/40", "2 running", "2 containers"]),
        (20, ["simmer", "12/40"]),
    ],
)
def test_a_narrow_terminal_shows_what_matters_most(width: int, words: list[str]) -> None:
    (line,) = drawn(width, (function("simmer", pending=26, running=2, succeeded=12, ready=2), 9.0))
    assert [word for word in re.split(r"  +", line.rstrip()) if word.strip("━╺╸")] == [w for w in words if w != "━"]
    assert ("━" in line) == ("━" in words)


def test_more_functions_than_lines() -> None:
    assert len(drawn(80, *[(function(pending=1), 0.0)] * 30, height=10)) == 8


def test_rate_is_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.per_second(0.0) == 0.0
    for second in range(10):
        rate.add(second * second, float(second))
    assert rate.per_second(9.0) == pytest.approx((81 - 25) / 4)
    assert rate.per_second(12.0) == pytest.approx((81 - 25) / 7)


def test_only_functions_at_work_are_shown() -> None:
    progress = LiveProgress()
    progress._terminal = io.StringIO()
    idle, busy = function("idle", ready=1), function("busy", running=1, ready=1)
    progress.update(Progress("ap-1", [idle, busy]))
    assert "busy" in progress._frame() and "idle" not in progress._frame()
    progress.update(Progress("ap-1", [idle, function("busy", succeeded=1, ready=1)]))
    assert progress._frame() == ""


def test_no_display_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not at_terminal()
