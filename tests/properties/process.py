"""A container as it really is, out of the core's sight: what it was sent and has not read, what it runs, what it has
said and nobody has heard yet. It is honest, and as slow, unlucky or brittle as the history wants.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from upswell.core import commands as c
from upswell.core import events as e

EVERYTHING = 1 << 62  # what a container says it returns of a range it no longer has


@dataclass(eq=False)
class Work:
    """A range as its container sees it; `position` runs once `begun`, or is the next to."""

    range: int
    position: int
    stop: int
    begun: bool = False
    suspended: bool = False


@dataclass(eq=False)
class Process:
    """One container. Messages leave in order; its exit is heard after all of them."""

    id: str
    function: str
    places: int
    inbox: deque[c.Command] = field(default_factory=deque)
    outbox: deque[e.Event] = field(default_factory=deque)
    works: dict[int, Work] = field(default_factory=dict)
    draining: bool = False
    dead: bool = False

    def read(self) -> None:
        """Take note of the oldest command."""
        match self.inbox.popleft():
            case c.Grant(range=number, start=start, stop=stop):
                self.works[number] = Work(number, start, stop)
            case c.TakeBack(range=number):
                self._give_back(number)
            case c.CancelRange(range=number):
                self._give_back(number)
                work = self.works.get(number)
                if work is not None and work.begun:
                    self.fail(work, "cancelled", fatal=False)
            case c.Drain():
                self.draining = True
                for work in list(self.works.values()):  # there are any only where the function is removed
                    self._give_back(work.range)
                    if work.range in self.works:
                        self.fail(work, "cancelled", fatal=False)
        self._begin()

    def running(self) -> list[Work]:
        """The ranges whose input takes a place."""
        return [work for work in self.works.values() if work.begun and not work.suspended]

    def suspended(self) -> list[Work]:
        return [work for work in self.works.values() if work.suspended]

    def finish(self, work: Work, count: int) -> None:
        """The next inputs of the range end well, as many as there are."""
        count = min(count, work.stop - work.position)
        self.outbox.append(e.ResultsReceived(self.id, work.range, work.position, count, 0.004 * count, 0.001 * count))
        self._move(work, count)

    def fail(
        self, work: Work, kind: Literal["user", "timeout", "memory", "cancelled", "unreadable"], fatal: bool
    ) -> None:
        """The running input fails, and perhaps takes the process with it."""
        self.outbox.append(e.FailureReceived(self.id, work.range, work.position, 0.004, 0.001, kind, fatal))
        self._move(work, 1)
        self.dead = self.dead or fatal

    def suspend(self, work: Work) -> None:
        """The running input waits for a nested call: its range's tail goes back, then its place is lent."""
        self._give_back(work.range)
        work.suspended = True
        self.outbox.append(e.InputSuspended(self.id, work.range))
        self._begin()

    def resume(self, work: Work) -> None:
        """It goes on, once it has its place back."""
        if len(self.running()) < self.places:
            work.suspended = False
            self.outbox.append(e.InputResumed(self.id, work.range))

    def _give_back(self, number: int) -> None:
        work = self.works.get(number)
        if work is None:
            self.outbox.append(e.RangeReturned(self.id, number, EVERYTHING))
            return
        work.stop = min(work.stop, work.position + work.begun)
        self.outbox.append(e.RangeReturned(self.id, number, work.stop))
        if work.position >= work.stop:
            del self.works[number]

    def _move(self, work: Work, count: int) -> None:
        work.position += count
        work.suspended = False
        if work.position >= work.stop:
            del self.works[work.range]
        self._begin()

    def _begin(self) -> None:
        for work in self.works.values():
            if not work.begun and len(self.running()) < self.places:
                work.begun = True
