"""What has arrived of a session, so that a connection that breaks is taken up again where it ended.

Each side counts the frames it takes, says so now and then, and keeps what it has sent until the other side has said
that. When a connection is made again, each sends what the other does not have: nothing is lost, and nothing comes
twice. `Hello`, `Welcome`, `Received`, `Release` and `Bye` are about the connection and count for nothing.
"""

from __future__ import annotations

from collections import deque

from .codec import Bytes, ProtocolError
from .messages import Bye, Hello, Message, Received, Release, Welcome

CONFIRM_FRAMES = 64  # taken since the last `Received`, before the next
CONFIRM_BYTES = 1 << 20
FRAME_BYTES = 200  # that a frame in memory has beside its payload, more or less

UNCOUNTED = (Hello, Welcome, Received, Release, Bye)


class Delivery:
    """One side of a session."""

    def __init__(self) -> None:
        self.received = 0  # frames that came
        self.bytes = 0  # in frames that were sent and may not have arrived
        self._sent: deque[tuple[Message, Bytes]] = deque()  # those frames
        self._confirmed = 0  # frames that arrived over there, which are those before them
        self._said = 0  # of `received`
        self._came = 0  # bytes since then
        self._last: Message | None = None  # that was counted

    def send(self, message: Message, payload: Bytes) -> None:
        """Keep a frame that is sent."""
        if not isinstance(message, UNCOUNTED):
            self._sent.append((message, payload))
            self.bytes += len(payload) + FRAME_BYTES

    def withdraw(self, message: Message) -> None:
        """The frame that was kept last was not sent after all."""
        if self._sent and self._sent[-1][0] is message:
            self.bytes -= len(self._sent.pop()[1]) + FRAME_BYTES

    def take(self, message: Message, payload: Bytes) -> Received | None:
        """Count a frame that came. What is returned is to be said to the other side.

        A caller that is interrupted, as by Ctrl-C, before the frame is in its place may take it again: it counts once.
        """
        size = len(payload)
        if message is self._last or isinstance(message, UNCOUNTED):
            return None
        self._last = message  # the interpreter lets nothing in before the next two
        self.received += 1
        self._came += size
        if self.received - self._said < CONFIRM_FRAMES and self._came < CONFIRM_BYTES:
            return None
        self._said, self._came = self.received, 0
        return Received(self.received)

    def confirm(self, count: int) -> None:
        """The other side has so many frames; `ProtocolError` where that can't be."""
        arrived = count - self._confirmed
        if not 0 <= arrived <= len(self._sent):
            sent = self._confirmed + len(self._sent)
            raise ProtocolError(f"{count:,} frames of this session can't have come: {sent:,} were sent")
        for _ in range(arrived):
            self.bytes -= len(self._sent.popleft()[1]) + FRAME_BYTES
        self._confirmed = count

    def resume(self, count: int) -> list[tuple[Message, Bytes]]:
        """The connection is made again, and the other side has so many frames: those it lacks, in order."""
        self.confirm(count)
        self._said, self._came = self.received, 0  # `Hello` and `Welcome` have said it
        return list(self._sent)
