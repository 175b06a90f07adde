"""The clock seam: what time it is, and what is to happen later. Every event loop is one already.

`ManualClock` stands still until it is told to move, so that a history of minutes can be played in no time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol


class Alarm(Protocol):
    """Something that is to happen later."""

    def cancel(self) -> None:
        """It is not to happen any more."""


class Clock(Protocol):
    """Moments in seconds, from a point that means nothing, and alarms."""

    def time(self) -> float:
        """The moment it is now; it never runs backwards."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Alarm:
        """Have `callback(*args)` called at the moment `when`, or as soon as that is past."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Alarm:
        """The same, `delay` seconds from now."""


class ManualClock:
    """A clock that is moved by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._alarms: list[tuple[float, int, ManualAlarm]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> ManualAlarm:
        alarm = ManualAlarm(callback, args)
        heappush(self._alarms, (when, next(self._numbers), alarm))
        return alarm

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> ManualAlarm:
        return self.call_at(self._now + delay, callback, *args)

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due happens in its order, each at its own moment."""
        until = self._now + seconds
        while self._alarms and self._alarms[0][0] <= until:
            when, _, alarm = heappop(self._alarms)
            self._now = max(self._now, when)
            alarm.ring()
        self._now = until


class ManualAlarm:
    """An alarm of a `ManualClock`."""

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    def cancel(self) -> None:
        self._callback = None

    def ring(self) -> None:
        """Its moment has come."""
        if self._callback is not None:
            self._callback(*self._args)
