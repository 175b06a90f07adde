"""Rows for people and programs. At a terminal a table fits its width; elsewhere it is plain and whole.

Where there is nothing to show, that is said on standard error with what to do next. Drawn by hand: a table may have
10,000 rows, and rich takes a millisecond for each.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click

from ..sdk.listing import Listing

R = TypeVar("R")

GAP = "  "
UNBOUNDED = 1 << 30  # the width of what is no terminal
NOTHING = "-"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"

as_json = click.option("--json", "as_json", is_flag=True, help="Print records for programs.")


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """One column. Where the terminal is narrow, that of the highest rank is left out first; rank 0 always stays."""

    title: str
    cell: Callable[[R], str]
    rank: int = 0
    right: bool = False


def show(columns: Sequence[Column[R]], rows: Sequence[R], empty: str, more: bool = False) -> None:
    """Print the rows; or say what `empty` says."""
    if not rows:
        print(f"upswell: {empty}", file=sys.stderr)
        return
    heading, *lines = draw(columns, rows, width_of_output())
    print(f"{BOLD}{heading}{PLAIN}" if is_a_terminal() else heading, *lines, sep="\n")
    if more:
        print(f"upswell: there are more than the {len(rows):,} shown", file=sys.stderr)


def show_listing(columns: Sequence[Column[R]], found: Listing[R], as_json: bool, empty: str) -> None:
    """Print what was found, as a table or by its records."""
    if as_json:
        print_json(found.rows)
    else:
        show(columns, found.rows, empty, found.more)


def width_of_output() -> int:
    """How wide a table may be."""
    return shutil.get_terminal_size().columns if is_a_terminal() else UNBOUNDED


def is_a_terminal() -> bool:
    """Whether a person reads what is printed. There may be no output at all."""
    return sys.stdout is not None and sys.stdout.isatty()


def draw(columns: Sequence[Column[R]], rows: Sequence[R], width: int) -> list[str]:
    """The lines of the table, the heading first, with as many columns as there is room for."""
    cells = {column.title: [column.title, *map(column.cell, rows)] for column in columns}
    widths = {title: max(map(width_of, texts)) for title, texts in cells.items()}
    for column in sorted(columns, key=lambda column: -column.rank):
        if column.rank and _total(widths) > width:
            del widths[column.title]
    while _total(widths) > width and (widest := max(widths, key=widths.__getitem__)) and widths[widest] > 1:
        widths[widest] -= 1
    shown = [
        [_fitted(text, widths[column.title], column.right) for text in cells[column.title]]
        for column in columns
        if column.title in widths
    ]
    return [GAP.join(line).rstrip() for line in zip(*shown, strict=True)]


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _fitted(text: str, width: int, right: bool) -> str:
    missing = width - width_of(text)
    if missing < 0:
        from rich.cells import set_cell_size

        return set_cell_size(text, width - 1) + "…"
    return " " * missing + text if right else text + " " * missing


def width_of(text: str) -> int:
    """Columns of a terminal that the text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def tell(record: Any, as_json: bool, words: str) -> None:
    """Say what was done, in words or by the record of what it was done to."""
    if as_json:
        print_json(record)
    else:
        print(words)


def print_json(value: Any) -> None:
    """Print a record, or a list of them, by the names of their fields."""
    import json

    print(json.dumps(value, indent=2, default=fields_of))


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a record, for JSON."""
    if hasattr(record, "__struct_fields__"):
        return {name: getattr(record, name) for name in record.__struct_fields__}
    raise TypeError(f"{record!r} is no record")


# -- cells -----------------------------------------------------------------------------------------


def moment(at: float | None) -> str:
    """A moment in local time."""
    return NOTHING if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def count(number: int | None) -> str:
    """A number of things."""
    return NOTHING if number is None else f"{number:,}"


def counted(number: int, what: str) -> str:
    """So many of them, in words."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def mebibytes(size: int | None) -> str:
    """Memory."""
    return NOTHING if size is None else f"{size / (1 << 20):,.0f} MiB"


def seconds(span: float | None) -> str:
    """A span of time."""
    return NOTHING if span is None else f"{span:,.1f} s"
