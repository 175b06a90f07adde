"""A blocking connection that carries frames: what the SDK and containers speak to the server through."""

from __future__ import annotations

import mmap
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ConnectionError
from . import reentry
from .codec import Bytes, Decoder, Frame, ProtocolError, encode_parts
from .messages import Message
from .reentry import unheld

if TYPE_CHECKING:
    from .tls import TlsStream

RECEIVE_BYTES = 256 << 10  # at once, into a buffer that is used again
REST_BYTES = 4 << 20  # at once, of a frame known to be larger than that buffer
PEEK_BYTES = 96 << 10  # at once, by `peek`; from 128 KiB on malloc would map memory for each

# As a number: to make a member of an enumeration of it takes longer than all else that a connection needs.
_family: Callable[[socket.socket], int] = socket.SocketType.family.__get__
_pop_left: Callable[[deque[Any]], Any] = deque.popleft


def dial(address: str, timeout: float = 5.0, *, ca: str = "") -> Channel:
    """Connect to `unix:/path`, `unix:@name` (abstract), `tls://host:port`, or on this machine `tcp://127.0.0.1:port`.

    `ca` is the file of certificates to trust in place of the system's. `ConnectionError` when no server answers within
    `timeout` seconds, refuses, or is not whom its certificate must name.
    """
    kind, _, name = address.partition(":")
    if kind == "unix" and name:
        return Channel(_connect_here(address, "\0" + name[1:] if name.startswith("@") else name, timeout))
    if kind in ("tls", "tcp"):
        from .network import dial_network

        if channel := dial_network(address, timeout, ca):
            return channel
    raise ConnectionError(
        f"{address!r} is no server address: use unix:/path, unix:@name, tls://host:port, "
        "or on the same machine tcp://127.0.0.1:port"
    )


def _connect_here(address: str, path: str, timeout: float) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(timeout)
    try:
        stream.connect(path)
    except OSError as error:
        stream.close()
        raise ConnectionError(f"no server answers at {address}: {error.strerror or error}") from None
    stream.settimeout(None)
    return stream


class Channel:
    """Frames over a connected socket. Any thread may send; one thread receives.

    With a `shortcut` more come by that, each in a packet of its own.
    """

    def __init__(self, stream: socket.socket | TlsStream, shortcut: socket.socket | None = None) -> None:
        self._stream = stream
        self._shortcut = shortcut
        self._source = stream  # where the next bytes are, as was seen last
        self._decoder = Decoder()
        # Not a bytearray, which would be cleared: pages that nothing was received into cost no memory, and no start.
        self._received = memoryview(mmap.mmap(-1, RECEIVE_BYTES, flags=mmap.MAP_PRIVATE))
        self._sending = reentry.lock()
        self._poller = select.poll()
        self._poller.register(stream.fileno(), select.POLLIN)
        self._is_readable = False  # as `wait` has seen; nothing was received since
        self._is_patient = True
        self._is_local = isinstance(stream, socket.socket) and _family(stream) == socket.AF_UNIX
        self._peeker = select.poll()  # of its own: two threads may not wait with one at once
        self._peeker.register(stream.fileno(), select.POLLIN)
        self._peeked: deque[bytes | Frame] = deque()  # received, and not taken by anybody
        if shortcut is not None:
            self._poller.register(shortcut, select.POLLIN)
            self._peeker.register(shortcut, select.POLLIN)

    def send(self, message: Message, payload: Bytes = b"") -> None:
        """Write one whole frame; `OSError` when the connection is gone, `ExecutionError` in the midst of another."""
        parts = encode_parts(message, payload)
        with unheld(self._sending):
            self._write(parts)

    def send_bytes(self, frames: Bytes) -> None:
        """Write frames that are encoded already."""
        with unheld(self._sending):
            self._stream.sendall(frames)

    def _write(self, parts: list[Bytes]) -> None:
        for part in parts:
            self._stream.sendall(part)

    def receive(self) -> list[Frame]:
        """Wait for at least one frame; an empty list says that the peer has closed."""
        while True:
            try:
                data = self._peeked.popleft() if self._peeked else self._receive_some()
            except (ConnectionResetError, BrokenPipeError):
                return []
            if not data:
                return []
            if isinstance(data, tuple):
                return [data]
            if frames := self._decoder.feed(data):
                return frames

    @property
    def may_peek(self) -> bool:
        """Whether `peek` may be used: at a Unix socket each of its steps is one call of C, so that it loses nothing."""
        return self._is_local

    def wait_to_peek(self, milliseconds: float) -> bool:
        """Whether something comes in that time. A signal handler may let another thread `receive` meanwhile."""
        return bool(self._peeked) or self._poll(self._peeker, milliseconds)

    def peek(self) -> Frame | None:
        """What came, which stays here for `move` or for `receive`; nothing where that is not just one frame.

        An exception from outside, such as Ctrl-C, loses nothing, whenever it comes: each step is one call, or sets one
        thing, and may be begun again.
        """
        peeked = self._peeked
        try:
            if not peeked:
                recv: Any = self._source.recv  # that of a socket
                peeked.extend(map(recv, (PEEK_BYTES,), (socket.MSG_DONTWAIT,)))
            first = peeked[0]
            if isinstance(first, bytes):
                if (frame := self._decoder.only(first)) is None:
                    return None
                first = peeked[0] = frame
            return first
        except (OSError, ProtocolError):
            return None  # `receive` sees it, too

    def move(self, frames: deque[Any]) -> None:
        """Take the frame that `peek` has returned and append it to `frames`, both in one call."""
        frames.extend(map(_pop_left, (self._peeked,)))

    def wait(self, milliseconds: float | None = None) -> bool:
        """Whether something comes, or the end, in that time (`None`: as long as it takes)."""
        self._is_readable = bool(self._peeked) or self._poll(self._poller, milliseconds)
        return self._is_readable

    def _poll(self, poller: select.poll, milliseconds: float | None) -> bool:
        found = poller.poll(milliseconds)
        self._source = self._stream
        if (shortcut := self._shortcut) is not None and not self._decoder.unfinished:
            number = shortcut.fileno()
            if any(descriptor == number for descriptor, _ in found):
                self._source = shortcut  # before the stream, which may have come to its end
        return bool(found)

    def _await_bytes(self) -> socket.socket | TlsStream:
        """Where there are some, or will be.

        Who waits in `recv` at a Unix socket is woken in vain when the peer reads; who waits in `poll` is not.
        """
        may_poll = self._is_local and self._is_patient and not self._is_readable
        if may_poll and (self._shortcut is None or not self._decoder.unfinished):
            self._poll(self._poller, None)
        source, self._source, self._is_readable = self._source, self._stream, False
        return source

    def _receive_some(self) -> bytes:
        source = self._await_bytes()
        missing = self._decoder.missing
        if missing > RECEIVE_BYTES:
            return self._stream.recv(min(missing, REST_BYTES))
        # A fresh object of the full size for each call would be mapped, faulted in and unmapped each time.
        return bytes(self._received[: source.recv_into(self._received)])

    def succeed(self, broken: Channel) -> None:
        """Take the place of that channel, and take over what came over it and is still wanted."""
        broken.close()

    def be_patient(self, seconds: float | None) -> None:
        """How long a `send` or a `receive` may wait from now on, before it raises `TimeoutError`; `None`: for ever."""
        self._stream.settimeout(seconds)
        self._is_patient = seconds is None

    def fileno(self) -> int:
        """The descriptor, for those that wait for more than one thing."""
        return self._stream.fileno()

    def shutdown(self) -> None:
        """End the connection in both directions; a `receive` that waits returns."""
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the descriptor."""
        self._stream.close()
        if self._shortcut is not None:
            self._shortcut.close()

    def forget(self) -> None:
        """In a forked child: let go of the descriptor, without a word to the peer."""
        try:
            os.close(self._stream.detach())
            if self._shortcut is not None:
                os.close(self._shortcut.detach())
        except OSError:
            pass
