"""Rows for people and programs. At a terminal a table fits its width; elsewhere it is plain and whole.

Where there is nothing to show, that is said on standard error with what to do next.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

R = TypeVar("R")

GAP = 2
UNBOUNDED = 100_000  # columns of what is no terminal
NOTHING = "-"


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
    print(draw(standard_output(), columns, rows), end="")
    if more:
        print(f"upswell: only the first {len(rows):,} are shown", file=sys.stderr)


def standard_output() -> Console:
    """Where tables go, and how wide they may be there."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED
    return console


def draw(console: Console, columns: Sequence[Column[R]], rows: Sequence[R]) -> str:
    """The table, with as many columns as the console's width has room for."""
    from rich.table import Table
    from rich.text import Text

    cells = {column: [column.cell(row) for row in rows] for column in columns}
    widths = {column: max(map(_width, (column.title, *cells[column]))) for column in columns}
    shown = list(columns)
    for column in sorted(columns, key=lambda column: -column.rank):
        if column.rank and sum(widths[one] + GAP for one in shown) - GAP > console.width:
            shown.remove(column)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis")
    for index in range(len(rows)):
        table.add_row(*(Text(cells[column][index]) for column in shown))
    with console.capture() as capture:
        console.print(table)
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


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


def mebibytes(size: int | None) -> str:
    """Memory."""
    return NOTHING if size is None else f"{size / (1 << 20):,.0f} MiB"


def seconds(span: float | None) -> str:
    """A span of time."""
    return NOTHING if span is None else f"{span:,.1f} s"


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
