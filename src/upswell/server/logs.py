"""What containers of kept apps write, and what the server has to say about them: kept in files, and sent to who asks.

The loop hands everything to one thread, which alone waits for the disk, so that neither a container that writes much
nor a slow disk holds anybody up. That thread reads too: what it had been handed before is then in the answer, and what
comes later follows it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import msgspec

from ..wire import messages as m
from .connections import Connection
from .logfiles import LogFiles, encode

if TYPE_CHECKING:
    from pathlib import Path

UNWRITTEN_BYTES = 16 << 20  # that the disk is behind; beyond it lines are left out
UNREAD_BYTES = 4 << 20  # that who follows is behind; likewise
WRITTEN_AT_ONCE_BYTES = 1 << 20
PAGE_BYTES = 1 << 20  # of text, in one answer
READERS_AT_MOST = 100  # who read or follow

log = logging.getLogger("upswell.server")


class Reader(msgspec.Struct, eq=False):
    """Who reads an app's log, and may follow it."""

    connection: Connection
    asked: m.ReadLogs
    is_here: bool = False  # what was there at first has been sent
    held: list[m.LogEntry] = []  # what has come since, until then
    held_bytes: int = 0
    left_out: int = 0

    def wants(self, entry: m.LogEntry) -> bool:
        """Whether the entry is of what it asked for."""
        asked = self.asked
        return asked.function in ("", entry.function) and asked.container in ("", entry.container)

    def send(self, entries: list[m.LogEntry]) -> None:
        """Send them, if they can be read."""
        self.connection.send(m.Logged(self.asked.request, entries))

    def caught_up(self, at: float) -> None:
        """What was there at the moment `at` has been sent: send what has come since."""
        held, self.held, self.is_here = self.held, [], True
        self.connection.send(m.Logged(self.asked.request, held, True, at=at))


class Logs:
    """The logs of all kept apps. `now` tells the seconds since the epoch."""

    def __init__(self, directory: Path, now: Callable[[], float]) -> None:
        self._files = LogFiles(directory)
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[Callable[[], None] | tuple[str, bytes] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._handed = self._written = 0  # bytes; the one is the loop's, the other the thread's
        self._tick = self._last = -1.0  # what the clock showed last, and the last entry's moment
        self._left_out: dict[str, int] = {}  # by app, lines
        self._readers: dict[tuple[Connection, int], Reader] = {}
        self._failing = False

    def keep(self, app: str, function: str, container: str, stream: m.LogStream, text: str) -> None:
        """Keep whole lines, and send them to who follows."""
        entry = m.LogEntry(self._moment(), function, container, stream, text)
        if self._handed - self._written > UNWRITTEN_BYTES:
            self._left_out[app] = self._left_out.get(app, 0) + lines_of(entry)
        else:
            if left_out := self._left_out.pop(app, 0):
                words = f"{left_out:,} lines before this one are not kept: they came faster than the disk takes them\n"
                self._hand_over(app, m.LogEntry(entry.at, "", "", "server", words))
            self._hand_over(app, entry)
        for reader in list(self._readers.values()):
            if reader.asked.app == app and reader.asked.follow and reader.wants(entry):
                self._pass_on(reader, entry)

    def _moment(self) -> float:
        """Now, and a little later for each further entry within one tick of the clock: no two have the same moment."""
        if (now := self._now()) != self._tick:
            self._tick = self._last = now
        else:
            self._last = math.nextafter(self._last, math.inf)
        return self._last

    def _hand_over(self, app: str, entry: m.LogEntry) -> None:
        data = encode(entry) + b"\n"
        self._handed += len(data)
        self._order((app, data))

    def _order(self, order: Callable[[], None] | tuple[str, bytes]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="upswell-logs", daemon=True)
            self._thread.start()
        self._orders.put(order)

    # -- readers -----------------------------------------------------------------------------------

    def read(self, connection: Connection, asked: m.ReadLogs) -> None:
        """Send the last lines, and with `follow` what comes."""
        key = (connection, asked.request)
        if len(self._readers) >= READERS_AT_MOST or key in self._readers:
            words = f"{READERS_AT_MOST} logs are being read: stop following one"
            connection.send(m.Logged(asked.request, [], True, m.ErrorRecord("exhausted", "", words)))
            return
        reader = self._readers[key] = Reader(connection, asked)

        def look() -> None:
            try:
                entries = self._files.last(asked.app, asked.lines, asked.function, asked.container, asked.after)
            except OSError as error:
                words = f"it can't be read: {error}\n"
                entries = [m.LogEntry(self._now(), "", "", "server", words)]
            self._loop.call_soon_threadsafe(self._answer, reader, pages(entries))

        self._order(look)

    def unfollow(self, connection: Connection, request: int) -> None:
        """The connection needs no more of that log."""
        self._readers.pop((connection, request), None)

    def client_left(self, connection: Connection) -> None:
        """The client is gone."""
        for key in [key for key in self._readers if key[0] is connection]:
            del self._readers[key]

    def _answer(self, reader: Reader, rest: Iterator[list[m.LogEntry]]) -> None:
        """Send a page in each turn of the loop; at last what has come meanwhile."""
        key = (reader.connection, reader.asked.request)
        if self._readers.get(key) is not reader:
            return
        if (page := next(rest, None)) is not None:
            reader.send(page)
            self._loop.call_soon(self._answer, reader, rest)
            return
        reader.caught_up(self._now())
        if not reader.asked.follow:
            del self._readers[key]

    def _pass_on(self, reader: Reader, entry: m.LogEntry) -> None:
        behind = reader.connection.unread if reader.is_here else reader.held_bytes
        if behind > UNREAD_BYTES:
            reader.left_out += lines_of(entry)
            return
        entries = [entry]
        if reader.left_out:
            words = f"{reader.left_out:,} lines before this one are left out: they came faster than they were read\n"
            entries.insert(0, m.LogEntry(entry.at, "", "", "server", words))
            reader.left_out = 0
        if reader.is_here:
            reader.send(entries)
        else:
            reader.held += entries
            reader.held_bytes += len(entry.text)

    # -- the thread --------------------------------------------------------------------------------

    def close(self) -> None:
        """Keep what was handed over, and let go of the files."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
        self._files.close()

    def _run(self) -> None:
        while True:
            order = self._orders.get()
            gathered: dict[str, list[bytes]] = {}
            size = 0
            while isinstance(order, tuple):
                gathered.setdefault(order[0], []).append(order[1])
                size += len(order[1])
                if size >= WRITTEN_AT_ONCE_BYTES:
                    break
                try:
                    order = self._orders.get_nowait()
                except Empty:
                    break
            for app, pieces in gathered.items():
                self._append(app, b"".join(pieces))
            if order is None:
                return
            if not isinstance(order, tuple):
                order()

    def _append(self, app: str, data: bytes) -> None:
        try:
            self._files.append(app, data)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.error("the log of %s can't be kept: %s", app, error)
            self._failing = True
        self._written += len(data)


def lines_of(entry: m.LogEntry) -> int:
    """How many lines there are; the last one may not be whole."""
    return entry.text.count("\n") + (not entry.text.endswith("\n"))


def pages(entries: list[m.LogEntry]) -> Iterator[list[m.LogEntry]]:
    """The entries in parts, none of them much larger than a page."""
    page: list[m.LogEntry] = []
    size = 0
    for entry in entries:
        page.append(entry)
        size += len(entry.text)
        if size >= PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page
