"""Connections from elsewhere: over TCP, mostly with TLS, where no memory is shared and a peer may be slow or far.

Blocks of shared memory pass in pieces (`wire/passage.py`), as fast as the peer takes them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from ..clock import Clock
from ..wire import messages as m
from ..wire.buffers import Block
from ..wire.codec import Bytes, ProtocolError
from ..wire.passage import Arrivals, buffers_of, detached, pieces
from . import connections
from .connections import Connection, Peer, Sessions
from .identity import may

Greet = Callable[[Connection, m.Hello], Peer | None]


class Waiting(msgspec.Struct):
    """A frame that waits for its turn, behind the pieces of its block, or behind another's."""

    message: m.Message
    payload: Bytes
    block: Block | None
    left: Iterator[bytes]

    def close(self) -> None:
        if self.block is not None:
            self.block.close()


class RemoteConnection(Connection):
    """A connection whose peer is on no machine in particular. Who it is only a token can say."""

    def __init__(self, greet: Greet, clock: Clock, sessions: Sessions | None = None) -> None:
        super().__init__(greet, clock, sessions)
        self._arrivals = Arrivals(lambda descriptor: super(RemoteConnection, self)._write(m.Release(descriptor)))
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0  # of payloads
        self._is_full = False  # the peer takes less than is sent
        self._is_leaving = False

    @property
    def is_open(self) -> bool:
        return super().is_open and not self._is_leaving

    @property
    def _is_writable(self) -> bool:
        return super()._is_writable and not self._is_leaving

    @property
    def unread(self) -> int:
        blocks = sum(one.block.buffers.size for one in self._waiting if one.block is not None)
        return super().unread + self._waiting_bytes + blocks

    def peer_process(self) -> int:
        """Blocks are this process's own by the time that they are looked at."""
        return os.getpid()

    def _write(self, message: m.Message, payload: Bytes = b"") -> None:
        if isinstance(message, m.Release):
            self._arrivals.taken(message.descriptor)
            return
        if not self._is_writable:
            return
        buffers = buffers_of(message)
        if buffers is None and not self._waiting:
            super()._write(message, payload)
            return
        # A block of our own: the peer can't have it closed while it is read.
        block = Block(os.dup(buffers.descriptor), buffers.size) if buffers else None
        self._waiting.append(Waiting(message, payload, block, pieces(block.buffers) if block else iter(())))
        self._waiting_bytes += len(payload)
        if self._waiting_bytes > connections.MAX_UNREAD_BYTES:
            self._abandon(f"{self._waiting_bytes} bytes wait for it")
        elif len(self._waiting) == 1:
            self._pump()

    def _pump(self) -> None:
        """Send pieces and what follows them, for as long as the peer takes them."""
        while self._waiting and not self._is_full and self._is_writable:
            first = self._waiting[0]
            if (piece := next(first.left, None)) is not None:
                super()._write(m.Piece(), piece)
                continue
            self._waiting.popleft()
            self._waiting_bytes -= len(first.payload)
            super()._write(first.message if first.block is None else detached(first.message), first.payload)
            first.close()

    def pause_writing(self) -> None:
        """The peer takes less than is sent."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_full = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        if not self._is_leaving:
            super().data_received(data)

    def _stream_is_gone(self) -> None:
        for one in self._waiting:
            one.close()
        self._waiting.clear()
        self._waiting_bytes, self._is_full = 0, False
        self._arrivals.close()

    def _is_welcome(self, user: int) -> bool:
        return True

    def _arrived(self, message: m.Message, payload: memoryview) -> m.Message | None:
        if isinstance(message, m.Piece) and not may(self.identity, message):
            raise ProtocolError(f"Piece from a token of scope {self.identity.kind!r}")
        return self._arrivals.take(message, payload)

    def _leave(self) -> None:
        """What the peer still sends is read and dropped: closed with something unread, it would not hear why."""
        self._is_leaving = True
        assert self._transport is not None
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:
                pass  # the peer has left first
