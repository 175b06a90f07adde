"""Cores that are shared in equal parts by all who compute: egalitarian processor sharing (Kleinrock, 1967).

One number advances for everybody, the CPU time that somebody who computed all along would have got. Whoever joins
notes at which value of it he is done, so nothing is recomputed for the others when one comes or goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush


@dataclass(slots=True, eq=False)
class Burst:
    """Somebody's need of CPU time; `attained` values of the processors mark its span."""

    began: float
    ends: float
    done: Callable[[], None]
    active: bool = True


class Processors:
    """`cores` of a machine; a burst uses at most one."""

    def __init__(self, cores: float) -> None:
        self.cores = cores
        self.attained = 0.0  # CPU seconds since the beginning of somebody who always computed
        self._at = 0.0  # the moment that `attained` is true for
        self._active = 0
        self._ends: list[tuple[float, int, Burst]] = []
        self._tick = 0

    def compute(self, seconds: float, done: Callable[[], None], now: float) -> Burst:
        """Begin to use CPU; `done` is to be called when `seconds` of it were had."""
        self.advance(now)
        burst = Burst(self.attained, self.attained + seconds, done)
        self._tick += 1
        heappush(self._ends, (burst.ends, self._tick, burst))
        self._active += 1
        return burst

    def abandon(self, burst: Burst, now: float) -> None:
        """The burst is over before its end."""
        self.advance(now)
        if burst.active:
            burst.active = False
            self._active -= 1

    def due(self) -> float:
        """When the next burst ends if nobody joins."""
        while self._ends and not self._ends[0][2].active:
            heappop(self._ends)
        if not self._ends:
            return math.inf
        return self._at + max(0.0, self._ends[0][0] - self.attained) / self._rate()

    def finish(self, now: float) -> Callable[[], None]:
        """At the moment `due`: end the burst, and return what follows from it."""
        self.advance(now)
        burst = heappop(self._ends)[2]
        self.attained = max(self.attained, burst.ends)
        burst.active = False
        self._active -= 1
        return burst.done

    def advance(self, now: float) -> None:
        """Let time pass."""
        if self._active:
            self.attained += (now - self._at) * self._rate()
        self._at = now

    def _rate(self) -> float:
        return min(1.0, self.cores / self._active) if self._active else 1.0
