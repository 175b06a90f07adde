"""What has to outlive the server, in which order: the one way to the store's lasting face.

What comes from outside is offered, and acted upon once it is kept. What the core decides is gathered for a turn of the
loop, committed as one step, and shown to the world once that is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..store import Answer, Store, Write

Show = Callable[[], None]


class Ledger:
    """Writes to the store. `later` calls a function in the next turn of the loop (`loop.call_soon`); `now` tells the
    moments that are kept, in seconds since the epoch.
    """

    def __init__(self, store: Store, later: Callable[[Show], object], now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._store = store
        self._later = later
        self._decided: list[Write] = []
        self._to_show: list[Show] = []

    def offer(self, writes: Sequence[Write], answer: Answer) -> None:
        """Have all of it kept or refused, after what was decided so far."""
        self.commit()
        self._store.offer(writes, answer)

    def decided(self, write: Write, show: Show | None = None) -> None:
        """The write is part of this turn's step; `show` is called once that is kept."""
        self._decided.append(write)
        self.in_turn(show or _nothing)

    def in_turn(self, show: Show) -> None:
        """Have `show` called once everything that was decided so far is kept."""
        if not self._to_show:
            self._later(self.commit)
        self._to_show.append(show)

    def commit(self) -> None:
        """End the step here."""
        if not self._to_show:
            return
        decided, self._decided = self._decided, []
        to_show, self._to_show = self._to_show, []

        def kept() -> None:
            for show in to_show:
                show()

        self._store.commit(decided, kept)


def _nothing() -> None:
    pass
