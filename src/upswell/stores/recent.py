"""Segments that were written or read lately, so that granting them does not wait for the disk."""

from __future__ import annotations

from collections import OrderedDict

from ..store import Kept


class Recent:
    """At most so many bytes of segments, the latest used; what is lent out stays until it is dropped."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._segments: OrderedDict[tuple[str, int], Kept] = OrderedDict()
        self._lent: set[tuple[str, int]] = set()  # whose blocks others may be about to open

    def put(self, call: str, first: int, kept: Kept) -> None:
        """Remember the segment; its block is closed when it leaves."""
        self.drop(call, first)
        self._segments[call, first] = kept
        self._bytes += _size(kept)
        excess, leaving = self._bytes - self._limit, []
        for key, oldest in self._segments.items():
            if excess <= 0:
                break
            if key not in self._lent and key != (call, first):
                leaving.append(key)
                excess -= _size(oldest)
        for key in leaving:
            self.drop(*key)

    def lend(self, call: str, first: int) -> Kept | None:
        """The segment, if it is here."""
        kept = self._segments.get((call, first))
        if kept is not None:
            self._segments.move_to_end((call, first))
            if kept.block is not None:
                self._lent.add((call, first))
        return kept

    def drop(self, call: str, first: int) -> None:
        """Forget the segment."""
        self._lent.discard((call, first))
        if kept := self._segments.pop((call, first), None):
            self._bytes -= _size(kept)
            kept.close()

    def drop_call(self, call: str) -> None:
        """Forget all segments of the call."""
        for key in [key for key in self._segments if key[0] == call]:
            self.drop(*key)

    def close(self) -> None:
        """Forget everything."""
        for key in list(self._segments):
            self.drop(*key)


def _size(kept: Kept) -> int:
    return len(kept.payload) + (kept.block.buffers.size if kept.block else 0) + 200
