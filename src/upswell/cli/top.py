"""`upswell top`: what the functions on a server do, drawn anew until q or Ctrl-C; piped, a single frame."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click

from ..sdk.client import Client
from ..sdk.dual import run_sync
from ..sdk.listing import list_functions
from ..wire.messages import FunctionInfo
from . import naming
from .commands import Action
from .connection import connected
from .function import containers
from .progress import Rate, short
from .tables import Column, count, counted, draw, print_json, width_of_output

REFRESH_SECONDS = 1.0
FIRST_SECONDS = 0.25  # between the two looks that a first rate needs
BAR_WIDTH = 20
FULL, EMPTY = "█", "·"
LINES_LEFT_FREE = 7  # for what is not the table's rows


@click.command(short_help="Watch functions live.")
@click.argument("app_name", metavar="[APP]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print records of one look.")
def top(app_name: str | None, as_json: bool) -> Action:
    """Watch the functions that have containers or inputs, of an app or of all: the busiest first.

    The bar shows how many of the places in their containers are taken.
    """

    def act() -> int:
        with connected() as client:
            watch = Watch(client, naming.app_id(client, app_name))
            if as_json:
                print_json(watch.look())
                return 0
            watch.look()
            if sys.stdout.isatty() and sys.stdin.isatty():
                with suppress(KeyboardInterrupt):
                    _live(watch)
            else:
                time.sleep(FIRST_SECONDS)
                rows = watch.look()
                print(*frame(rows, watch.rates, width_of_output(), room=len(rows)), sep="\n")
        return 0

    return act


class Watch:
    """What is looked at again and again, and how fast it moves."""

    def __init__(self, client: Client, app: str) -> None:
        self.rates: dict[str, Rate] = {}
        self._client = client
        self._app = app

    def look(self) -> list[FunctionInfo]:
        """The functions now, the busiest first."""
        rows, now = run_sync(list_functions(self._client, self._app, active=True)).rows, time.monotonic()
        self.rates = {row.id: self.rates.get(row.id) or Rate() for row in rows}
        for row in rows:
            self.rates[row.id].add(row.succeeded + row.failed, now)
        return sorted(rows, key=lambda row: (-row.running, -row.backlog, row.app_name, row.name))


def frame(rows: list[FunctionInfo], rates: dict[str, Rate], width: int, room: int) -> list[str]:
    """The lines of one picture: sums, and the table as far as there is room for its columns and rows."""
    now = time.monotonic()
    speed = {row.id: rates[row.id].per_second(now) if row.id in rates else 0.0 for row in rows}
    running, backlog = sum(row.running for row in rows), sum(row.backlog for row in rows)
    present = sum(row.ready + row.starting for row in rows)
    runs = f"{counted(running, 'input')} {'runs' if running == 1 else 'run'}"
    sums = f"{counted(present, 'container')}, {runs}, {backlog:,} wait, {short(sum(speed.values()))}/s"
    if not rows:
        return [sums, "no function has containers or inputs"]
    columns: tuple[Column[FunctionInfo], ...] = (
        Column("APP", lambda row: row.app_name or row.app, 2),
        Column("FUNCTION", lambda row: row.name),
        Column("LOAD", bar, 3),
        Column("RUNNING", lambda row: count(row.running), right=True),
        Column("BACKLOG", lambda row: count(row.backlog), right=True),
        Column("CONTAINERS", containers, right=True),
        Column("MAX", lambda row: count(row.settings.max_containers), 4, right=True),
        Column("RATE", lambda row: f"{short(speed[row.id])}/s", 1, right=True),
        Column("FAILED", lambda row: count(row.failed), 5, right=True),
        Column("RULE", lambda row: row.rule, 6),
    )
    lines = [sums, "", *draw(columns, rows[:room], width)]
    if len(rows) > room:
        lines.append(f"… and {len(rows) - room:,} more")
    return lines


def bar(row: FunctionInfo) -> str:
    """How many of the places in its ready containers are taken."""
    places = row.running + row.headroom
    taken = round(BAR_WIDTH * row.running / places) if places else 0
    return FULL * taken + EMPTY * (BAR_WIDTH - taken)


def _live(watch: Watch) -> None:
    """Draw until q is pressed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            lines = frame(watch.look(), watch.rates, console.width, max(1, console.height - LINES_LEFT_FREE))
            live.update(Text("\n".join([*lines, "", "q ends"]), no_wrap=True, overflow="crop"), refresh=True)
            if pressed(REFRESH_SECONDS) == "q":
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Keys one by one, without an echo; gives what waits so many seconds for one, "" where none came."""
    import select
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 1).decode(errors="replace") if ready else ""

    tty.setcbreak(descriptor)
    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
