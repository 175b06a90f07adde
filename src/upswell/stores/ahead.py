"""The log that commits are written to first: how large its file is, and when it is emptied into the database.

A commit that lets a file grow waits for the file system's own journal too, and takes two to three times as long as one
that overwrites. So there is always some room at the end of the log. What is kept does not depend on any of this: SQLite
reads nothing behind the last commit, and a log that is emptied late is longer, and nothing else.
"""

from __future__ import annotations

import os

import apsw

EMPTIED_PAGES = 4_096  # in the log, from which on it is emptied
STEP_BYTES = 1 << 20  # by which its file grows
ROOM_BYTES = 256 << 10  # that are left when it does
HEADER_BYTES, PAGE_HEADER_BYTES = 32, 24  # of the log, and of each page in it


class WriteAhead:
    """The log of the one connection that writes. Used on its thread, between transactions."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._pages = 0  # that were in it after the last commit
        self._page_bytes = PAGE_HEADER_BYTES + connection.pragma("page_size")
        self._grows = True
        self._file = os.open(f"{connection.filename}-wal", os.O_WRONLY | os.O_CLOEXEC)
        connection.set_wal_hook(self._committed)  # in place of SQLite's own, which empties it within a commit

    def tend(self, *, others_wait: bool) -> None:
        """Empty it if it is long, or if nobody waits for the disk, make room for what comes."""
        if self._pages >= EMPTIED_PAGES:
            self._empty()
        elif not others_wait and self._lacks_room:
            self._make_room()

    @property
    def needs_tending(self) -> bool:
        """Whether it is long, or has little room."""
        return self._pages >= EMPTIED_PAGES or self._lacks_room

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _committed(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def _empty(self) -> None:
        self._pages = 0  # the next commit says how many there are
        try:
            self._connection.wal_checkpoint()
        except apsw.Error:
            pass  # everything is in the log as before, and the next commit tries again

    @property
    def _lacks_room(self) -> bool:
        return self._grows and HEADER_BYTES + self._pages * self._page_bytes + ROOM_BYTES > self._size()

    def _size(self) -> int:
        return os.lseek(self._file, 0, os.SEEK_END)  # no `stat`, after which every write dirties the inode

    def _make_room(self) -> None:
        """Zeros and not only a size: blocks that were never written have to be noted in the journal when they are."""
        size = self._size()
        try:
            grown = os.pwrite(self._file, bytes(STEP_BYTES), size)
            os.fdatasync(self._file)
        except OSError:
            grown = 0
        if grown < STEP_BYTES:  # the disk is full, or nearly: what room there is, is for what has to be kept
            os.ftruncate(self._file, size)
            self._grows = False
