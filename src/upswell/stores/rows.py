"""What a step changes, as rows: one method a kind of write. Runs on the writer's thread, inside its transaction.

The rows that every call has are gathered, and written together at the latest by `flush`, which ends a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw
import msgspec

from .. import store as s
from ..spec import OUTCOMES_KEPT_SECONDS
from ..wire.buffers import Block
from .gathered import OPEN, PUT_SEGMENT, Gathered, OpenedCall

PIECE_BYTES = 1 << 20
NUMBERS_REMEMBERED = 65_536
ROWS_GATHERED = 1_000
OF_INPUTS = ("attempts", "cancelled_inputs")  # what is known of inputs that are not settled
ROWS_AT_ONCE = 500  # deleted in one transaction of a sweep
PAGES_AT_ONCE = 2_048  # given back in one
PAGES_LEFT_FREE = 1_024  # for what comes next

_json = msgspec.json.Encoder().encode


def missing(connection: apsw.Connection, digests: Iterable[str]) -> set[str]:
    """Those of the digests whose content is not there."""
    asked = _json(list(digests)).decode()
    found = connection.execute(
        "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT digest FROM contents)", (asked,)
    )
    return {digest for (digest,) in found}


class Rows:
    """Writes to one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._execute = connection.cursor().execute  # one for all: to make one takes as long as a short statement
        self._gathered = Gathered(connection)
        self._numbers: dict[str, int] = {}  # of calls; only ever a memory of what the table says, or is about to
        self._latest: int | None = None  # the highest of all, where it is known
        self._gathers: dict[type[s.Write], Callable[[Any], None]] = {
            s.OpenCall: self._open,
            s.PutInputs: self._put_inputs,
            s.PutOutcome: self._put_outcome,
            s.DropInputs: self._drop_inputs,
            s.FinishCall: self._finish,
        }
        noted = " UNION ".join(f"SELECT call FROM {table}" for table in OF_INPUTS)
        self._noted = {number for (number,) in connection.execute(noted)}  # all calls that these tables know, or more

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._gathered.clear()
        self._numbers.clear()
        self._latest = None

    def flush(self) -> None:
        """Write what is gathered."""
        if self._gathered:
            for number, first in self._gathered.write():
                self._drop_whole(number, first)

    def write(self, step: Sequence[s.Write]) -> None:
        """Change what the writes of the step say, once `flush` has been called."""
        match step:
            case (s.OpenCall(call=call) as opened, s.PutInputs(call=same, first=0) as inputs) if call == same:
                self._open_alone(opened, inputs)
                return
        for write in step:
            if (gather := self._gathers.get(type(write))) is not None:
                gather(write)
            else:
                self.flush()
                self._write(write)
        if len(self._gathered) > ROWS_GATHERED:
            self.flush()

    def _write(self, write: s.Write) -> None:
        match write:
            case s.PutAttempts(call=call, position=position, failures=failures, losses=losses):
                self._execute(
                    "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?)",
                    (self._note(call), position, failures, losses),
                )
            case s.EndInputs(call=call, total=total):
                self._execute("UPDATE calls SET total = ? WHERE number = ?", (total, self._number(call)))
            case s.CancelCall(call=call):
                self._execute("UPDATE calls SET cancelled = 1 WHERE number = ?", (self._number(call),))
            case s.CancelInput(call=call, position=position):
                self._execute(
                    "INSERT OR IGNORE INTO cancelled_inputs SELECT ?1, ?2 WHERE EXISTS "
                    "(SELECT 1 FROM segments WHERE call = ?1 AND first <= ?2 AND first + count > ?2)",
                    (self._note(call), position),
                )
            case s.WithdrawInputs(call=call, first=first):
                self._withdraw_inputs(call, first)
            case s.DropCall(call=call):
                self._drop_call(call)
            case _:
                self._write_app(write)

    def _all(self, statement: str, *values: float) -> list[Any]:
        return list(self._execute(statement, values))

    # -- calls -------------------------------------------------------------------------------------

    def _number(self, call: str) -> int:
        number = self._numbers.get(call)
        if number is None:
            self.flush()
            number = self._execute("SELECT number FROM calls WHERE id = ?", (call,)).get
            if number is None:
                raise s.unknown(call)
            self._remember(call, number)
        return number

    def _note(self, call: str) -> int:
        """The number of a call of whose inputs something is to be known."""
        number = self._number(call)
        self._noted.add(number)
        return number

    def _remember(self, call: str, number: int) -> None:
        if len(self._numbers) >= NUMBERS_REMEMBERED:
            self._numbers.clear()
        self._numbers[call] = number

    def _new_number(self, call: str) -> int:
        if self._latest is None:
            self._latest = self._execute("SELECT max(number) FROM calls").get or 0
        self._latest += 1
        self._remember(call, self._latest)
        return self._latest

    def _open_alone(self, write: s.OpenCall, inputs: s.PutInputs) -> None:
        """Of a step that is nothing else: two statements take less than to gather two rows."""
        number, kept = self._new_number(write.call), inputs.kept
        total = inputs.count if inputs.last else None
        call = (number, write.call, write.function, write.method, write.maker, write.kind, inputs.count, total)
        self._execute(OPEN[1][1], (*call, write.at, None))
        self._execute(PUT_SEGMENT[1][1], (number, 0, inputs.count, self._put_block(kept.block), kept.payload))

    def _open(self, write: s.OpenCall) -> None:
        number = self._new_number(write.call)
        self._gathered.calls[number] = OpenedCall(
            number, write.call, write.function, write.method, write.maker, write.kind, 0, None, write.at
        )

    def _put_inputs(self, write: s.PutInputs) -> None:
        number, submitted = self._number(write.call), write.first + write.count
        total = submitted if write.last else None
        if (call := self._gathered.calls.get(number)) is None:
            self.flush()
            self._execute(
                "UPDATE calls SET submitted = ?, total = ? "
                "WHERE number = ? AND submitted = ? AND total IS NULL AND NOT cancelled AND finished_at IS NULL",
                (submitted, total, number, write.first),
            )
            if not self._connection.changes():
                raise s.out_of_turn(write)
        elif call.submitted == write.first and call.total is None and call.finished_at is None:
            call.submitted, call.total = submitted, total
        else:
            raise s.out_of_turn(write)
        block = self._put_block(write.kept.block)
        self._gathered.segments[number, write.first] = (number, write.first, write.count, block, write.kept.payload)

    def _put_outcome(self, write: s.PutOutcome) -> None:
        number, outcome, kept = self._number(write.call), write.outcome, write.outcome.kept
        error = None if outcome.error is None else _json(outcome.error).decode()
        block = self._put_block(kept.block)
        self._gathered.outcomes.append((number, outcome.first, outcome.count, block, error, kept.payload))

    def _finish(self, write: s.FinishCall) -> None:
        number = self._number(write.call)
        if (call := self._gathered.calls.get(number)) is not None:
            call.finished_at = write.at
        else:
            self._gathered.finished[number] = write.at

    def _put_block(self, block: Block | None) -> int | None:
        if block is None:
            return None
        self._execute("INSERT INTO blocks (size) VALUES (?)", (block.buffers.size,))
        number = self._connection.last_insert_rowid()
        for piece in block.pieces(PIECE_BYTES):
            self._execute("INSERT INTO pieces (block, content) VALUES (?, ?)", (number, piece))
        return number

    def _drop_block(self, block: int | None) -> None:
        if block is not None:
            self._execute("DELETE FROM blocks WHERE number = ?", (block,))

    def _drop_inputs(self, write: s.DropInputs) -> None:
        number, first = self._number(write.call), write.first
        if number in self._noted:
            self.flush()
            self._drop_whole(number, first)
        elif (gathered := self._gathered.segments.pop((number, first), None)) is not None:
            self._drop_block(gathered[3])
        else:
            self._gathered.dropped[number, first] = None

    def _drop_whole(self, number: int, first: int) -> None:
        """Drop the segment with all that belongs to it, where it is there."""
        dropped = self._all("DELETE FROM segments WHERE call = ? AND first = ? RETURNING count, block", number, first)
        for count, block in dropped:
            self._drop_block(block)
            for table in OF_INPUTS if number in self._noted else ():
                self._execute(
                    f"DELETE FROM {table} WHERE call = ? AND position >= ? AND position < ?",
                    (number, first, first + count),
                )

    def _withdraw_inputs(self, call: str, position: int) -> None:
        number = self._execute("SELECT number FROM calls WHERE id = ?", (call,)).get
        if number is None:
            return
        for (first,) in self._all("SELECT first FROM segments WHERE call = ? AND first >= ?", number, position):
            self._drop_whole(number, first)
        if position:
            self._execute(
                "UPDATE calls SET submitted = ?1, total = NULL WHERE number = ?2 AND submitted > ?1", (position, number)
            )
        else:
            self._drop_call(call)

    def _drop_call(self, call: str) -> None:
        number = self._number(call)
        for table in ("segments", "outcomes"):
            for (block,) in self._all(f"DELETE FROM {table} WHERE call = ? RETURNING block", number):
                self._drop_block(block)
        for table in OF_INPUTS:
            self._execute(f"DELETE FROM {table} WHERE call = ?", (number,))
        self._execute("DELETE FROM calls WHERE number = ?", (number,))
        self._numbers.pop(call, None)
        self._noted.discard(number)

    # -- apps --------------------------------------------------------------------------------------

    def _write_app(self, write: s.Write) -> None:
        match write:
            case s.PutFile(digest=digest, content=content):
                self._execute("INSERT OR IGNORE INTO contents VALUES (?, ?)", (digest, content))
            case s.PutVersion(version=version):
                self._put_version(version)
            case s.PutApp(app=app):
                self._execute(
                    "INSERT INTO apps (id, name, version, detached) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                    "SET name = excluded.name, version = excluded.version, detached = excluded.detached",
                    (app.id, app.name, app.version, app.detached),
                )
            case s.DropApp(app=name):
                self._execute("DELETE FROM apps WHERE id = ?", (name,))
                self._execute("DELETE FROM versions WHERE app = ?", (name,))
                for table in ("settings", "fires", "derived"):
                    self._execute(f"DELETE FROM {table} WHERE substr(function, 1, length(?1) + 1) = ?1 || '/'", (name,))
                self._execute("DELETE FROM contents WHERE digest NOT IN (SELECT digest FROM files)")
            case s.PutDerived(record=record):
                self._execute("INSERT OR REPLACE INTO derived VALUES (?, ?)", (record.id, _json(record).decode()))
            case s.DropDerived(function=function):
                self._execute("DELETE FROM derived WHERE function = ?", (function,))
            case s.PutSettings(function=function, settings=None):
                self._execute("DELETE FROM settings WHERE function = ?", (function,))
            case s.PutSettings(function=function, settings=settings):
                self._execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (function, _json(settings).decode()))
            case s.PutFire(function=function, moment=None):
                self._execute("DELETE FROM fires WHERE function = ?", (function,))
            case s.PutFire(function=function, moment=moment):
                self._execute("INSERT OR REPLACE INTO fires VALUES (?, ?)", (function, moment))

    def _put_version(self, version: s.Version) -> None:
        digests = {digest for _, digest in version.files}
        s.check_files(version, missing(self._connection, digests))
        self._execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?)",
            (version.app, version.number, version.tag, version.deployed_at, _json(version.functions).decode()),
        )
        for path, digest in version.files:
            self._execute("INSERT INTO files VALUES (?, ?, ?, ?)", (version.app, version.number, path, digest))

    # -- upkeep ------------------------------------------------------------------------------------

    def sweep(self, now: float) -> bool:
        """Do a limited part of what a sweep is for; whether there is more."""
        execute, before = self._execute, now - OUTCOMES_KEPT_SECONDS
        left = ROWS_AT_ONCE
        for (number,) in self._all(
            "SELECT number FROM calls WHERE expired = 0 AND finished_at <= ? LIMIT ?", before, ROWS_AT_ONCE
        ):
            dropped = self._all(
                "DELETE FROM outcomes WHERE number IN (SELECT number FROM outcomes WHERE call = ? LIMIT ?) "
                "RETURNING block",
                number,
                left,
            )
            for (block,) in dropped:
                self._drop_block(block)
            left -= len(dropped)
            if left <= 0:
                return True
            execute("UPDATE calls SET expired = 1 WHERE number = ?", (number,))
            self._noted.discard(number)
            left -= 1
        execute(
            "DELETE FROM calls WHERE number IN "
            "(SELECT number FROM calls WHERE expired = 1 AND finished_at <= ? LIMIT ?)",
            (before - OUTCOMES_KEPT_SECONDS, ROWS_AT_ONCE),
        )
        more = left <= 0 or self._connection.changes() >= ROWS_AT_ONCE
        self.forget()
        free: int = self._connection.pragma("freelist_count")
        if free > PAGES_LEFT_FREE:
            execute(f"PRAGMA incremental_vacuum({min(PAGES_AT_ONCE, free - PAGES_LEFT_FREE)})").fetchall()
            more = more or free - PAGES_AT_ONCE > PAGES_LEFT_FREE
        return more
