"""What a person at a terminal sees of a run: a line a function, while there is something to see.

Nothing is shown for functions without inputs, and nothing at all where standard error is no terminal.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from .screen import Screen

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType
    from rich.text import Text

    from ..wire.messages import FunctionProgress, Progress

RATE_WINDOW_SECONDS = 3.0
BAR_WIDTH = 24
NAME_WIDTH = 28
COLUMN_GAP = 2
DROPPED_FIRST = ("pending", "bar", "rate", "running", "containers")  # as the terminal gets narrower
STYLES = {"name": "bold", "rate": "dim", "containers": "dim"}
LINES_LEFT_FREE = 2  # of the terminal's height


def at_terminal() -> bool:
    """Whether there is a terminal that can show live lines."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class LiveProgress:
    """A context in which the progress that `update` is told stays on the terminal's last lines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._functions: list[FunctionProgress] = []
        self._rates: dict[str, Rate] = {}
        self._console: Console | None = None

    def __enter__(self) -> LiveProgress:
        self._terminal = sys.stderr
        self._screen = Screen(self._frame)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.close()

    def update(self, progress: Progress) -> None:
        """Take the newest counts; may be called in any thread."""
        now = time.monotonic()
        with self._lock:
            self._functions = [one for one in progress.functions if _inputs(one)]
            for one in self._functions:
                self._rates.setdefault(one.name, Rate()).add(one.succeeded + one.failed, now)

    def _frame(self) -> str:
        """Draw the lines; in the screen's thread, where the import of rich delays nobody."""
        with self._lock:
            rows = [(one, self._rates[one.name].per_second(time.monotonic())) for one in self._functions]
        if not any(one.pending or one.running or one.starting for one, _ in rows):
            return ""
        from rich.console import Console

        if self._console is None:
            self._console = Console(file=self._terminal, highlight=False)
        return draw(self._console, rows)


class Rate:
    """How fast a count grows, over the last few seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, count: int, now: float) -> None:
        self._samples.append((now, count))
        while len(self._samples) > 2 and self._samples[1][0] < now - RATE_WINDOW_SECONDS:
            self._samples.popleft()

    def per_second(self, now: float) -> float:
        """Return counts per second since the oldest sample, 0.0 while there is too little to tell."""
        if len(self._samples) < 2:
            return 0.0
        (since, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / (now - since) if now > since else 0.0


def draw(console: Console, rows: list[tuple[FunctionProgress, float]]) -> str:
    """Return the lines of the display, each one line of the terminal whatever its width."""
    from rich.table import Table

    room = max(1, console.height - LINES_LEFT_FREE)
    cells = [_cells(one, rate) for one, rate in rows[:room]]
    widths = {name: max(row[name].cell_len for row in cells) for name in cells[0]} | {"bar": BAR_WIDTH}
    widths["name"] = min(widths["name"], NAME_WIDTH)
    shown = _fitting(widths, console.width)
    table = Table.grid(padding=(0, COLUMN_GAP), pad_edge=False)
    for name in shown:
        table.add_column(
            no_wrap=True,
            overflow="ellipsis",
            width=min(widths[name], console.width),
            justify="right" if name in ("counts", "running", "pending") else "left",
            style=STYLES.get(name, ""),
        )
    for (one, _), row in zip(rows, cells, strict=False):
        table.add_row(*(_bar(one) if name == "bar" else row[name] for name in shown))
    with console.capture() as capture:
        console.print(table, soft_wrap=False, crop=True)
    return capture.get()


def _cells(one: FunctionProgress, rate: float) -> dict[str, Text]:
    """Return the columns of a function's line, from left to right."""
    from rich.text import Text

    counts = Text(f"{one.succeeded + one.failed:,}/{_inputs(one):,}")
    if one.failed:
        counts.append(", ").append(f"{one.failed:,} failed", style="red")
    containers = f"{one.ready:,} containers" if one.ready != 1 else "1 container"
    return {
        "name": Text(one.name),
        "bar": Text(),
        "counts": counts,
        "rate": Text(f"{short(rate)}/s"),
        "running": Text(f"{one.running:,} running"),
        "pending": Text(f"{one.pending:,} pending"),
        "containers": Text(f"{containers}{f' + {one.starting:,} starting' if one.starting else ''}"),
    }


def _bar(one: FunctionProgress) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=_inputs(one), completed=one.succeeded + one.failed, width=BAR_WIDTH)


def _fitting(widths: dict[str, int], room: int) -> list[str]:
    """Return the columns that a terminal of that width has room for."""
    shown = list(widths)
    for name in DROPPED_FIRST:
        if sum(widths[one] + COLUMN_GAP for one in shown) - COLUMN_GAP > room:
            shown.remove(name)
    return shown


def _inputs(one: FunctionProgress) -> int:
    return one.pending + one.running + one.succeeded + one.failed


def short(rate: float) -> str:
    """Return the number in at most five characters: 0.4, 12, 3.1k, 2.5M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if rate >= limit:
            return f"{rate / limit:.1f}{unit}"
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
