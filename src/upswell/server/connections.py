"""Connections of the server: frames in and out on the loop, with limits on what a peer may send and leave unread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Protocol, cast

from ..clock import Alarm, Clock
from ..store import Kept
from ..wire import messages as m
from ..wire.codec import Bytes, Decoder, ProtocolError, encode_parts

MAX_UNREAD_BYTES = 1 << 30  # written and not taken by the peer; beyond it the connection is closed
HELLO_SECONDS = 5.0  # a peer that has not said who it is by then is sent away
MAX_HELLO_BYTES = 64 << 10  # of one that has not
FAREWELL_SECONDS = 1.0  # a peer that is sent away has this long to read why

log = logging.getLogger("upswell.server")
_numbers = itertools.count(1)


class Peer(Protocol):
    """Who speaks over a connection, once `Hello` has told."""

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """Take one frame."""

    def lost(self) -> None:
        """The connection is gone, and everything that came over it was received."""


class Connection(asyncio.Protocol):
    """One stream of frames. The transport of uvloop gathers what is sent while a turn of the loop lasts."""

    def __init__(self, greet: Callable[[Connection, m.Hello], Peer | None], clock: Clock) -> None:
        self.name = f"cx-{next(_numbers)}"
        self.blocks: dict[int, Kept] = {}  # shared memory that this peer has yet to take over, by descriptor
        self._greet = greet
        self._peer: Peer | None = None
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._clock = clock
        self._patience: Alarm | None = None

    @property
    def is_open(self) -> bool:
        """Whether frames can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def unread(self) -> int:
        """Bytes that were sent and that the peer has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def peer_process(self) -> int:
        """The process at the other end, as the kernel knows it."""
        return self._credentials()[0]

    def _credentials(self) -> tuple[int, int]:
        """Process and user at the other end; none of ours when it can't be known."""
        stream = self._transport.get_extra_info("socket") if self._transport else None
        if stream is None:
            return -1, -1
        process, user, _ = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return process, user

    def send(self, message: m.Message, payload: Bytes = b"") -> None:
        """Send a frame; nothing happens when the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.writelines(encode_parts(message, payload))
        if self.unread > MAX_UNREAD_BYTES:
            log.warning("%s: closed, it left %d bytes unread", self.name, self.unread)
            self._transport.abort()

    def lend(self, kept: Kept) -> None:
        """Keep the block of a payload that is sent here until the peer has taken it over."""
        if kept.block is not None:
            self.blocks[kept.block.buffers.descriptor] = kept

    def close(self, reason: str) -> None:
        """Say why, and close when what was written has left, or soon."""
        if self._transport is not None and self.is_open:
            self.send(m.Bye(reason))
            self._transport.close()
            self._patience = self._clock.call_later(FAREWELL_SECONDS, self._transport.abort)

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stream is there; its peer has a moment to say who it is."""
        self._transport = cast(asyncio.Transport, transport)
        if self._credentials()[1] != os.getuid():
            self._refuse("this server belongs to another user")
            return
        words = f"no Hello within {HELLO_SECONDS:g} seconds"
        self._patience = self._clock.call_later(HELLO_SECONDS, self._refuse, words)

    def data_received(self, data: bytes) -> None:
        """Bytes came: hand on the frames they complete."""
        try:
            for message, payload in self._decoder.feed(data):
                if self._peer is None:
                    self._meet(message)
                elif isinstance(message, m.Release):
                    if kept := self.blocks.pop(message.descriptor, None):
                        kept.close()
                else:
                    self._peer.receive(message, payload)
            if self._peer is None and self._decoder.unfinished > MAX_HELLO_BYTES:
                raise ProtocolError(f"the first frame has more than {MAX_HELLO_BYTES:,} bytes, so it is no Hello")
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
        if self.is_open:
            # Of strangers only who looks for it hears: one may be a container that was killed while it called home.
            log.log(logging.WARNING if self._peer else logging.INFO, "%s: closed, %s", self.name, reason)
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
