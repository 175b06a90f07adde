"""Tells a container what the server is done with for good, so that it need not keep that for the next server."""

from __future__ import annotations

from functools import partial

from ..clock import Clock
from ..wire import messages as m
from .connections import Connection
from .ledger import Ledger

SAY_SECONDS = 0.05  # so long a container hears nothing of an outcome that came
SAY_BYTES = 4 << 20  # ... unless so many bytes have come


class Receipts:
    """The outcomes that come over one connection of a container, counted."""

    def __init__(self, connection: Connection, ledger: Ledger, clock: Clock) -> None:
        self._connection = connection
        self._ledger = ledger
        self._clock = clock
        self._came = 0
        self._bytes = 0  # since it was last said
        self._said = 0
        self._is_timed = False

    def came(self, size: int) -> None:
        """The server has handled an outcome of so many bytes, which may not be kept yet."""
        self._came += 1
        self._bytes += size
        if self._bytes >= SAY_BYTES:
            self._say()
        elif not self._is_timed:
            self._is_timed = True
            self._clock.call_later(SAY_SECONDS, self._time_is_up)

    def _time_is_up(self) -> None:
        self._is_timed = False
        self._say()

    def _say(self) -> None:
        if self._came > self._said:
            self._said, self._bytes = self._came, 0
            self._ledger.in_turn(partial(self._connection.send, m.Processed(self._came)))
