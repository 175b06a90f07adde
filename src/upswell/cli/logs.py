"""Lines of a log, printed for people or programs. What containers wrote is shown as they wrote it, after its label."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import click

from ..sdk.client import Client, new_request
from ..sdk.dual import DualIteration
from ..sdk.listing import read_logs
from ..wire.messages import MAX_LOG_LINES, LogEntry, ReadLogs
from .tables import fields_of

F = TypeVar("F", bound=Callable[..., Any])

LINES = 100


def options(command: F) -> F:
    """The options of every command that prints a log."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print a record for each line."),
        click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on."),
        click.option(
            "-n", "--lines", type=click.IntRange(0, MAX_LOG_LINES), default=LINES, help=f"How many (default {LINES})."
        ),
    ):
        command = option(command)
    return command


def print_logs(client: Client, app: str, function: str, container: str, lines: int, follow: bool, as_json: bool) -> int:
    """Print the last lines, and with `follow` what comes, until Ctrl-C."""
    asked = ReadLogs(new_request(), app, function, container, lines, follow)
    there_is_none = lines > 0 and not follow
    for entry in DualIteration(read_logs)(client, asked):
        there_is_none = False
        for line in split(entry):
            print(_as_json(line) if as_json else in_words(line))
        sys.stdout.flush()
    if there_is_none:
        words = "nothing is kept of that: only what containers of deployed apps write is, and for a time"
        print(f"upswell: {words}", file=sys.stderr)
    return 0


def split(entry: LogEntry) -> Iterator[LogEntry]:
    """An entry for each line."""
    for line in entry.text.removesuffix("\n").split("\n"):
        yield LogEntry(entry.at, entry.function, entry.container, entry.stream, line)


def in_words(line: LogEntry) -> str:
    """When, who, and what."""
    at = datetime.fromtimestamp(line.at).isoformat(" ", "milliseconds")
    who = " ".join(filter(None, (line.function, line.container)))
    who = f"{who} (server)".lstrip() if line.stream == "server" else who
    return f"{at}  {who}  {line.text}"


def _as_json(line: LogEntry) -> str:
    import json

    return json.dumps(fields_of(line))
