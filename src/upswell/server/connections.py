"""Connections of the server: frames in and out on the loop, with limits on what a peer may send and leave unread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from ..clock import Alarm, Clock
from ..store import Kept
from ..wire import messages as m
from ..wire.codec import Bytes, Decoder, Frame, ProtocolError, encode_parts
from .identity import STRANGER

MAX_UNREAD_BYTES = 1 << 30  # written and not taken by the peer; beyond it the connection is closed
FRAME_SECONDS = 30.0  # a peer that sends nothing for so long in the middle of a frame is sent away
HELLO_SECONDS = 5.0  # a peer that has not said who it is by then is sent away
MAX_HELLO_BYTES = 64 << 10  # of one that has not
FAREWELL_SECONDS = 1.0  # a peer that is sent away has this long to read why

log = logging.getLogger("upswell.server")
_numbers = itertools.count(1)


class DenialError(ProtocolError):
    """The peer's token is not valid, or not any more."""


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
        self.identity = STRANGER
        self.blocks: dict[int, Kept] = {}  # shared memory that this peer has yet to take over, by descriptor
        self._greet = greet
        self._peer: Peer | None = None
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._clock = clock
        self._patience: Alarm | None = None
        self._stuck: Alarm | None = None  # there is one while a frame is unfinished, or was a moment ago
        self._moved = False  # bytes came since that was set

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
        if stream is None or stream.family != socket.AF_UNIX:
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

    def refuse(self, error: ProtocolError) -> None:
        """Send the peer away for this."""
        if self.is_open:
            # Of strangers only who looks for it hears: one may be a container that was killed while it called home.
            log.log(logging.WARNING if self._peer else logging.INFO, "%s: closed, %s", self.name, error)
            self.close(str(error), denied=isinstance(error, DenialError))

    def close(self, reason: str, *, denied: bool = False) -> None:
        """Say why (`denied`: the token is why), and close when what was written has left, or soon."""
        if self._transport is not None and self.is_open:
            self.send(m.Bye(reason, denied))
            self._leave()
            self._patience = self._clock.call_later(FAREWELL_SECONDS, self._transport.abort)

    def _leave(self) -> None:
        assert self._transport is not None
        self._transport.close()

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stream is there; its peer has a moment to say who it is."""
        self._transport = cast(asyncio.Transport, transport)
        if not self._is_welcome():
            self.refuse(ProtocolError("this server belongs to another user"))
            return
        late = ProtocolError(f"no Hello within {HELLO_SECONDS:g} seconds")
        self._patience = self._clock.call_later(HELLO_SECONDS, self.refuse, late)

    def _is_welcome(self) -> bool:
        """Whether the process at the other end may speak at all."""
        return self._credentials()[1] == os.getuid()

    def data_received(self, data: bytes) -> None:
        """Bytes came: hand on the frames they complete."""
        self._moved = True
        try:
            self._take(self._decoder.feed(data))
            if self._decoder.unfinished:
                self._watch()
        except ProtocolError as error:
            self.refuse(self._first_of(error))

    def _take(self, frames: Iterable[Frame]) -> None:
        for message, payload in frames:
            if self._peer is None:
                self._meet(message)
            elif isinstance(message, m.Release):
                if kept := self.blocks.pop(message.descriptor, None):
                    kept.close()
            elif (seen := self._arrived(message, payload)) is not None:
                self._peer.receive(seen, payload)

    def _arrived(self, message: m.Message, payload: memoryview) -> m.Message | None:
        """The message as the peer means it; `None` where it is but a part of one."""
        return message

    def _first_of(self, error: ProtocolError) -> ProtocolError:
        """The first that is wrong with what came: frames before a malformed one count, however the bytes were cut."""
        try:
            self._take(error.before)
        except ProtocolError as earlier:
            return earlier
        return error

    def _watch(self) -> None:
        """A frame is unfinished: it must come nearer to its end now and then."""
        if self._peer is None and self._decoder.unfinished > MAX_HELLO_BYTES:
            raise ProtocolError(f"the first frame has more than {MAX_HELLO_BYTES:,} bytes, so it is no Hello")
        if self._stuck is None:
            self._moved = False
            self._stuck = self._clock.call_later(FRAME_SECONDS, self._look)

    def _look(self) -> None:
        self._stuck = None
        if self._moved and self._decoder.unfinished:
            self._watch()
        elif have := self._decoder.unfinished:
            words = f"{have:,} bytes of a frame came, and in {FRAME_SECONDS:g} seconds none of those that are missing"
            self.refuse(ProtocolError(words))

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
            raise DenialError("the token is not valid here")
        if self._patience:
            self._patience.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        self._transport = None
        for alarm in (self._patience, self._stuck):
            if alarm:
                alarm.cancel()
        for kept in self.blocks.values():
            kept.close()
        self.blocks.clear()
        if self._peer is not None:
            self._peer.lost()
