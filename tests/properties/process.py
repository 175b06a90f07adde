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
    """A range as its container sees it; `position` runs once `begun`, or is the next to. A batch runs as a whole."""

    range: int
    call: str
    position: int
    stop: int
    batch: int = 0
    chunks: int = 0  # that its generator has yielded
    begun: bool = False
    suspended: bool = False

    @property
    def place(self) -> int:
        """What takes a place: the range, or its batch."""
        return self.batch or self.range

    @property
    def unstarted(self) -> int:
        """Inputs that have not begun."""
        return 0 if self.batch and self.begun else self.stop - self.position - self.begun


@dataclass(eq=False)
class Process:
    """One container. Messages leave in order; its exit is heard after all of them."""

    id: str
    function: str
    places: int
    inbox: deque[c.Command] = field(default_factory=deque)
    outbox: deque[e.Event] = field(default_factory=deque)
    works: dict[int, Work] = field(default_factory=dict)
    done: dict[int, Work] = field(default_factory=dict)  # ranges that have ended
    gathering: int = 0  # the batch of which more ranges are still to come
    draining: bool = False
    dead: bool = False

    def read(self) -> None:
        """Take note of the oldest command."""
        match self.inbox.popleft():
            case c.Grant(range=number, call=call, start=start, stop=stop, batch=batch, left=left):
                self.works[number] = Work(number, call, start, stop, batch)
                self.gathering = batch if left else 0
            case c.TakeBack(range=number):
                self._give_back(number)
            case c.CancelRange(range=number):
                self._cancel(number)
            case c.Drain():
                self.draining = True
                for number in list(self.works):  # there are any only where the function is removed
                    self._cancel(number)
        self._begin()

    def running(self) -> list[Work]:
        """The ranges whose input takes a place, or whose batch does."""
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
        """The running input fails, or a whole range of a batch; perhaps the process goes with it, and all the batch."""
        for mate in self._mates(work) if fatal and work.batch else [work]:
            whole = work.batch and kind != "unreadable"
            count = mate.stop - mate.position if whole else 1
            for position in range(mate.position, mate.position + count):
                self.outbox.append(e.FailureReceived(self.id, mate.range, position, 0.004, 0.001, kind, fatal))
            self._move(mate, count)
        self.dead = self.dead or fatal

    def give(self, work: Work, count: int) -> None:
        """The running generator yields so much more."""
        self.outbox.append(e.ChunksReceived(self.id, work.range, work.chunks, count))
        work.chunks += count

    def suspend(self, work: Work) -> None:
        """The running input or batch waits for a nested call: its range's tail goes back, then its place is lent."""
        for mate in self._mates(work):
            self._give_back(mate.range)
            mate.suspended = True
            self.outbox.append(e.InputSuspended(self.id, mate.range))
        self._begin()

    def resume(self, work: Work) -> None:
        """It goes on, once it has its place back."""
        if self._places_taken() < self.places:
            for mate in self._mates(work):
                mate.suspended = False
                self.outbox.append(e.InputResumed(self.id, mate.range))

    def _give_back(self, number: int) -> None:
        work = self.works.get(number)
        if work is None:
            self.outbox.append(e.RangeReturned(self.id, number, EVERYTHING))
            return
        if not work.batch:
            work.stop = min(work.stop, work.position + work.begun)
        self.outbox.append(e.RangeReturned(self.id, number, work.stop))
        if work.position >= work.stop:
            del self.works[number]

    def _cancel(self, number: int) -> None:
        """Nobody wants the range: what has begun of it is ended, and the rest of its batch goes on."""
        work = self.works.get(number)
        if work is None or not work.batch:
            self._give_back(number)
        if work is not None and number in self.works and (work.begun or work.batch):
            self.fail(work, "cancelled", fatal=False)

    def _mates(self, work: Work) -> list[Work]:
        """The ranges it runs together with, itself included; those that have ended are not there any more."""
        return [mate for mate in self.works.values() if mate.place == work.place]

    def _places_taken(self) -> int:
        return len({work.place for work in self.running()})

    def _move(self, work: Work, count: int) -> None:
        work.position += count
        work.suspended = False
        if work.position >= work.stop:
            self.done[work.range] = self.works.pop(work.range)
        self._begin()

    def _begin(self) -> None:
        for work in self.works.values():
            if not work.begun and work.place != self.gathering and self._places_taken() < self.places:
                for mate in self._mates(work):
                    mate.begun = True
