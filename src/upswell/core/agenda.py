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
        self._moments: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []  # an entry is valid if it tells the key's present moment
        self._tick = 0

    def put(self, key: Key, moment: float) -> None:
        """Look at `key` at `moment` and no other; at `NEVER`, not at all."""
        if moment == NEVER:
            self._moments.pop(key, None)
        elif self._moments.get(key) != moment:
            self._moments[key] = moment
            self._tick += 1
            heappush(self._heap, (moment, self._tick, key))
            if len(self._heap) > 2 * len(self._moments) + FEW:
                self._heap = list({e[2]: e for e in sorted(self._heap) if self._moments.get(e[2]) == e[0]}.values())
                heapify(self._heap)

    def put_by(self, key: Key, moment: float) -> None:
        """Look at `key` at `moment` at the latest: where it is looked at earlier, that stays."""
        if moment < self._moments.get(key, NEVER):
            self.put(key, moment)

    def first(self) -> tuple[float, Key] | None:
        """The earliest moment and its key."""
        while self._heap:
            moment, _, key = self._heap[0]
            if self._moments.get(key) == moment:
                return moment, key
            heappop(self._heap)
        return None
