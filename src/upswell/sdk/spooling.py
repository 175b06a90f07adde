"""Lone spawns that a program writes down itself, into a spool in the home of the server beside it (`wire/spool.py`):
they are on disk when its own write is, and it waits for nobody.

A program that spawns one by one gets a spool, and uses it where the server permits that; everything else goes the
ordinary way, as does a spawn that could not be written: under the same name, so that it is one call however it came.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from ..errors import Error, ExecutionError
from ..wire import messages as m
from ..wire import reentry
from ..wire.ids import SPOOL
from .client import new_id

if TYPE_CHECKING:
    from ..wire.spool import SpoolWriter
    from .client import Client
    from .spawning import Lane, Spawn

ALONE = 16  # permitted spawns, each of which was waited for, before a spool is made
MAX_LANES = 1000  # whose permits are remembered
CLOSE_SECONDS = 1.0  # for a spawn that is being written


class Spooling:
    """The spool of one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._permits: dict[Lane, int] = {}
        self._alone = 0
        self._spool: SpoolWriter | None = None
        self._place = ("", 0)  # the directory in which it is, and the life of the server that was last seen there
        self._is_denied = False  # no file can be made there, or none is to be any more
        self._writing = reentry.lock()  # whoever finds it held goes the ordinary way

    def permitted(self, lane: Lane, permit: int) -> None:
        """The server has taken a spawn that came alone, and permits more of its kind to be written (0: it does not)."""
        if permit:
            self._alone += 1
            if len(self._permits) >= MAX_LANES:
                self._permits.clear()
            self._permits[lane] = permit

    def write(self, spawn: Spawn) -> bool:
        """Have it on disk; false where it must go the ordinary way."""
        if self._writing._is_owned():
            return False  # a signal handler has interrupted who writes
        from ..wire.spool import SpoolFullError  # by few programs, and late

        try:
            if not self._writing.acquire(blocking=False):
                return False
            if (spool := self._ready_spool()) is not None:
                if (permitted := spool.permit) == self._permits.get(spawn.lane):
                    self._write(spool, spawn)
                    return True
                if not permitted:
                    self._tell(spool.name)  # the server has not found it yet
        except SpoolFullError:
            pass  # the server is about to make room
        except (OSError, Error):
            self._let_go()
        finally:
            try:
                if self._is_denied and self._writing._is_owned():
                    self._let_go()  # who wanted to has not waited for so long
                self._writing.release()
            except RuntimeError:
                pass  # another thread has it
        return False

    def may_write(self, lane: Lane) -> bool:
        """Whether it is worth trying."""
        return lane in self._permits and self._alone >= ALONE

    def restarted(self) -> None:
        """Another life of the server, perhaps with another home: it has read what was in its own when it began."""
        self._permits.clear()
        if (spool := self._spool) is not None:
            self._client.send(m.LookAt(spool.name))

    def close(self) -> None:
        """Let go of the spool, which the server does away with; where a spawn is still being written, its writer does:
        the number of a file that was closed may be another one's by the time that it is written to.
        """
        self._is_denied = True
        if not self._writing._is_owned() and self._writing.acquire(timeout=CLOSE_SECONDS):
            self._let_go()
            self._writing.release()

    def forget(self) -> None:
        """In a forked child: the spool is the parent's."""
        self._is_denied = True
        self._let_go()

    def _write(self, spool: SpoolWriter, spawn: Spawn) -> None:
        function, method, _ = spawn.lane
        spawn.name = new_id("fc")
        spool.write(m.Spawned(spawn.name, function, method, time.time()), spawn.packed.data)
        if not spool.is_watched:
            self._tell(spool.name)
        spool.sync()

    def _tell(self, name: str) -> None:
        """Have the server look, by another thread where a signal has come in the midst of another frame."""
        try:
            self._client.send(m.LookAt(name))
        except ExecutionError:
            threading.Thread(target=self._tell, args=(name,), name="upswell-spool", daemon=True).start()

    def _ready_spool(self) -> SpoolWriter | None:
        """The spool, if it can be written to; one that was just made is not permitted anything yet."""
        if not (folder := self._client.spools):
            return None
        place = (folder, self._client.life)
        if (spool := self._spool) is not None:
            is_same = place == self._place or (folder == self._place[0] and spool.is_there())
            if not (is_same and spool.is_usable):
                self._let_go()
        self._place = place
        if self._spool is None and not self._is_denied:
            self._make(folder)
        return self._spool if self._spool is not None and self._spool.is_usable else None

    def _make(self, folder: str) -> None:
        from ..wire.spool import SpoolWriter  # by few programs, and late

        try:
            self._spool = SpoolWriter(os.path.join(folder, f"{SPOOL}{os.urandom(10).hex()}"))
        except OSError:
            self._is_denied = True  # the directory is not this program's to write to, or the disk is full

    def _let_go(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()
