"""A world whose server dies, and the next one is told what was kept. Containers that live re-join with what they hold.

It is judged by the same laws: what was accepted is settled once, whoever does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.core.snapshot import SavedCall, SavedSegment, unsettled_spans
from upswell.spec import SettingsUpdate

from .accounts import Account, Held, Known
from .process import Process
from .world import CANCELLED, CORES, LIMITS, World


class Lives(World):
    """One world, and one server after another."""

    def __init__(self) -> None:
        self.first_id = 1
        self.away: dict[str, Known] = {}  # containers that live, and have not come back yet
        self._highest = 0  # number of a container, range or batch
        self._remembered: dict[tuple[str, int], tuple[int, int]] = {}  # call and position → failures and losses
        self._not_its_own: set[int] = set()  # ranges that a container was told to cancel when it came back
        super().__init__()

    def _new_plane(self) -> Plane:
        return Plane(LIMITS, cores=CORES, memory_available=1 << 40, first_id=self.first_id)

    # -- the server --------------------------------------------------------------------------------------------

    def restart(self, survivors: Iterable[str], late: Iterable[str], *, resending: bool) -> None:
        """The server dies and the next one begins; containers that neither survive nor come late are gone."""
        survivors, late = set(survivors), set(late)
        before = {**self.away, **self.containers}
        self.first_id = self._highest + 1
        self.plane = self._new_plane()
        self.history.clear()
        self.samples.clear()
        self.containers.clear()
        self.away = {}
        for pool in self.functions.values():
            pool.containers.clear()
            pool.failed_starts = 0
        for name, known in before.items():
            for held in known.held.values():
                self._release(held, held.next, held.stop)
            known.held.clear()
            if name in survivors | late and may_rejoin(known):
                known.state = "ready"
                lose_connection(known.process, resending)
                self.away[name] = known
        for call in self.calls.values():
            self._keep(call, [known.process for name, known in self.away.items() if name in survivors])
        rejoining = [self._back(known) for name, known in self.away.items() if name in survivors]
        calls = [e.CallRestored(saved) for call in self.calls.values() if (saved := self._saved(call))]
        functions: list[e.FunctionDeclared | e.SettingsUpdated] = []
        for pool in self.functions.values():
            if pool.alive:
                functions.append(e.FunctionDeclared(pool.name, pool.spec, pool.ephemeral, pool.version))
                functions.append(
                    e.SettingsUpdated(pool.name, SettingsUpdate.of(**msgspec.structs.asdict(pool.settings)))
                )
        self._hear(e.Recovered((*functions, *calls, *rejoining)), rejoining)

    def rejoin(self, known: Known) -> None:
        """A container comes back late."""
        event = self._back(known)
        self._hear(event, [event])

    def reconnect(self, known: Known, *, resending: bool) -> None:
        """A container loses its connection, and makes it anew to the server it was with."""
        lose_connection(known.process, resending)
        before = dict(known.held)
        for held in before.values():
            self._release(held, held.next, held.stop)
        known.held.clear()
        self.away[known.process.id] = known
        if known.state == "starting":
            known.state, known.pool.failed_starts = "ready", 0
        event = self._back(known)
        self._hear(event, [event], before)

    def _hear(
        self, event: e.Event, rejoining: list[e.ContainerRejoined], before: Mapping[int, Held] = MappingProxyType({})
    ) -> None:
        self._event = event
        answer = self.plane.take(event, self.now)
        given_up = {(one.container, one.range) for one in answer if isinstance(one, c.CancelRange)}
        for one in rejoining:
            self._note_rejoined(one, before, given_up, any(isinstance(kill, c.Kill) for kill in answer))
        self._obey(answer)
        self.catch_up()

    def _perform(self, command: c.Command) -> None:
        match command:
            case c.Start(container=name):
                self._highest = max(self._highest, int(name.removeprefix("co-")))
                assert self._highest >= self.first_id, "its number is of an earlier life"
            case c.Grant(range=number, batch=batch):
                self._highest = max(self._highest, number, batch)
            case c.RememberAttempts(call=name, position=position, failures=failures, losses=losses):
                self._remembered[name, position] = failures, losses
            case c.CancelRange(container=name, range=number) if number in self._not_its_own:
                self.containers[name].process.inbox.append(command)
                return
            case c.Kill(container=name) if name not in self.containers:
                return
        super()._perform(command)

    # -- calls -----------------------------------------------------------------------------------------------------

    def _keep(self, call: Account, survivors: list[Process]) -> None:
        """Delays are forgotten, and attempts of calls that are not on disk. A stream that is cut off has failed."""
        call.invited = bool(call.offer)
        for position, one in enumerate(call.inputs):
            one.not_before = one.since = 0.0
            one.failures, one.losses = self._remembered.get((call.id, position), (0, 0))
            one.blows, one.allowed = one.losses, max(one.allowed, one.failures)  # it was told that it is tried again
            streaming = any(work.call == call.id for process in survivors for work in process.works.values())
            if one.yielded and not streaming and not one.settled:
                one.settled = call.finished = True  # its client says so
        if call.cancelled:
            call.cancelled = CANCELLED

    def _saved(self, call: Account) -> SavedCall | None:
        if call.finished or not call.inputs:
            return None
        segments = []
        for first, count in sorted(call.segments.items()):
            settled = [(place, 1) for place in range(first, first + count) if call.inputs[place].settled]
            if spans := unsettled_spans(first, count, settled):
                segments.append(SavedSegment(first, count, spans))
            else:
                del call.segments[first]
        attempts = tuple(
            (position, one.failures, one.blows)
            for position, one in enumerate(call.inputs)
            if not one.settled and one.failures + one.blows
        )
        kind: Any = call.kind
        return SavedCall(
            call.id,
            call.pool.name,
            kind,
            submitted=len(call.inputs),
            total=len(call.inputs) if call.ended else None,
            cancelled=bool(call.cancelled),
            segments=tuple(segments),
            attempts=attempts,
            owner=call.owner,
            cancelled_inputs=tuple(
                position for position, one in enumerate(call.inputs) if one.unwanted and not one.settled
            ),
        )

    # -- containers ------------------------------------------------------------------------------------------------

    def _back(self, known: Known) -> e.ContainerRejoined:
        ranges = []
        for number, call, start, stop, batch, chunks, suspended in holdings(known.process):
            first = max((first for first in self.calls[call].segments if first <= start), default=0)
            ranges.append(e.HeldRange(number, call, first, start, stop, batch, chunks, suspended))
        return e.ContainerRejoined(known.process.id, known.pool.name, known.version, tuple(ranges), known.spec)

    def _note_rejoined(
        self, event: e.ContainerRejoined, before: Mapping[int, Held], given_up: set[tuple[str, int]], killed: bool
    ) -> None:
        known = self.away.pop(event.container)
        pool = self.functions[event.function]
        if not pool.alive:
            assert killed, f"{event} of a function that is gone"
            known.process.dead = True
            return
        known.pool, known.heard_at, known.idle_since = pool, self.now, self.now
        self.containers[event.container] = pool.containers[event.container] = known
        for one in event.ranges:
            call = self.calls[one.call]
            if (held := before.get(one.range)) is not None and one.chunks <= held.chunks:
                held.next, held.stop, held.suspended = max(held.next, one.next), min(held.stop, one.stop), one.suspended
                for kept in call.inputs[held.next : held.stop]:
                    kept.holder = event.container
                if held.next < held.stop:
                    known.held[one.range] = held
                continue
            inputs = call.inputs[one.next : one.stop]
            # Nobody has had it since, so what is cancelled of it ends as the call is restored.
            over = [kept.settled or kept.unwanted for kept in inputs]
            settled = over.index(False) if False in over else len(inputs)
            left = inputs[settled:]
            gone = call.finished or call.cancelled or not left or any(over[settled:]) or any(one.holder for one in left)
            cancelled = (event.container, one.range) in given_up
            assert cancelled or not gone, f"{one} of {event.container} is not its own any more"
            tried = held is not None or any(kept.failures + kept.blows for kept in left)  # or its chunks were lost
            assert not cancelled or gone or tried, f"{one}: who else has it?"
            if cancelled:
                self._not_its_own.add(one.range)
                continue
            place = one.batch or one.range
            first = one.next + settled
            held = Held(call, first, first, one.stop, place, one.batch, one.chunks, one.suspended)
            known.held[one.range] = held
            for kept in left:
                kept.holder = event.container
                kept.yielded = kept.yielded or one.chunks > 0


def may_rejoin(known: Known) -> bool:
    """Whether it lives, is ready, and was not told to exit."""
    is_ready = known.state != "starting" or any(isinstance(said, e.ContainerReady) for said in known.process.outbox)
    return known.state != "ending" and is_ready and not known.process.dead and not known.process.draining


def lose_connection(process: Process, resending: bool) -> None:
    """What was on its way to the container is lost, and a batch that will not be complete is dropped; of what it said,
    it says results and chunks again, or nothing.
    """
    process.inbox.clear()
    process.works = {number: work for number, work in process.works.items() if work.place != process.gathering}
    process.gathering = 0
    again = [
        said for said in process.outbox if isinstance(said, e.ResultsReceived | e.FailureReceived | e.ChunksReceived)
    ]
    process.outbox.clear()
    process.outbox.extend(again if resending else [])


def holdings(process: Process) -> list[tuple[int, str, int, int, int, int, bool]]:
    """Range, call, next, stop, batch, chunks and whether it is suspended, of all whose results it has not sent."""
    unsent: dict[int, int] = {}
    chunks: dict[int, int] = {}
    for said in process.outbox:
        if isinstance(said, e.ResultsReceived):
            unsent.setdefault(said.range, said.start)
        elif isinstance(said, e.FailureReceived):
            unsent.setdefault(said.range, said.position)
        elif isinstance(said, e.ChunksReceived):
            chunks.setdefault(said.range, said.first)
    found = []
    for work in [*process.done.values(), *process.works.values()]:
        start = unsent.get(work.range, work.position)
        if start < work.stop:
            more = chunks.get(work.range, work.chunks)
            found.append((work.range, work.call, start, work.stop, work.batch, more, work.suspended))
    return found
