"""Connections of the server: frames in and out on the loop, with limits on what a peer may send and leave unread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import struct
from collections.abc import Callable
from typing import Protocol, cast

from ..store import Kept
from ..wire import messages as m
from ..wire.codec import Bytes, Decoder, ProtocolError, encode_parts

MAX_UNREAD_BYTES = 1 << 30  # written and not taken by the peer; beyond it the connection is closed
HELLO_SECONDS = 5.0  # a peer that has not said who it is by then is sent away

log = logging.getLogger("upswell.server")
_numbers = itertools.count(1)


class Peer(Protocol):
    """Who speaks over a connection, once `Hello` has told."""

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """Take one frame."""

    def lost(self) -> None:
        """The connection is gone, and everything that came over it was received."""


class Connection(asyncio.Protocol):
    """One stream of frames. Frames sent in one turn of the loop leave in one write."""

    def __init__(self, greet: Callable[[Connection, m.Hello], Peer | None]) -> None:
        self.name = f"cx-{next(_numbers)}"
        self.blocks: dict[int, Kept] = {}  # shared memory that this peer has yet to take over, by descriptor
        self._greet = greet
        self._peer: Peer | None = None
        self._decoder = Decoder()
        self._outgoing: list[Bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether frames can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def peer_user(self) -> int:
        """The user id of the process at the other end, as the kernel knows it."""
        stream = self._transport.get_extra_info("socket") if self._transport else None
        if stream is None:
            return -1
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])

    def send(self, message: m.Message, payload: Bytes = b"") -> None:
        """Send a frame, soon; nothing happens when the connection is gone."""
        if self._transport is None:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += encode_parts(message, payload)

    def lend(self, kept: Kept) -> None:
        """Keep the block of a payload that is sent here until the peer has taken it over."""
        if kept.block is not None:
            self.blocks[kept.block.buffers.descriptor] = kept

    def close(self, reason: str) -> None:
        """Say why, and close when what was written has left."""
        if self._transport is not None:
            self.send(m.Bye(reason))
            self._flush()
            if self._transport is not None:
                self._transport.close()

    def _flush(self) -> None:
        if self._transport is None or not self._outgoing:
            return
        self._transport.writelines(self._outgoing)
        self._outgoing = []
        if self._transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            log.warning("%s: closed, it left %d bytes unread", self.name, self._transport.get_write_buffer_size())
            self._transport.abort()

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stream is there; its peer has a moment to say who it is."""
        self._transport = cast(asyncio.Transport, transport)
        self._patience = self._loop.call_later(HELLO_SECONDS, self._refuse, "no Hello within 5 seconds")

    def data_received(self, data: bytes) -> None:
        """Bytes came: hand on the frames they complete."""
        try:
            for message, payload in self._decoder.feed(data):
                if isinstance(message, m.Release):
                    if kept := self.blocks.pop(message.descriptor, None):
                        kept.close()
                elif self._peer is not None:
                    self._peer.receive(message, payload)
                else:
                    self._meet(message)
        except ProtocolError as error:
            self._refuse(str(error))

    def _meet(self, message: m.Message) -> None:
        if not isinstance(message, m.Hello):
            raise ProtocolError(f"the first frame must be Hello, not {type(message).__name__}")
        if message.protocol != m.PROTOCOL:
            raise ProtocolError(
                f"you speak protocol {message.protocol}, this server speaks {m.PROTOCOL}: "
                "use the same upswell on both sides"
            )
        self._peer = self._greet(self, message)
        if self._peer is None:
            raise ProtocolError("the token is not valid here")
        if self._patience:
            self._patience.cancel()

    def _refuse(self, reason: str) -> None:
        if self._peer is None or self.is_open:
            log.warning("%s: closed, %s", self.name, reason)
            self.close(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        self._transport = None
        if self._patience:
            self._patience.cancel()
        for kept in self.blocks.values():
            kept.close()
        self.blocks.clear()
        if self._peer is not None:
            self._peer.lost()
