"""How blocks of shared memory pass where two processes share no memory: in pieces, before the message that names them.

Both ends go on as on one machine: the sender's block is let go by the `Release` of its own descriptor, and the receiver
gets a message that names a block of its own. Nothing of a block is ever held in one piece on a heap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import msgspec

from .buffers import AVAILABLE, Block, append, new_memory
from .codec import ProtocolError
from .messages import Buffers, Message, Piece

PIECE_BYTES = 256 << 10
MAX_BLOCK_BYTES = 1 << 40
OVER_THE_CONNECTION = 0  # stands where otherwise the process is that has the block


def buffers_of(message: Message) -> Buffers | None:
    """The shared memory that a message names, if any."""
    buffers: Buffers | None = getattr(message, "buffers", None)
    return buffers


def detached(message: Message) -> Message:
    """The message as it follows the pieces of its block."""
    buffers = buffers_of(message)
    assert buffers is not None
    named = Buffers(OVER_THE_CONNECTION, buffers.descriptor, buffers.size)
    return msgspec.structs.replace(message, buffers=named)


def pieces(buffers: Buffers) -> Iterator[bytes]:
    """The contents of a block that is open in this process."""
    assert buffers.process == os.getpid()
    position = 0
    while position < buffers.size:
        piece = os.pread(buffers.descriptor, min(PIECE_BYTES, buffers.size - position), position)
        if not piece:
            raise ProtocolError(f"a block of {buffers.size:,} bytes ends after {position:,}")
        yield piece
        position += len(piece)


class Arrivals:
    """The blocks that arrive over one connection. `release` is called with what the sender may let go."""

    def __init__(self, release: Callable[[int], None]) -> None:
        self._release = release
        self._descriptor = -1  # of the block that is arriving
        self._size = 0
        self._blocks: dict[int, Block] = {}  # whole, and not yet taken over

    def take(self, message: Message, payload: memoryview) -> Message | None:
        """The message as this process is to see it; `None` where it was but a piece."""
        if isinstance(message, Piece):
            self._add(payload)
            return None
        buffers = buffers_of(message)
        if buffers is None:
            return message  # it may stand among the pieces
        if buffers.process != OVER_THE_CONNECTION:
            raise ProtocolError("shared memory does not pass over a network")
        if buffers.size != self._size:
            raise ProtocolError(f"a block of {buffers.size:,} bytes was announced, and {self._size:,} came")
        block = self._finish()
        self._release(buffers.descriptor)
        return msgspec.structs.replace(message, buffers=block.buffers)

    def taken(self, descriptor: int) -> None:
        """Somebody here has taken over the block of that descriptor, or does not want it."""
        if block := self._blocks.pop(descriptor, None):
            block.close()

    def succeed(self, others: Arrivals) -> None:
        """Take over the blocks that have arrived over another connection, of which nothing comes any more."""
        self._blocks |= others._blocks
        others._blocks.clear()

    def close(self) -> None:
        """Let go of everything."""
        if self._descriptor >= 0:
            self._finish()
        for descriptor in list(self._blocks):
            self.taken(descriptor)

    def _add(self, payload: memoryview) -> None:
        if not AVAILABLE:
            raise ProtocolError("this system has no shared memory for large buffers to arrive in")
        if self._descriptor < 0:
            self._descriptor = new_memory()
        self._size += len(payload)
        if not len(payload) or self._size > MAX_BLOCK_BYTES:
            raise ProtocolError(f"a block is of 1 to {MAX_BLOCK_BYTES:,} bytes")
        try:
            append(self._descriptor, payload)
        except OSError as error:
            raise ProtocolError(f"there is no memory for a block of more than {self._size:,} bytes: {error}") from None

    def _finish(self) -> Block:
        descriptor = self._descriptor if self._descriptor >= 0 else new_memory()
        block = self._blocks[descriptor] = Block(descriptor, self._size)
        self._descriptor, self._size = -1, 0
        return block
