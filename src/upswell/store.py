"""The store seam: where the bytes of calls are kept, by position; what they mean is nobody's business here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from .wire.buffers import Block
from .wire.messages import ErrorRecord

Bytes = bytes | memoryview


@dataclass(slots=True)
class Kept:
    """A payload, and the block of shared memory that belongs to it."""

    payload: Bytes
    block: Block | None = None

    def close(self) -> None:
        """Let go of the shared memory."""
        if self.block is not None:
            self.block.close()


@dataclass(slots=True)
class Outcome:
    """What became of the inputs `first .. first + count` of a call: their outputs, or with `error` their failure."""

    first: int
    count: int
    kept: Kept
    error: ErrorRecord | None = None


class Store(Protocol):
    """Segments of inputs until they are settled, and outcomes of calls that are fetched later."""

    def put_inputs(self, call: str, first: int, kept: Kept) -> None:
        """Keep the segment of the call that begins at `first`, in place of any that is there."""

    def inputs(self, call: str, first: int) -> Kept:
        """The segment; `KeyError` when it was dropped."""

    def drop_inputs(self, call: str, first: int) -> None:
        """Let go of the segment, if it is there."""

    def put_outcome(self, call: str, outcome: Outcome) -> None:
        """Keep the outcome of a part of the call."""

    def outcomes(self, call: str) -> Iterator[Outcome]:
        """All outcomes of the call that are kept, in the order they came."""

    def drop_call(self, call: str) -> None:
        """Let go of everything of the call."""

    def close(self) -> None:
        """Let go of everything."""
