"""The laws of the core, restated from events and commands alone and checked at every step of a simulated run.

It keeps its own books and never asks the plane. A law that is broken raises `Violation` with the last steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec

from ..core import commands as c
from ..core import events as e
from ..spec import AutoscalerSettings, FunctionSpec

STEPS_SHOWN = 30
STATES = ("waiting", "held", "resting", "settled")  # where an input is; it rests until its next attempt
WAITING, HELD, RESTING, SETTLED = range(4)


class Violation(AssertionError):
    """A law was broken."""


@dataclass(slots=True, eq=False)
class Books:
    """What the watch knows of one pool."""

    spec: FunctionSpec
    version: int
    containers: dict[str, Kept] = field(default_factory=dict)  # starting and ready ones
    roomy: set[str] = field(default_factory=set)  # ready containers that could take an input
    waiting: int = 0
    removed: bool = False


@dataclass(slots=True, eq=False)
class Kept:
    """A container."""

    id: str
    books: Books
    spec: FunctionSpec  # as declared when it was started
    version: int
    ready: bool = False
    retired: bool = False
    ended: bool = False  # drained, killed, or it said that it ends
    ranges: dict[int, Span] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Span:
    """A range a container holds."""

    call: str
    next: int
    stop: int
    suspended: bool = False


class Watch:
    """Sees everything that goes in and out of a plane."""

    def __init__(self) -> None:
        self.accepted = self.settled = 0
        self._now = 0.0
        self._steps: deque[tuple[float, e.Event | None, list[c.Command]]] = deque(maxlen=STEPS_SHOWN)
        self._pools: dict[str, Books] = {}
        self._calls: dict[str, tuple[Books, bytearray]] = {}
        self._containers: dict[str, Kept] = {}
        self._unwanted: set[tuple[str, int]] = set()  # inputs that were cancelled alone
        self._touched: dict[Books, None] = {}  # pools that have changed since everything was settled

    def saw(self, event: e.Event | None, commands: list[c.Command], now: float, *, settled: bool = True) -> None:
        """One step of the plane: an event (`None`: it was woken) and its answer; `settled` where that is all of it, and
        no more is to come at the same moment.
        """
        self._now = now
        self._steps.append((now, event, commands))
        outcome = self._event(event)
        if isinstance(event, e.Recovered | e.ContainerRejoined):
            given_up = {(one.container, one.range) for one in commands if isinstance(one, c.CancelRange)}
            for one in event.events if isinstance(event, e.Recovered) else (event,):
                if isinstance(one, e.ContainerRejoined):
                    self._rejoined(one, given_up)
        for command in commands:
            self._command(command, outcome)
        if settled:
            for books in self._touched:
                self._look_for_room(books)
            self._touched.clear()

    def settled_in(self, call: str) -> list[bool]:
        """Of each input of the call that was accepted, whether it is settled."""
        return [place == SETTLED for place in self._calls[call][1]] if call in self._calls else []

    def at_rest(self, deadline: float | None) -> None:
        """No load is left: everything is settled, pools are at their floors, and nothing will happen by itself."""
        if self.accepted != self.settled:
            self._broken(f"{self.accepted - self.settled} inputs were never settled")
        for function, books in self._pools.items():
            present = len(books.containers)
            if present != books.spec.settings.floor:
                self._broken(f"{function} rests with {present} containers, its floor is {books.spec.settings.floor}")
        if deadline is not None:
            self._broken(f"the plane wants to be woken at {deadline} although nothing is left to do")

    def _look_for_room(self, books: Books) -> None:
        """Nothing waits while a ready container has room."""
        if not books.removed and books.waiting and books.roomy:
            self._broken(f"{books.waiting} inputs wait while {min(books.roomy)} is ready and has room")

    # -- events --------------------------------------------------------------------------------------------

    def _event(self, event: e.Event | None) -> tuple[str, int, int]:
        """Keep the books; returns what inputs of which call may be delivered because of it."""
        match event:
            case e.FunctionDeclared(function=function, spec=spec, version=version):
                declared = self._pools.setdefault(function, Books(spec, version))
                declared.spec, declared.version = spec, version
            case e.FunctionRemoved(function=function):
                if books := self._pools.pop(function, None):
                    books.removed = True
            case e.SettingsUpdated(function=function, update=update):
                if books := self._pools.get(function):
                    books.spec = _with_settings(books.spec, books.spec.settings.merge(update))
            case e.InputCancelled(call=call, position=position):
                self._unwanted.add((call, position))
            case e.ContainerReady(container=container):
                if kept := self._containers.get(container):
                    kept.ready = True
                    self._recount(kept)
            case e.ContainerExited(container=container):
                if kept := self._containers.pop(container, None):
                    self._touched[kept.books] = None
                    kept.books.containers.pop(container, None)
                    kept.books.roomy.discard(container)
                    for span in kept.ranges.values():
                        self._release(span, span.next, span.stop)
                        self._rest(span)
            case e.Recovered(events=events):
                self._begin_anew()
                for one in events:
                    if not isinstance(one, e.ContainerRejoined):
                        self._event(one)
            case e.ResultsReceived() | e.FailureReceived() | e.RangeReturned() | e.InputSuspended() | e.InputResumed():
                return self._of_range(event)
        return "", 0, 0

    def _of_range(
        self, event: e.ResultsReceived | e.FailureReceived | e.RangeReturned | e.InputSuspended | e.InputResumed
    ) -> tuple[str, int, int]:
        kept = self._containers.get(event.container)
        span = kept.ranges.get(event.range) if kept else None
        if isinstance(event, e.FailureReceived) and event.fatal and kept:
            self._end(kept)
        if kept is None or span is None:
            return "", 0, 0
        self._touched[kept.books] = None
        outcome = ("", 0, 0)
        match event:
            case e.ResultsReceived(start=start, count=count) if start == span.next and start + count <= span.stop:
                span.next += count
                outcome = (span.call, start, start + count)
            case e.FailureReceived(position=position) if position == span.next:
                span.next += 1
                self._calls[span.call][1][position] = RESTING
            case e.RangeReturned(stop=stop):
                stop = max(stop, span.next)
                self._release(span, stop, span.stop)
                span.stop = min(stop, span.stop)
            case e.InputSuspended() | e.InputResumed():
                span.suspended = isinstance(event, e.InputSuspended)
        if span.next >= span.stop:
            del kept.ranges[event.range]
        self._recount(kept)
        return outcome

    def _release(self, span: Span, start: int, stop: int) -> None:
        books, places = self._calls[span.call]
        for position in range(start, stop):
            places[position] = WAITING
        books.waiting += max(0, stop - start)

    def _rest(self, span: Span) -> None:
        """The container died under the range's next input, which may have to wait before it is tried again."""
        books, places = self._calls[span.call]
        places[span.next] = RESTING
        books.waiting -= 1

    def _begin_anew(self) -> None:
        """Another server: what is not settled waits, unless a container comes back with it."""
        self._containers.clear()
        for books in self._pools.values():
            books.containers.clear()
            books.roomy.clear()
            books.waiting = 0
        for books, places in self._calls.values():
            for position, place in enumerate(places):
                if place != SETTLED:
                    places[position] = WAITING
                    books.waiting += 1

    def _rejoined(self, event: e.ContainerRejoined, given_up: set[tuple[str, int]]) -> None:
        books = self._pools.get(event.function)
        if books is None:
            return  # it is to be killed
        assert event.spec is not None
        kept = Kept(event.container, books, event.spec, event.version, ready=True)
        self._containers[event.container] = books.containers[event.container] = kept
        for one in event.ranges:
            if (event.container, one.range) in given_up:
                continue
            places = self._calls[one.call][1]
            first = next((place for place in range(one.next, one.stop) if places[place] != SETTLED), one.stop)
            for position in range(first, one.stop):
                if places[position] not in (WAITING, RESTING):
                    self._broken(f"input {position} of {one.call} is {STATES[places[position]]}, and {one} keeps it")
                books.waiting -= places[position] == WAITING
                places[position] = HELD
            kept.ranges[one.range] = Span(one.call, first, one.stop, one.suspended)
        self._recount(kept)

    # -- commands ------------------------------------------------------------------------------------------

    def _command(self, command: c.Command, outcome: tuple[str, int, int]) -> None:
        match command:
            case c.Grant():
                self._granted(command)
            case c.Deliver(call=call, start=start, count=count):
                if call != outcome[0] or start < outcome[1] or start + count > outcome[2]:
                    self._broken(f"{command} does not follow from results that just came")
                self._settle(call, start, count, (HELD,))
            case c.Fail(call=call, start=start, count=count):
                self._settle(call, start, count, (WAITING, RESTING))
            case c.Accept(call=call, first=first, count=count):
                self._accepted(call, first, count)
            case c.Start(container=container, function=function):
                self._started(container, function)
            case c.Drain(container=container):
                self._drained(command)
            case c.Retire(container=container):
                kept = self._known(container, command)
                if not kept.ranges or kept.retired or kept.version == kept.books.version:
                    self._broken(f"{command} of a container that is not outdated, or idle")
                self._leave(kept)
                kept.retired = True
            case c.Kill(container=container):
                if container in self._containers or not isinstance(
                    self._steps[-1][1], e.ContainerRejoined | e.Recovered
                ):
                    self._end(self._known(container, command))

    def _drained(self, command: c.Drain) -> None:
        kept = self._known(command.container, command)
        if not kept.ready or kept.ended or (kept.ranges and not kept.books.removed):
            self._broken(f"{command} of a container that is not idle")
        self._end(kept)
        books = kept.books
        is_free = books.removed or kept.spec.single_use or kept.retired or kept.version != books.version
        if not is_free and len(books.containers) < books.spec.settings.floor:
            self._broken(f"{command} goes below min_containers={books.spec.settings.floor}")

    def _accepted(self, call: str, first: int, count: int) -> None:
        event = self._steps[-1][1]
        assert isinstance(event, e.InputsSubmitted)
        pool = self._pools.get(event.function)
        if pool is None:
            if not event.accepted:
                self._broken(f"{call} was accepted, and there is no {event.function}")
            pool = Books(FunctionSpec(), 0, removed=True)
        books, places = self._calls.setdefault(call, (pool, bytearray()))
        if first != len(places):
            self._broken(f"{call} was accepted from {first} on, but has {len(places)} inputs")
        places.extend(bytes((WAITING,)) * count)
        books.waiting += count
        self.accepted += count
        self._touched[books] = None

    def _granted(self, command: c.Grant) -> None:
        kept = self._known(command.container, command)
        if not kept.ready or kept.retired or kept.ended:
            self._broken(f"{command} to a container that is not ready")
        books, places = self._calls[command.call]
        if books is not kept.books:
            self._broken(f"{command} to a container of another pool")
        for position in range(command.start, command.stop):
            state = places[position]
            if state not in (WAITING, RESTING):
                self._broken(f"input {position} of {command} is {STATES[state]}, so it can't be granted")
            if (command.call, position) in self._unwanted:
                self._broken(f"{command}: input {position} was cancelled")
            books.waiting -= state == WAITING
            places[position] = HELD
        most = kept.spec.concurrency.max_inputs
        active = sum(not span.suspended for span in kept.ranges.values())
        if most > 1 and active >= most:
            self._broken(f"{command} exceeds max_inputs={most}")
        if kept.spec.single_use and kept.ranges:
            self._broken(f"{command} to a container of a single use")
        kept.ranges[command.range] = Span(command.call, command.start, command.stop)
        self._touched[books] = None
        self._recount(kept)

    def _started(self, container: str, function: str) -> None:
        if container in self._containers:
            self._broken(f"{container} was started twice")
        books = self._pools[function]
        kept = Kept(container, books, books.spec, books.version)
        self._containers[container] = books.containers[container] = kept
        ceiling = books.spec.settings.ceiling
        present = len(books.containers)
        if ceiling is not None and present > ceiling:
            self._broken(f"{container} is number {present}, and max_containers={ceiling}")

    def _settle(self, call: str, start: int, count: int, allowed: tuple[int, ...]) -> None:
        books, places = self._calls[call]
        for position in range(start, start + count):
            state = places[position]
            if state not in allowed:
                self._broken(f"input {position} of {call} is settled while it is {STATES[state]}")
            books.waiting -= state == WAITING
            places[position] = SETTLED
        self.settled += count
        self._touched[books] = None

    # -- containers ----------------------------------------------------------------------------------------

    def _known(self, container: str, command: c.Command) -> Kept:
        if container not in self._containers:
            self._broken(f"{command}: there is no such container")
        return self._containers[container]

    def _end(self, kept: Kept) -> None:
        kept.ended = True
        self._leave(kept)

    @staticmethod
    def _leave(kept: Kept) -> None:
        """It does not count any more."""
        kept.books.containers.pop(kept.id, None)
        kept.books.roomy.discard(kept.id)

    def _recount(self, kept: Kept) -> None:
        books = kept.books
        active = sum(not span.suspended for span in kept.ranges.values())
        places = 1 if kept.spec.single_use else kept.spec.concurrency.max_inputs
        taken = len(kept.ranges) if kept.spec.single_use else active
        if kept.ready and not (kept.retired or kept.ended) and taken < places:
            books.roomy.add(kept.id)
        else:
            books.roomy.discard(kept.id)
        self._touched[books] = None

    # -- verdicts ------------------------------------------------------------------------------------------

    def last_steps(self) -> str:
        """What happened last, for people."""
        lines = []
        for moment, event, commands in self._steps:
            lines.append(f"  {moment:.6f} {event or 'woken'}")
            lines += [f"      → {command}" for command in commands]
        return "\n".join(lines)

    def _broken(self, law: str) -> NoReturn:
        raise Violation(f"at {self._now:.6f}: {law}\nthe last steps:\n{self.last_steps()}")


def _with_settings(spec: FunctionSpec, settings: AutoscalerSettings) -> FunctionSpec:
    return msgspec.structs.replace(spec, settings=settings)
