"""Rows of a transaction that are not written yet, by kind: one statement writes many of them.

The interpreter changes hands at every statement, and to have it back from a busy loop may take longer than the
statement does. Beside that, what begins and ends while it is gathered is written once, or never. Nothing here reads a
row: who wants to, or changes what is gathered in any other way, has it written first.

A row that can't be written ends the transaction (`OR ROLLBACK`), as whoever writes would anyway. Else SQLite copies
each page before it changes, to undo the statement alone, which takes as long as statements are saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import apsw
import msgspec
from msgspec.structs import astuple

MOST_ROWS = 64  # of one statement; others write half of that, a quarter ... so that few statements are prepared

Row = tuple[object, ...]
Statements = tuple[tuple[int, str], ...]  # by the number of rows to be written: how many of them one can write, and how


class OpenedCall(msgspec.Struct, gc=False):
    """A row of `calls`, in the order of its columns."""

    number: int
    id: str
    function: str
    method: str
    maker: str
    kind: str
    submitted: int
    total: int | None
    submitted_at: float
    finished_at: float | None = None


SegmentRow = tuple[int, int, int, int | None, bytes | memoryview]  # call, first, count, block, payload
OutcomeRow = tuple[int, int, int, int | None, str | None, bytes | memoryview]  # ... error, payload


def _statements(text: Callable[[int], str]) -> Statements:
    sizes = [1 << max(0, rows.bit_length() - 1) for rows in range(MOST_ROWS + 1)]
    texts = {size: text(size) for size in sizes}
    return tuple((size, texts[size]) for size in sizes)


def _inserts(table: str, *columns: str) -> Statements:
    row = f"({', '.join('?' * len(columns))})"
    return _statements(
        lambda size: f"INSERT OR ROLLBACK INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * size)}"
    )


def _pairs(many: str, one: str) -> Statements:
    return _statements(lambda size: many.format(", ".join(["(?, ?)"] * size)) if size > 1 else one)


OPEN = _inserts("calls", *OpenedCall.__struct_fields__)
PUT_SEGMENT = _inserts("segments", "call", "first", "count", "block", "payload")
PUT_OUTCOME = _inserts("outcomes", "call", "first", "count", "block", "error", "payload")
DROP_SEGMENT = _pairs(
    "DELETE FROM segments WHERE (call, first) IN (VALUES {}) AND block IS NULL",
    "DELETE FROM segments WHERE call = ? AND first = ? AND block IS NULL",
)
FINISH = _pairs(
    "UPDATE OR ROLLBACK calls SET finished_at = ended.column2 FROM (VALUES {}) ended WHERE number = ended.column1",
    "UPDATE calls SET finished_at = ?2 WHERE number = ?1",
)


class Gathered:
    """What is to be written next, to one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.calls: dict[int, OpenedCall] = {}
        self.segments: dict[tuple[int, int], SegmentRow] = {}  # by call and first
        self.outcomes: list[OutcomeRow] = []
        self.dropped: dict[tuple[int, int], None] = {}  # segments that are written, by call and first
        self.finished: dict[int, float] = {}  # calls that are written, and when they ended
        self._connection = connection
        self._execute = connection.cursor().execute

    def __len__(self) -> int:
        return len(self.calls) + len(self.segments) + len(self.outcomes) + len(self.dropped) + len(self.finished)

    def clear(self) -> None:
        """Write nothing of it."""
        for rows in (self.calls, self.segments, self.outcomes, self.dropped, self.finished):
            rows.clear()

    def write(self) -> list[tuple[int, int]]:
        """Write all of it. Returns the segments that were to be dropped where one of them is not: it has a block."""
        left: list[tuple[int, int]] = []
        if self.dropped:
            dropped, changes = list(self.dropped), self._connection.total_changes()
            self._write(DROP_SEGMENT, dropped)
            if self._connection.total_changes() < changes + len(dropped):
                left = dropped
        if self.finished:
            self._write(FINISH, list(self.finished.items()))
        if self.calls:
            self._write(OPEN, [astuple(call) for call in self.calls.values()])
        if self.segments:
            self._write(PUT_SEGMENT, list(self.segments.values()))
        if self.outcomes:
            self._write(PUT_OUTCOME, self.outcomes)
        self.clear()
        return left

    def _write(self, statements: Statements, rows: Sequence[Row]) -> None:
        at, count = 0, len(rows)
        while at < count:
            size, statement = statements[min(count - at, MOST_ROWS)]
            self._execute(statement, tuple(chain.from_iterable(rows[at : at + size])))
            at += size
