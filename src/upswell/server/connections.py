"""Connections of the server: frames in and out on the loop, with limits on what a peer may send and leave unread.

The connection of a peer with a session outlives its stream for a moment: what is sent meanwhile is kept, and a peer
that comes back over another stream goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Protocol, cast

from ..clock import Alarm, Clock
from ..errors import StoreError
from ..store import Kept
from ..wire import messages as m
from ..wire.codec import Bytes, Decoder, Frame, ProtocolError, encode_parts
from ..wire.delivery import Delivery
from .identity import STRANGER

MAX_UNREAD_BYTES = 1 << 30  # written and not taken by the peer; beyond it the connection is closed
FRAME_SECONDS = 30.0  # a peer that sends nothing for so long in the middle of a frame is sent away
HELLO_SECONDS = 5.0  # a peer that has not said who it is by then is sent away
MAX_HELLO_BYTES = 64 << 10  # of one that has not
LAST_WORDS_SECONDS = 2.0  # a peer with a session whose process is gone has this long to be heard to the end
FAREWELL_SECONDS = 1.0  # a peer that is sent away has this long to read why
GRACE_SECONDS = 60.0  # a peer with a session that has lost its stream may come back for so long
READ_BYTES = 256 << 10  # at once, of a peer that is gone
MAX_KEPT_BYTES = 64 << 20  # sent to a peer that is away; beyond it, it is not waited for

ABOUT_THE_STREAM = frozenset((m.Release, m.Received, m.Bye))

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


Sessions = dict[str, "Connection"]  # those of peers that may come back, by the names that they gave them


class Connection(asyncio.Protocol):
    """One stream of frames, or with a session several streams, one after the other; `sessions` is given where peers may
    come back. A frame is written as it is sent and not later, so that who waits for it wakes up meanwhile.
    """

    def __init__(
        self,
        greet: Callable[[Connection, m.Hello], Peer | None],
        clock: Clock,
        sessions: Sessions | None = None,
    ) -> None:
        self.name = f"cx-{next(_numbers)}"
        self.identity = STRANGER
        self.blocks: dict[int, Kept] = {}  # shared memory that this peer has yet to take over, by descriptor
        self._greet = greet
        self._sessions = sessions
        self._hello: m.Hello | None = None
        self._delivery: Delivery | None = None  # of a session
        self._ended = False  # of a session: the peer is not waited for
        self._earlier: Connection | None = None  # whose session this stream goes on with
        self._process = -1  # at the other end
        self._watched = -1  # a descriptor that tells when the process of a peer that is away has ended
        self._peer: Peer | None = None
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._patience: Alarm | None = None
        self._stuck: Alarm | None = None  # there is one while a frame is unfinished, or was a moment ago
        self._moved = False  # bytes came since that was set

    @property
    def is_open(self) -> bool:
        """Whether frames can still be sent, now or to a peer that comes back."""
        if self._delivery is not None:
            return not self._ended
        return self._transport is not None and not self._transport.is_closing()

    @property
    def unread(self) -> int:
        """Bytes that were sent and that the peer has not taken."""
        if self._transport is None:
            return self._delivery.bytes if self._delivery is not None else 0
        return self._transport.get_write_buffer_size()

    @property
    def going_on(self) -> Peer | None:
        """Who goes on here with the session of an earlier stream."""
        return self._earlier._peer if self._earlier is not None else None

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

    def welcome(self, address: str, spools: str = "") -> None:
        """Answer the `Hello` of a peer that may come in, and have a spool in that directory."""
        keeps, resumed, received = self._delivery is not None, False, 0
        if self._earlier is not None and self._earlier._delivery is not None:
            keeps, resumed, received = True, True, self._earlier._delivery.received
        self.send(m.Welcome(m.PROTOCOL, os.getpid(), address, keeps, resumed, received, spools))

    def send(self, message: m.Message, payload: Bytes = b"") -> None:
        """Send a frame; nothing happens when the connection is gone."""
        if self._delivery is not None and not self._ended:
            self._delivery.send(message, payload)
            if self._delivery.bytes > (MAX_UNREAD_BYTES if self._is_writable else MAX_KEPT_BYTES):
                self._abandon(f"{self._delivery.bytes} bytes for it have not arrived")
        self._write(message, payload)

    def _write(self, message: m.Message, payload: Bytes = b"") -> None:
        """Give the frame to the stream that there is now."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.writelines(encode_parts(message, payload))
        if (unread := self._transport.get_write_buffer_size()) > MAX_UNREAD_BYTES:
            self._abandon(f"it left {unread} bytes unread")

    @property
    def _is_writable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _abandon(self, reason: str) -> None:
        """End the connection in another turn of the loop, as whoever is sending may be in the middle of something."""
        log.warning("%s: closed, %s", self.name, reason)
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        else:
            self._loop.call_soon(self._end)

    def lend(self, kept: Kept) -> None:
        """Keep the block of a payload that is sent here until the peer has taken it over."""
        if kept.block is not None:
            self.blocks[kept.block.buffers.descriptor] = kept

    def outlive(self) -> None:
        """The process at the other end is gone: what it has said comes within moments, and nobody comes back."""
        if self._delivery is None:
            return  # the end of its stream comes by itself
        self._ended = True
        if self._transport is None:
            self._loop.call_soon(self._end)
        else:
            self._patience = self._clock.call_later(LAST_WORDS_SECONDS, self._transport.abort)

    def refuse(self, error: ProtocolError) -> None:
        """Send the peer away for this."""
        if self.is_open:
            # A stranger is nothing to be warned of: it may be a container that was killed while it called home.
            log.log(logging.WARNING if self._peer else logging.INFO, "%s: closed, %s", self.name, error)
            self.close(str(error), denied=isinstance(error, DenialError))

    def hang_up(self) -> None:
        """Be gone without a word, as if there were no server: the peer may look for another."""
        if self._transport is not None:
            self._transport.abort()

    def close(self, reason: str, *, denied: bool = False) -> None:
        """Say why (`denied`: the token is why), and close when what was written has left, or soon."""
        if self._transport is not None and self.is_open:
            self.send(m.Bye(reason, denied))
            self._ended = True
            self._leave()
            self._patience = self._clock.call_later(FAREWELL_SECONDS, self._transport.abort)
        elif self.is_open:
            self._abandon(reason)

    def _leave(self) -> None:
        assert self._transport is not None
        self._transport.close()

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stream is there; its peer has a moment to say who it is."""
        self._transport = cast(asyncio.Transport, transport)
        self._process, user = self._credentials()
        if not self._is_welcome(user):
            self.refuse(ProtocolError("this server belongs to another user"))
            return
        late = ProtocolError(f"no Hello within {HELLO_SECONDS:g} seconds")
        self._patience = self._clock.call_later(HELLO_SECONDS, self.refuse, late)

    def _is_welcome(self, user: int) -> bool:
        """Whether a process of that user may speak at all."""
        return user == os.getuid()

    def data_received(self, data: bytes) -> None:
        """Bytes came: hand on the frames they complete."""
        self._moved = True
        try:
            self._take(self._decoder.feed(data))
            if self._decoder.unfinished:
                self._check_greeting()
                (self._earlier or self)._watch()
        except ProtocolError as error:
            (self._earlier or self).refuse(self._first_of(error))

    def _take(self, frames: Iterable[Frame]) -> None:
        for message, payload in frames:
            if self._peer is None:
                self._meet(message, payload)
                continue
            if (seen := self._arrived(message, payload)) is None:
                continue
            if self._delivery is not None and (due := self._delivery.take(seen, payload)) is not None:
                self._write(due)
            if type(seen) not in ABOUT_THE_STREAM or not self._heard(seen):
                try:
                    self._peer.receive(seen, payload)
                except StoreError as error:  # what is kept can't be read: the peer is told, and need not come back
                    raise ProtocolError(str(error)) from None

    def _heard(self, message: m.Message) -> bool:
        """Take what is said of the stream itself; whether it is nobody else's business."""
        match message:
            case m.Release(descriptor=descriptor):
                if kept := self.blocks.pop(descriptor, None):
                    kept.close()
                return True
            case m.Received(count=count) if self._delivery is not None:
                self._delivery.confirm(count)
                return True
            case m.Bye():
                self._ended = True
        return False

    def _arrived(self, message: m.Message, payload: memoryview) -> m.Message | None:
        """The message as the peer means it; `None` where it is but a part of one."""
        return message

    def _first_of(self, error: ProtocolError) -> ProtocolError:
        """The first thing that is wrong with what came: the frames before a malformed one are taken first."""
        try:
            self._take(error.before)
        except ProtocolError as earlier:
            return earlier
        return error

    def _check_greeting(self) -> None:
        """Raise `ProtocolError` where what has begun to come is too much for the frame that a stranger may send."""
        is_stranger = self._peer is None and self._earlier is None
        if is_stranger and self._decoder.unfinished + self._decoder.missing > MAX_HELLO_BYTES:
            raise ProtocolError(f"the first frame has more than {MAX_HELLO_BYTES:,} bytes, so it is no Hello")

    def _watch(self) -> None:
        """A frame is unfinished: it must come nearer to its end now and then."""
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

    def _meet(self, message: m.Message, payload: memoryview) -> None:
        if self._earlier is not None:
            self._earlier._take(((message, payload),))
            return
        if not isinstance(message, m.Hello):
            raise ProtocolError(f"the first frame must be Hello, not {type(message).__name__}")
        if message.protocol != m.PROTOCOL:
            raise ProtocolError(
                f"you speak protocol {message.protocol}, this server speaks {m.PROTOCOL}: "
                "use the same upswell on both sides"
            )
        self._hello = message
        earlier = self._session_of(message)
        if earlier is None and message.session and self._sessions is not None:
            self._delivery = Delivery()
        self._earlier = earlier
        peer = self._greet(self, message)
        if peer is None:
            self._delivery = self._earlier = None
            raise DenialError("the token is not valid here" if message.token else "it shows no token")
        if self._patience:
            self._patience.cancel()
        if earlier is not None:
            earlier._go_on(self, message.received)
            return
        self._peer = peer
        if self._delivery is not None and self._sessions is not None:
            self._sessions[message.session] = self

    # -- sessions ----------------------------------------------------------------------------------

    def _session_of(self, hello: m.Hello) -> Connection | None:
        """The connection that the peer had before, if it is the same peer and was waited for."""
        earlier = self._sessions.get(hello.session) if self._sessions is not None else None
        if earlier is None or earlier._ended or earlier._hello is None:
            return None
        known = earlier._hello
        same = known.role == hello.role and compare_digest(known.token.encode(), hello.token.encode())
        return earlier if same and type(earlier) is type(self) else None

    def _go_on(self, other: Connection, received: int) -> None:
        """The peer is back, over the stream of another connection, and has `received` so many frames."""
        if self._transport is not None:  # nobody has noticed yet that it is broken
            self._transport.set_protocol(asyncio.Protocol())
            self._transport.abort()
            self._stream_is_gone()
        self.stop_waiting()
        self._transport, other._transport = other._transport, None
        self._process, self._decoder = other._process, other._decoder
        if other._stuck:  # as that one looks after the decoder no more
            other._stuck.cancel()
        assert self._transport is not None and self._delivery is not None
        self._transport.set_protocol(self)
        for message, payload in self._delivery.resume(received):
            self._write(message, payload)

    def _wait(self) -> None:
        """The stream is gone: wait for the peer, if its process may still make another."""
        if self._process > 0 and hasattr(os, "pidfd_open"):
            try:
                self._watched = os.pidfd_open(self._process)
            except ProcessLookupError:
                self._end()
                return
            except OSError:
                pass  # it can't be known
            else:
                self._loop.add_reader(self._watched, self._end)
        self._patience = self._clock.call_later(GRACE_SECONDS, self._end)

    def stop_waiting(self) -> None:
        """Do not look any more whether the peer comes back, or has ended."""
        if self._patience:
            self._patience.cancel()
        if self._watched >= 0:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    def _end(self) -> None:
        """The peer is gone for good."""
        self._ended = True
        self.stop_waiting()
        if self._hello is not None and self._sessions is not None and self._sessions.get(self._hello.session) is self:
            del self._sessions[self._hello.session]
        for kept in self.blocks.values():
            kept.close()
        self.blocks.clear()
        if (peer := self._peer) is not None:
            self._peer = None
            peer.lost()

    def _hear_last_words(self) -> None:
        """Take what a peer on this machine has said before it was gone: to write to it then ends the stream unread."""
        stream = self._transport.get_extra_info("socket") if self._transport else None
        if stream is None or stream.family != socket.AF_UNIX:
            return
        with contextlib.suppress(OSError):
            while data := os.read(stream.fileno(), READ_BYTES):
                self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        if exc is not None:
            self._hear_last_words()
        self._transport = None
        for alarm in (self._patience, self._stuck):
            if alarm:
                alarm.cancel()
        self._stuck = None
        self._stream_is_gone()
        if self._delivery is not None and self._peer is not None and not self._ended:
            self._wait()
        else:
            self._end()

    def _stream_is_gone(self) -> None:
        """Let go of what was on its way over this stream."""
