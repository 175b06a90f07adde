"""The container's connection to its server, and when that is gone to the next server of the same home.

What became of inputs is kept until the server says that it is done with it, and else sent again to the next one, which
knows by the positions what is new to it. Everything else is a remark of the moment, as re-joining says how things are
by then. Where no other server can come nothing is kept, and the process ends with the connection. Over a network a
connection may break while the server lives: then both go on frame for frame, as in the session of a client.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from ..errors import ConnectionError
from ..spec import FunctionRecord
from ..wire import messages as m
from ..wire import shortcut
from ..wire.channel import Channel, dial
from ..wire.codec import Bytes, Frame, encode
from ..wire.payload import Packed
from .work import Work

if TYPE_CHECKING:
    from ..wire.delivery import Delivery

KEPT_BYTES = 64 << 20  # of what became of inputs; with more than that no further range is begun
FRAME_BYTES = 500  # that something kept has beside its payload, more or less
PAUSE_SECONDS = 0.1  # between two looks for another server
TRY_SECONDS = 5.0  # that one may take to answer

Outcome = m.Results | m.Failure | m.Yielded
DELIVERED = Packed(b"")  # in place of outputs that the client has


class Sent(msgspec.Struct, eq=False):
    """What the server may not be done with."""

    work: Work
    message: Outcome
    packed: Packed

    @property
    def size(self) -> int:
        """Bytes that it takes here."""
        return FRAME_BYTES + self.packed.size

    def processed(self) -> None:
        """The server is done with it."""
        match self.message:
            case m.Results(start=start, count=count):
                self.work.processed = start + count
            case m.Failure(position=position):
                self.work.processed = position + 1
            case m.Yielded(first=first, count=count):
                self.work.processed_chunks = first + count
        self.packed.close()


class Link:
    """Any thread may send. One at a time receives, and where the connection is lost looks for another server."""

    def __init__(self, rejoin_seconds: float, shortcut: int = -1) -> None:
        """A container that is without a server for `rejoin_seconds` ends. It may be made before a fork, for the child.

        `shortcut` is the descriptor to which outputs may be written, if there is one: see `wire/shortcut.py`.
        """
        self._shortcut = shortcut
        self.sending = threading.Lock()  # held while a frame is written, so that no runner is interrupted within one
        self.is_lost = False  # there is no server at the moment
        self.may_return = True  # false once the container is about to exit
        self.authority = os.environ.get("UPSWELL_CA", "")  # the file of certificates to trust
        self._address = self._token = ""
        self._loaded = False  # whether it is known what this container is to be
        self._rejoin_seconds = rejoin_seconds
        self._ends_at = 0.0  # where it is lost
        self._channel: Channel | None = None
        self._sent: deque[Sent] = deque()  # in order, what the server may not be done with
        self._bytes = 0  # of these
        self._processed = 0  # how many of those that were sent over this connection it is done with
        self._session = ""  # where the connection may break while the server lives
        self._delivery: Delivery | None = None  # of the session
        self._early: list[Frame] = []  # that came with the answer to a `Hello`
        self._blocks: dict[int, Packed] = {}  # where nothing is kept: shared memory that the server has not taken over

    @property
    def is_full(self) -> bool:
        """Whether so much is kept that nothing further should be begun."""
        return self._bytes > KEPT_BYTES

    def await_room(self) -> None:
        """Return when something may be begun."""
        while self.is_full:
            time.sleep(PAUSE_SECONDS)

    # -- out ---------------------------------------------------------------------------------------

    def send(self, message: m.Message, payload: bytes = b"") -> None:
        """Make a remark; where there is no server nobody hears it."""
        with self.sending:
            self._write(message, payload)

    def send_outcome(self, work: Work, message: Outcome, packed: Packed) -> None:
        """Say what became of some inputs of the range."""
        with self.sending:
            if work.may_deliver and self._deliver(work.call, message, packed):
                message, packed = replace(message, delivered=True), DELIVERED
            if self._rejoin_seconds:
                sent = Sent(work, message, packed)
                self._sent.append(sent)
                self._bytes += sent.size
            elif packed.buffers:
                self._blocks[packed.buffers.descriptor] = packed
            self._write(message, packed.data)

    def _deliver(self, call: str, message: Outcome, packed: Packed) -> bool:
        """Send outputs straight to the client, if they can be. That comes before the server is told, as what it takes
        for delivered it does not ask for again: killed in between, the container has only run them in vain.
        """
        if self._shortcut < 0 or not isinstance(message, m.Results) or packed.block is not None:
            return False
        if len(packed.data) > shortcut.PACKET_BYTES:
            return False
        return shortcut.deliver(encode(m.Outputs(call, message.start, message.count), packed.data), self._shortcut)

    def processed(self, count: int) -> None:
        """The server is done with so much of what was sent over this connection."""
        with self.sending:
            for _ in range(min(count - self._processed, len(self._sent))):
                sent = self._sent.popleft()
                self._bytes -= sent.size
                sent.processed()
            self._processed = count

    def release(self, descriptor: int) -> None:
        """The server has taken over a block of shared memory; the next one, where there may be one, may need it too."""
        if packed := self._blocks.pop(descriptor, None):
            packed.close()

    def _write(self, message: m.Message, payload: bytes) -> None:
        if self._delivery is not None:
            self._delivery.send(message, payload)
        if self._channel is None or self.is_lost:
            return
        try:
            self._channel.send(message, payload)
        except OSError:
            self.lose()

    # -- in ----------------------------------------------------------------------------------------

    def call_home(self, address: str, token: str) -> FunctionRecord:
        """Connect for the first time; returns what this container is to be."""
        self._know_home(address, token)
        while True:
            try:
                channel = self._dial()
                if welcome := self._welcome(channel):
                    self._begin_session(welcome, ())
                if record := self.meet(channel):
                    return record
            except (ConnectionError, OSError):
                pass
            self._pause()

    def report_home(self, address: str, token: str, ready: m.Ready) -> None:
        """The same where this container knows what it is to be, and is `ready`: no answer is awaited."""
        self._know_home(address, token)
        self._loaded = True
        while self._channel is None:
            try:
                channel = self._dial(ready)
                if welcome := self._welcome(channel):
                    self._begin_session(welcome, ((ready, b""),))
                self._begin(channel)
            except (ConnectionError, OSError):
                self._pause()

    def _know_home(self, address: str, token: str) -> None:
        self._address, self._token = address, token
        self._ends_at = time.monotonic() + self._rejoin_seconds
        if self._rejoin_seconds and not address.startswith("unix:"):
            self._session = os.urandom(16).hex()

    def meet(self, channel: Channel) -> FunctionRecord | None:
        """Have the server at the other end say what this container is to be; `None` where it has gone instead."""
        self._begin(channel)
        frames = self.receive()
        if not frames:
            return None
        if not isinstance(frames[0][0], m.Load):
            os._exit(1)  # it is not wanted
        return frames[0][0].function

    def close(self) -> None:
        """End the connection."""
        assert self._channel is not None
        self._channel.close()

    def wait(self, patience_ms: float | None) -> bool:
        """Whether something comes, or has come to its end, in time (`None`: as long as it takes)."""
        assert self._channel is not None
        return bool(self._early) or self._channel.wait(patience_ms)

    def receive(self) -> list[Frame]:
        """What came; nothing where the connection is lost."""
        assert self._channel is not None
        frames, self._early = self._early or self._channel.receive(), []
        if not frames:
            self.lose()
        elif self._delivery is not None:
            self._count(self._delivery, frames)
        return frames

    def _count(self, delivery: Delivery, frames: list[Frame]) -> None:
        with self.sending:
            for message, payload in frames:
                if isinstance(message, m.Received):
                    delivery.confirm(message.count)
                elif due := delivery.take(message, payload):
                    self._write(due, b"")

    def lose(self) -> None:
        """The server is gone."""
        if not self._rejoin_seconds:
            os._exit(1)  # nobody can be told anything any more, nor waits for it
        if not self.is_lost and self._channel is not None:
            self._ends_at = time.monotonic() + self._rejoin_seconds
            self.is_lost = True
            self._channel.shutdown()  # whoever receives returns

    def rejoin(self, holdings: Callable[[Iterable[Work]], list[m.Holding]]) -> None:
        """Look for the server, or another one; where there is none yet, return a moment later.

        `holdings` tells another what the container holds, together with ranges whose outcome it may not know.
        """
        if self.may_return:
            try:
                channel = self._dial()
                welcome = self._welcome(channel)
                with self.sending:  # what is sent from now on comes after this
                    if welcome is not None and welcome.resumed and self._delivery is not None:
                        again = self._delivery.resume(welcome.received)
                    else:
                        again = [(m.Rejoin(holdings([sent.work for sent in self._sent])), b"")]
                        again += [(sent.message, sent.packed.data) for sent in self._sent]
                        self._begin_session(welcome, again)
                        self._processed = 0
                    for message, payload in again:
                        channel.send(message, payload)
                    self._begin(channel)
                return
            except (ConnectionError, OSError):
                pass
        self._pause()

    def _dial(self, *more: m.Message) -> Channel:
        """Connect, and say who this is, and `more` in the same breath."""
        channel = dial(self._address, ca=self.authority)
        received = self._delivery.received if self._delivery is not None else 0
        hello = m.Hello(m.PROTOCOL, "container", self._token, os.getpid(), self._session, received, self._loaded)
        channel.send_bytes(b"".join(encode(message) for message in (hello, *more)))
        return channel

    def _welcome(self, channel: Channel) -> m.Welcome | None:
        """The server's answer, where there is a session to go on with, or to begin."""
        if not self._session:
            return None
        channel.be_patient(TRY_SECONDS)
        frames = channel.receive()
        channel.be_patient(None)
        if not frames:
            raise ConnectionError("the server has closed the connection")
        (welcome, _), *self._early = frames
        if not isinstance(welcome, m.Welcome):
            os._exit(1)  # it is not wanted
        return welcome

    def _begin_session(self, welcome: m.Welcome | None, said: Iterable[tuple[m.Message, Bytes]]) -> None:
        """Another server knows nothing of what was said before: this is what is said first, and is kept for it."""
        if welcome is None or not welcome.keeps_session:
            self._delivery = None
            return
        from ..wire.delivery import Delivery

        self._delivery = Delivery()
        for message, payload in said:
            self._delivery.send(message, payload)

    def _begin(self, channel: Channel) -> None:
        if self._channel is not None:
            channel.succeed(self._channel)
        self._channel, self.is_lost = channel, False

    def _pause(self) -> None:
        if time.monotonic() >= self._ends_at:
            os._exit(1)
        time.sleep(PAUSE_SECONDS)
