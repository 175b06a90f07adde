"""What programs on this machine have spawned by writing it into spools of their own: it is kept already, and comes
before whatever such a program says.

A spool is looked at when its program asks for that, and a moment after something was found. Only the dispatcher and the
ledger act on what is found, as on what comes by a connection, except that nobody waits for an answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .. import store as s
from ..clock import Clock
from ..core import events as e
from ..home import SPOOLS
from ..store import Kept
from ..wire import messages as m
from ..wire.ids import SPOOL
from ..wire.spool import MOST_RECORDS, SpoolReader, monotonic_now
from .dispatcher import Dispatcher
from .model import Caller

MAX_SPOOLS = 64  # while there are so many, who comes is told of no place for one
LOOK_AGAIN_SECONDS = 0.002  # for as long as something was found less than ...
PROMISED_SECONDS = 0.005  # ... so long ago: a look that is a little late need not be asked for

log = logging.getLogger("upswell.server")


class Spools:
    """All spools of a home."""

    def __init__(self, home: Path, dispatcher: Dispatcher, room: Callable[[str], int], clock: Clock) -> None:
        """`room` tells how many spawned inputs a function may have beside those that it has."""
        self._folder = home / SPOOLS
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            log.warning("no program can have a spool in %s: %s", self._folder, error.strerror)
        self._dispatcher = dispatcher
        self._room = room
        self._clock = clock
        self._spools: dict[str, SpoolReader] = {}
        self._looks: dict[str, int] = {}  # at spools, promised until such moments
        self._crowded: set[str] = set()  # functions that had no room when one of their calls came last
        self._leaving: set[str] = set()  # those whose programs have ended
        self._unreadable: set[str] = set()  # names of what is none, as the log has said
        self._is_closed = False
        self._permit = time.time_ns()  # that of no earlier life
        dispatcher.permit = self._permit_for
        dispatcher.leaving = self.revoke

    @property
    def folder(self) -> str:
        """Where a client may put a spool of its own, or ""."""
        return str(self._folder) if len(self._spools) < MAX_SPOOLS else ""

    def look_at(self, name: str) -> None:
        """Take what is in the spool of that name; nothing where there is none, or where this server lets go of all."""
        if self._is_closed:
            return
        if (spool := self._spools.get(name)) is None:
            try:
                spool = SpoolReader(str(self._folder / name))
            except OSError as error:
                if name not in self._unreadable:
                    log.warning("the spool %s can't be read: %s", name, error.strerror)
                self._unreadable.add(name)
                return
            self._clear()  # perhaps of another one of the same program's
            self._spools[name] = spool
            self._take(spool, is_new=True)
        spool.give(self._permit)  # it may have been found before it was made to its end
        self._take(spool)

    def look(self) -> None:
        """Take what is in any of them."""
        for spool in self._spools.values():
            self._take(spool)

    def revoke(self) -> None:
        """From now on spawns come by connections, so that they can be refused, until they are permitted again."""
        self._crowded.clear()
        self._withdraw_permit()
        self.look()

    def when_kept(self, then: Callable[[], None]) -> None:
        """Call `then` once what is in them now is kept: at once where it is, or where there is no room for it."""
        self.look()
        if all(map(SpoolReader.is_all_kept, self._spools.values())) or self._dispatcher.store.trouble:
            then()
        else:
            self._dispatcher.ledger.in_turn(then)

    def sweep(self) -> None:
        """Do away with those whose programs have let go of them, also such as nobody has asked to look at."""
        if self._is_closed:
            return
        for path in self._folder.glob(f"{SPOOL}*"):
            if path.name not in self._spools:
                self.look_at(path.name)
        self._clear()

    def end(self) -> None:
        """Take what was permitted, and permit nothing more."""
        for spool in self._spools.values():
            spool.give(0)
        self.look()

    def close(self) -> None:
        """Let go of all of them. What is in them is for the next server."""
        self._is_closed = True
        spools, self._spools = self._spools, {}
        for spool in spools.values():
            spool.close()

    def _permit_for(self, function: str) -> int:
        """What to tell a client that has spawned the function. Where there is no room for more than may be in spools,
        nobody may write into them any more until that has been told.
        """
        if self._has_room(function):
            self._crowded.discard(function)
            return self._permit
        if function not in self._crowded:
            self._crowded.add(function)
            self._withdraw_permit()
        return 0

    def _has_room(self, function: str) -> bool:
        """Whether the disk has room, and the function for all that may be in spools."""
        store = self._dispatcher.store
        return not store.trouble and self._room(function) >= (len(self._spools) + 1) * MOST_RECORDS

    def _take(self, spool: SpoolReader, *, is_new: bool = False) -> None:
        """Let what is in the spool run. Of one that is `new` here, the store may know some already."""
        number = 0
        for number, said in spool.take():
            if said is None:
                log.warning("record %d of the spool %s is no spawn, and is left out", number, spool.name)
            elif not self._is_known(message := said[0], is_new):
                self._accept(message, bytes(said[1]))
        if not number:
            return
        self._dispatcher.ledger.in_turn(partial(spool.keep, number), may_linger=True)
        self._promise(spool)

    def _is_known(self, message: m.Spawned, is_new: bool) -> bool:
        """Whether the call is here already: it came by a connection too, or in an earlier life."""
        here = self._dispatcher.calls
        return message.call in here or (is_new and self._dispatcher.store.call(message.call) is not None)

    def _accept(self, message: m.Spawned, payload: bytes) -> None:
        """Let the call run, and have it kept."""
        dispatcher, call, kept = self._dispatcher, message.call, Kept(payload)
        caller = Caller(None, "spawn", message.function, message.method, kept=True, total=1)
        dispatcher.calls[call] = caller
        if (record := dispatcher.functions.get(message.function)) is not None:
            dispatcher.graph.begun(call, record, message.method, "")
        dispatcher.store.put_inputs(call, 0, kept)  # until it is there for longer
        is_kept = partial(dispatcher.store.drop_inputs, call, 0)
        opened, inputs = s.call_of_one(call, message.function, message.at, kept, method=message.method)
        dispatcher.ledger.decided(opened, may_linger=True)
        dispatcher.ledger.decided(inputs, is_kept, may_linger=True)
        dispatcher.happened(e.InputsSubmitted(call, message.function, "spawn", 0, 1, True, accepted=True))

    def _promise(self, spool: SpoolReader) -> None:
        """Look again in a moment and until nothing comes any more, which the program need not ask for."""
        is_promised = spool.name in self._looks
        self._looks[spool.name] = spool.promise(PROMISED_SECONDS)
        if not is_promised:
            self._clock.call_later(LOOK_AGAIN_SECONDS, self._look_again, spool)

    def _look_again(self, spool: SpoolReader) -> None:
        if self._spools.get(spool.name) is not spool:
            return
        is_last = monotonic_now() >= self._looks[spool.name]
        if is_last:
            del self._looks[spool.name]
        self._take(spool)
        if not is_last:
            self._clock.call_later(LOOK_AGAIN_SECONDS, self._look_again, spool)

    def _withdraw_permit(self) -> None:
        self._permit += 1
        for spool in self._spools.values():
            spool.give(self._permit)

    def _clear(self) -> None:
        """Do away with those that have no writer, once all that is in them is kept."""
        for name, spool in list(self._spools.items()):
            if name not in self._leaving and spool.is_abandoned():
                self._leaving.add(name)
                self._take(spool)
                self._dispatcher.ledger.in_turn(partial(self._remove, name))

    def _remove(self, name: str) -> None:
        if (spool := self._spools.pop(name, None)) is None:
            return  # the server has let go of it, and has heard only then that all is kept
        self._looks.pop(name, None)
        self._leaving.discard(name)
        Path(spool.path).unlink(missing_ok=True)
        spool.close()
