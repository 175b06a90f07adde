"""What a generator has yielded on its way to the consumer: grouped by time, and never too far ahead.

The generator may be `STREAM_CHUNKS` and `STREAM_BYTES` ahead of what its consumer has taken; then it waits, and lends
its place meanwhile. When the consumer leaves, it is closed where it stands, so that its `finally` blocks run.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from ..errors import SerializationError
from ..spec import STREAM_BYTES, STREAM_CHUNKS
from ..wire.payload import PackError, pack
from .outbox import Outbox
from .work import Work

FLUSH_SECONDS = 0.002  # chunks wait no longer than this for company
CHUNKS_AT_ONCE = 256  # in one frame, at most
UNCHANGING = frozenset({int, float, str, bytes, bool, complex, type(None)})  # anything else is sent as it is now
LEND_SECONDS = 0.05  # a consumer that takes longer than this is worth lending the place for


class Closed(Exception):
    """The consumer has left: the generator is to be closed. Never seen by user code."""


class Stream:
    """The chunks of one running generator. The runner adds; the attendant flushes, credits and closes."""

    def __init__(self, work: Work, name: str, outbox: Outbox, wake: Callable[[], None]) -> None:
        self.closing = False
        self.waiting = False  # for the consumer: the time limit stands still
        self._work = work
        self._name = name
        self._outbox = outbox
        self._wake = wake  # whoever waits looks again
        self._values: list[Any] = []  # not sent
        self._sent = 0
        self._sent_bytes = 0
        self._consumed = 0
        self._consumed_bytes = 0
        self._sent_at = 0.0
        self._broken: SerializationError | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether the generator must wait for its consumer."""
        return not self.closing and (
            self._sent + len(self._values) - self._consumed >= STREAM_CHUNKS
            or self._sent_bytes - self._consumed_bytes >= STREAM_BYTES
        )

    def add(self, value: Any) -> bool:
        """Take what the generator has yielded; whether it must wait now. `Closed` when nobody wants more."""
        if self.closing:
            raise Closed
        with self._work.lock:
            self._values.append(value)
            late = perf_counter() - self._sent_at > FLUSH_SECONDS
            if late or type(value) not in UNCHANGING or len(self._values) >= CHUNKS_AT_ONCE or self.is_ahead:
                self.send()
        if self._broken is not None:
            raise self._broken
        return self.is_ahead

    def end(self) -> None:
        """The generator has returned: send the rest, and how many chunks there were as the output of the input."""
        with self._work.lock:
            self.send()
            if self._broken is not None:
                raise self._broken
            self._work.outputs.append(self._sent)

    def flush(self) -> bool:
        """Send what waits; whether there was anything. Takes the range's lock."""
        with self._work.lock:
            return self.send()

    def credit(self, chunks: int, size: int) -> None:
        """The consumer has taken so much, in all."""
        self._consumed, self._consumed_bytes = chunks, size
        self._wake()

    def close(self) -> None:
        """The consumer has left."""
        self.closing = True
        self._wake()

    def send(self) -> bool:
        """The same as `flush`, where the range's lock is held already."""
        values, self._values = self._values, []
        if not values or self._broken is not None:
            return False
        try:
            self._send_values(values)
        except PackError as error:
            self._send_values(values[: error.index])
            self._broken = SerializationError(f"value {self._sent} of {self._name} can't be sent: {error}")
        self._sent_at = perf_counter()
        return True

    def _send_values(self, values: list[Any]) -> None:
        if values:
            packed = pack(values)
            self._outbox.send_chunks(self._work, self._sent, packed, len(values))
            self._sent += len(values)
            self._sent_bytes += packed.size
