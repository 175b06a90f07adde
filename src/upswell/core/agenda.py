"""When to look at what: at most one moment for each key, the earliest first.

A heap whose outdated entries are skipped, and swept out before they outnumber the valid ones, so that it grows with the
keys that have a moment and not with how often moments change.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

NEVER = math.inf
FEW = 64  # outdated entries that nobody minds

Key = TypeVar("Key")


class Agenda(Generic[Key]):
    """Moments of keys. Equal moments come in the order in which they were put."""

    def __init__(self) -> None:
        self._entries: dict[Key, tuple[float, int, Key]] = {}  # what is valid: moment, when that was put, key
        self._heap: list[tuple[float, int, Key]] = []  # all of these, and some that are outdated
        self._tick = 0

    def put(self, key: Key, moment: float) -> None:
        """Look at `key` at `moment` and no other; at `NEVER`, not at all."""
        if moment == NEVER:
            self._entries.pop(key, None)
        elif (present := self._entries.get(key)) is None or present[0] != moment:
            self._tick += 1
            entry = self._entries[key] = (moment, self._tick, key)
            heappush(self._heap, entry)
            if len(self._heap) > 2 * len(self._entries) + FEW:
                self._heap = list(self._entries.values())
                heapify(self._heap)

    def put_by(self, key: Key, moment: float) -> None:
        """Look at `key` at `moment` at the latest: where it is looked at earlier, that stays."""
        if (present := self._entries.get(key)) is None or moment < present[0]:
            self.put(key, moment)

    def next_at(self) -> float:
        """The earliest moment; `NEVER` where there is none."""
        while self._heap:
            entry = self._heap[0]
            if self._entries.get(entry[2]) is entry:
                return entry[0]
            heappop(self._heap)
        return NEVER

    def pop_due(self, now: float) -> Key | None:
        """The first key whose moment has come, which has none any more; `None` where none has come."""
        while self._heap and self._heap[0][0] <= now:
            entry = heappop(self._heap)
            if self._entries.get(entry[2]) is entry:
                del self._entries[entry[2]]
                return entry[2]
        return None
