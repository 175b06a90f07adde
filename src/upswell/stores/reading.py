"""What the file says: typed values from rows. Reads only, from the loop, and never much at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from .. import store as s
from ..core.snapshot import SavedCall, SavedSegment, unsettled_spans
from ..spec import FunctionRecord, SettingsUpdate
from ..store import Kept, Outcome
from ..wire.buffers import Block
from ..wire.messages import ErrorRecord
from .file import explained, open_for_reading
from .rows import missing

IDS_OF_A_LIFE = 1 << 32
OUTCOMES_AT_ONCE = 100
BEYOND = (1 << 63) - 1  # no position is

_error = msgspec.json.Decoder(ErrorRecord).decode
_function = msgspec.json.Decoder(FunctionRecord).decode
_settings = msgspec.json.Decoder(SettingsUpdate).decode
_functions = msgspec.json.Decoder(tuple[FunctionRecord, ...]).decode


class Reader:
    """A connection that only reads, while another one writes. Every method may raise `StoreError`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = open_for_reading(path)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _rows(self, query: str, *values: str | int) -> Iterator[Any]:
        with explained(self._path):
            yield from self._connection.execute(query, values)

    def _row(self, query: str, *values: str | int) -> Any:
        """The only row, or `None`."""
        return next(iter(list(self._rows(query, *values))), None)

    # -- payloads ----------------------------------------------------------------------------------

    def inputs(self, call: str, first: int) -> Kept | None:
        """The segment, with a block of its own."""
        row = self._row(
            "SELECT payload, block FROM segments WHERE call = (SELECT number FROM calls WHERE id = ?) AND first = ?",
            call,
            first,
        )
        return None if row is None else self._kept(*row)

    def outcomes(self, call: str, first: int, stop: int | None) -> Iterator[Outcome]:
        """Page by page, so that no transaction stays open while the taker takes its time."""
        number, latest, position = self._row(
            "SELECT number, (SELECT max(number) FROM outcomes), "
            # One that begins before `first` may reach into it.
            "(SELECT max(first) FROM outcomes WHERE call = c.number AND first <= ?2) "
            "FROM (SELECT max(number) AS number FROM calls WHERE id = ?1) c",
            call,
            first,
        )
        if number is None or latest is None:
            return
        position, more = position or 0, True
        while more:
            page = list(
                self._rows(
                    "SELECT first, count, error, payload, block FROM outcomes "
                    "WHERE call = ? AND first >= ? AND first < ? AND number <= ? ORDER BY first LIMIT ?",
                    number,
                    position,
                    BEYOND if stop is None else stop,
                    latest,
                    OUTCOMES_AT_ONCE,
                )
            )
            more = len(page) == OUTCOMES_AT_ONCE
            for begin, count, error, payload, block in page:
                position = begin + count
                if position > first:
                    yield Outcome(begin, count, self._kept(payload, block), None if error is None else _error(error))

    def _kept(self, payload: bytes, block: int | None) -> Kept:
        if block is None:
            return Kept(payload)
        pieces = self._rows("SELECT content FROM pieces WHERE block = ? ORDER BY number", block)
        return Kept(payload, Block.copy(piece for (piece,) in pieces))

    # -- what to go on with ------------------------------------------------------------------------

    def load(self) -> s.Snapshot:
        """Everything that is not finished. Payloads are not read."""
        derived = self._rows("SELECT record FROM derived ORDER BY function")
        settings = self._rows("SELECT function, settings FROM settings ORDER BY function")
        return s.Snapshot(
            self._row("SELECT lives FROM server")[0] * IDS_OF_A_LIFE,
            tuple((app, self._served(app)) for app in self.apps() if app.version),
            tuple(_function(text) for (text,) in derived),
            tuple((function, _settings(text)) for function, text in settings),
            tuple(self._rows("SELECT function, moment FROM fires ORDER BY function")),
            tuple(self._unfinished()),
            tuple(self._of_unfinished("method")),
            tuple(self._of_unfinished("maker")),
        )

    def _of_unfinished(self, column: str) -> Iterator[Any]:
        """Of each call that is not finished what it has in that column, where there is something."""
        return self._rows(
            f"SELECT id, {column} FROM calls WHERE finished_at IS NULL AND {column} <> '' ORDER BY number"
        )

    def _unfinished(self) -> Iterator[SavedCall]:
        """Each table is read once, from its index alone."""
        settled: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for call, segment, first, count in self._rows(
            "SELECT s.call, s.first, o.first, o.count FROM segments s CROSS JOIN outcomes o "
            "ON o.call = s.call AND o.first >= s.first AND o.first < s.first + s.count ORDER BY s.call, o.first"
        ):
            settled.setdefault((call, segment), []).append((first, count))
        segments: dict[int, list[SavedSegment]] = {}
        for call, first, count in self._rows("SELECT call, first, count FROM segments ORDER BY call, first"):
            unsettled = unsettled_spans(first, count, settled.get((call, first), ()))
            segments.setdefault(call, []).append(SavedSegment(first, count, unsettled))
        attempts = {
            call: tuple(tuple(row[1:]) for row in rows)
            for call, rows in groupby(self._rows("SELECT * FROM attempts ORDER BY call, position"), itemgetter(0))
        }
        ended: dict[int, list[int]] = {}
        for call, position in self._rows(
            "SELECT call, position FROM cancelled_inputs c WHERE NOT EXISTS (SELECT 1 FROM outcomes "
            "WHERE call = c.call AND first <= c.position AND first + count > c.position) ORDER BY call, position"
        ):
            ended.setdefault(call, []).append(position)
        for number, name, function, kind, submitted, total, cancelled in self._rows(
            "SELECT number, id, function, kind, submitted, total, cancelled FROM calls "
            "WHERE finished_at IS NULL ORDER BY number"
        ):
            left, tried = tuple(segments.get(number, ())), attempts.get(number, ())
            yield SavedCall(
                name,
                function,
                kind,
                submitted,
                total,
                bool(cancelled),
                left,
                tried,
                cancelled_inputs=tuple(ended.get(number, ())),
            )

    # -- apps and calls ----------------------------------------------------------------------------

    def apps(self) -> list[s.AppRecord]:
        """All that are there, stopped ones too, the oldest first."""
        rows = self._rows("SELECT id, name, version, detached FROM apps ORDER BY number")
        return [s.AppRecord(name, label, version, bool(detached)) for name, label, version, detached in rows]

    def version(self, app: str, number: int) -> s.Version | None:
        """One of the app, if it is there."""
        row = self._row("SELECT tag, deployed_at, functions FROM versions WHERE app = ? AND number = ?", app, number)
        if row is None:
            return None
        tag, deployed_at, functions = row
        files = self._rows("SELECT path, digest FROM files WHERE app = ? AND version = ? ORDER BY path", app, number)
        return s.Version(app, number, tag, deployed_at, _functions(functions), tuple(files))

    def version_heads(self, app: str, limit: int) -> list[s.VersionHead]:
        """The latest of the app. What is large in a row stands behind what is read of it."""
        rows = self._rows(
            "SELECT number, tag, deployed_at FROM versions WHERE app = ? ORDER BY number DESC LIMIT ?", app, limit
        )
        return [s.VersionHead(*row) for row in rows]

    def _served(self, app: s.AppRecord) -> s.Version:
        version = self.version(app.id, app.version)
        assert version is not None, f"version {app.version} of {app.id} is served and not kept"
        return version

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests whose content is not there."""
        with explained(self._path):
            return missing(self._connection, digests)

    def file(self, digest: str) -> bytes | None:
        """The content."""
        row = self._row("SELECT content FROM contents WHERE digest = ?", digest)
        return None if row is None else row[0]

    def call(self, call: str) -> s.CallRecord | None:
        """The call, if it is there."""
        return next(iter(self._calls("WHERE id = ?", call)), None)

    def calls(self, limit: int, skip: int) -> list[s.CallRecord]:
        """The latest calls."""
        return self._calls("ORDER BY number DESC LIMIT ? OFFSET ?", limit, skip)

    def failures(self, call: str) -> int:
        """How many inputs of the call failed."""
        found = self._row(
            "SELECT sum(count) FROM (SELECT count FROM outcomes WHERE call = (SELECT number FROM calls WHERE id = ?) "
            "AND error IS NOT NULL LIMIT ?)",
            call,
            s.MAX_FAILURES,
        )
        return found[0] or 0

    def _calls(self, which: str, *values: str | int) -> list[s.CallRecord]:
        rows = self._rows(
            "SELECT id, function, kind, submitted, total, submitted_at, finished_at, cancelled, expired, method, maker "
            f"FROM calls {which}",
            *values,
        )
        return [
            s.CallRecord(
                name, function, kind, submitted, total, bool(cancelled), begun, finished, bool(expired), method, maker
            )
            for name, function, kind, submitted, total, begun, finished, cancelled, expired, method, maker in rows
        ]
