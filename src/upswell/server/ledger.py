"""What has to outlive the server, in which order: the one way to the store's lasting face.

What comes from outside is offered, and acted upon once it is kept. What the core decides is gathered for a turn of the
loop, committed as one step, and shown to the world once that is kept. What nobody waits for may linger, so that much of
it reaches the disk at once, and together with what is offered then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..store import Answer, Store, Write

LINGER_SECONDS = 0.01  # of what nobody waits for, at most; from half of that on it goes with what is offered

Show = Callable[[], None]
Later = Callable[[float, Show], object]


class Ledger:
    """Writes to the store. `later` calls a function so many seconds from now (`loop.call_later`), with 0 in the next
    turn of the loop; `now` tells the moments that are kept, in seconds since the epoch.
    """

    def __init__(self, store: Store, later: Later, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._store = store
        self._later = later
        self._decided: list[Write] = []
        self._to_show: list[Show] = []
        self._ends_in_turn = False  # this step is committed in the next turn
        self._lingers = False  # ... or when it has lingered, and until then is looked at now and then
        self._is_due = False  # it has lingered for a while

    def offer(self, writes: Sequence[Write], answer: Answer) -> None:
        """Have all of it kept or refused, after what was decided so far and does not linger."""
        if self._ends_in_turn or self._is_due:
            self.commit()
        self._store.offer(writes, answer)

    def decided(self, write: Write, show: Show | None = None, *, may_linger: bool = False) -> None:
        """The write is part of this turn's step; `show` is called once that is kept."""
        self._decided.append(write)
        self.in_turn(show or _nothing, may_linger=may_linger)

    def in_turn(self, show: Show, *, may_linger: bool = False) -> None:
        """Have `show` called once everything that was decided so far is kept."""
        self._to_show.append(show)
        if not may_linger:
            self._end_in_turn()
        elif not self._lingers:
            self._lingers = True
            self._later(LINGER_SECONDS / 2, self._have_lingered)

    def commit(self) -> None:
        """End the step here."""
        self._ends_in_turn = self._is_due = False
        if not self._to_show:
            return
        decided, self._decided = self._decided, []
        to_show, self._to_show = self._to_show, []

        def kept() -> None:
            for show in to_show:
                show()

        self._store.commit(decided, kept)

    def _end_in_turn(self) -> None:
        if not self._ends_in_turn:
            self._ends_in_turn = True
            self._later(0, self.commit)

    def _have_lingered(self) -> None:
        """Half of the time has passed since something began to linger, or since this was last called."""
        if self._is_due:
            self.commit()
        self._is_due = self._lingers = bool(self._to_show)
        if self._lingers:
            self._later(LINGER_SECONDS / 2, self._have_lingered)


def _nothing() -> None:
    pass
