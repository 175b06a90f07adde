"""Frames: how a message and its payload become bytes on a stream, and back.

A frame is `u32 length of what follows · u32 length of the message · message (msgpack) · payload`, little endian. Bytes
from a peer are never trusted: every length has a limit and every message a schema; what fits neither is a
`ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import msgspec

from ..errors import Error, InvalidError
from .messages import PROTOCOL, AnyMessage, Message

MAX_MESSAGE_BYTES = 16 << 20
MAX_PAYLOAD_BYTES = 384 << 20  # a payload goes from peer to peer inside other messages, so it has a limit of its own
MAX_FRAME_BYTES = 4 + MAX_MESSAGE_BYTES + MAX_PAYLOAD_BYTES
LARGE_PAYLOAD_BYTES = 64 << 10  # from here on a payload is not copied to stand behind its message

_HEADER = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode

Frame = tuple[Message, memoryview]
Bytes = bytes | bytearray | memoryview


class ProtocolError(Error):
    """The peer sent what is no frame; the connection can't go on. `before` are whole frames that it came after."""

    before: Sequence[Frame] = ()


def encode(message: Message, payload: Bytes = b"") -> bytes:
    """The frame as one piece."""
    return b"".join(encode_parts(message, payload))


def encode_parts(message: Message, payload: Bytes = b"") -> list[Bytes]:
    """The frame in pieces: a large payload stands alone and is not copied."""
    body = _encode(message)
    size, more = len(body), len(payload)
    if size > MAX_MESSAGE_BYTES:
        raise _too_large(type(message).__name__, size, MAX_MESSAGE_BYTES)
    if more > MAX_PAYLOAD_BYTES:
        raise _too_large(f"{type(message).__name__}'s payload", more, MAX_PAYLOAD_BYTES)
    head = _HEADER.pack(4 + size + more, size)
    return [head, body, payload] if more >= LARGE_PAYLOAD_BYTES else [b"".join((head, body, payload))]


def _too_large(what: str, size: int, limit: int) -> ProtocolError:
    return ProtocolError(f"{what} has {size:,} bytes, and the limit is {limit:,}: send less at once")


class Decoder:
    """Bytes of a stream in, whole frames out. Payloads stay valid after the next `feed`.

    `decode` reads one message, where they are not those between servers and their clients and containers.
    """

    def __init__(self, decode: Callable[[memoryview], Message] = _decode) -> None:
        self._decode = decode
        self._pieces: list[Bytes] = []  # of an unfinished frame
        self._have = 0  # bytes in them
        self._need = 4  # bytes of them at which a look is worth it

    @property
    def missing(self) -> int:
        """Bytes that the unfinished frame still needs, as far as that is known."""
        return self._need - self._have

    @property
    def unfinished(self) -> int:
        """Bytes of a frame that has not come whole yet."""
        return self._have

    def only(self, data: Bytes) -> Frame | None:
        """The frame that these bytes are, where they are just one, and nothing of another has come before."""
        if self._have or len(data) <= 8 or _LENGTH.unpack_from(data)[0] != len(data) - 4:
            return None
        return self._frame(memoryview(data), 4, len(data))

    def feed(self, data: Bytes) -> list[Frame]:
        """Take what came, and return the frames it completes."""
        if (frame := self.only(data)) is not None:
            return [frame]
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        return self._split(memoryview(data))

    def _split(self, view: memoryview) -> list[Frame]:
        frames: list[Frame] = []
        position, end = 0, len(view)
        try:
            while end - position >= 4:
                (length,) = _LENGTH.unpack_from(view, position)
                if not 4 <= length <= MAX_FRAME_BYTES:
                    raise ProtocolError(f"a frame of {length:,} bytes, and the limit is {MAX_FRAME_BYTES:,}")
                following = position + 4 + length
                if following > end:
                    self._need = 4 + length
                    break
                frames.append(self._frame(view, position + 4, following))
                position = following
            else:
                self._need = 4
        except ProtocolError as error:
            error.before = frames
            raise
        self._have = end - position
        if self._have:
            # A copy, so that a small rest does not keep the large chunk it came with.
            self._pieces.append(bytes(view[position:]))
        return frames

    def _frame(self, view: memoryview, start: int, stop: int) -> Frame:
        (length,) = _LENGTH.unpack_from(view, start)
        payload = start + 4 + length
        if payload > stop or length > MAX_MESSAGE_BYTES or stop - payload > MAX_PAYLOAD_BYTES:
            raise ProtocolError(f"a message of {length:,} bytes in a frame of {stop - start:,}")
        try:
            return self._decode(view[start + 4 : payload]), view[payload:stop]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidError) as error:
            raise ProtocolError(f"not a message of protocol {PROTOCOL}: {error}") from None
