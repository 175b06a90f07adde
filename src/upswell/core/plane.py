"""The root of the core: events in, commands out.

`handle(event, now)` and `wake(now)` return what the world should do; `deadline()` is the moment of the next `wake`.
The server takes an event in parts, so that nobody waits for what can be decided later: `answer` returns what somebody
waits for, `follow` what else is due at once (`take` is both), and the next `wake` the rest, such as how many containers
there should be: at once where an input waits, else a moment later, for all events until then. Time never runs backwards
between calls. Nothing here reads a clock, does I/O or draws a random number, so the same history always gives the same
commands, in the server, in the simulator and under the property tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from ..spec import AutoscalerSettings, Limits, label_of, no_function
from . import events as e
from .agenda import NEVER, Agenda
from .autoscaler import ALL_RULES, Policy
from .commands import Command, FinishCall, Kill, Refuse, Start
from .model import Call, Container, State
from .placement import Node
from .pool import Pool
from .queue import Queue
from .snapshot import SavedCall

AT_LEISURE_SECONDS = 0.002  # so long `settle` may wait after inputs have come or gone, where nothing is pressing


class Statistics(msgspec.Struct, frozen=True):
    """A function's state at a glance. `pending` inputs are not started; `backlog` counts delayed attempts too."""

    backlog: int
    pending: int
    running: int
    headroom: int  # inputs that the ready containers could take at once
    succeeded: int
    failed: int
    starting: int
    ready: int
    settings: AutoscalerSettings
    decision: str
    wanted: int = 0  # containers, by that decision
    rule: str = ""  # which decided

    @property
    def containers(self) -> int:
        """Starting and ready ones, not draining ones."""
        return self.starting + self.ready


class ContainerStatus(msgspec.Struct, frozen=True):
    """A container's state at a glance."""

    function: str
    state: State
    started_at: float
    running: int  # inputs


class CallStatus(msgspec.Struct, frozen=True):
    """How far a call that has not ended is."""

    submitted: int
    settled: int
    failed: int  # of those; since the plane knows the call
    is_whole: bool  # no more inputs come
    cancelled: bool


class Plane:
    """All pools, and where calls and containers belong."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        cores: float = 1.0,  # of one node; see `NodesChanged`
        memory_available: int = 1 << 30,
        policy: Policy = ALL_RULES,
        first_id: int = 1,  # containers and ranges are numbered from here
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._node = Node(cores, memory_available, memory_available)
        self._pools: dict[str, Pool] = {}
        self._short: dict[Pool, None] = {}  # pools whose next container the node has no room for
        self._calls: dict[str, tuple[Pool, Call]] = {}
        self._containers: dict[str, Pool] = {}  # starting, ready and ending
        self._owned: dict[str, dict[str, None]] = {}  # connection → its calls
        self._agenda: Agenda[Pool] = Agenda()  # when a pool wants to look again without an event
        self._changed: dict[Pool, None] = {}  # pools that are to be reconciled by `settle` ...
        self._settles_at = NEVER  # ... which is due then
        self._recovers = False  # while something is recovered nothing is granted
        self._rest: Callable[[float, list[Command]], None] | None = None  # of the last event, for `follow`
        self._new_id = itertools.count(first_id).__next__

    # -- events ------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[Command]:
        """What to do because `event` happened."""
        return self.take(event, now) + self.settle(now)

    def take(self, event: e.Event, now: float) -> list[Command]:
        """The part of it that can't wait; the rest is for `wake`. The same as `answer` and then `follow`."""
        return self.answer(event, now) + self.follow(now)

    def answer(self, event: e.Event, now: float) -> list[Command]:
        """What somebody waits for: outputs for their caller, inputs for a container. `follow` must come next."""
        assert self._rest is None, "`follow` comes first"
        out: list[Command] = []
        self._handle(event, now, out)
        self._note(out)
        return out

    def follow(self, now: float) -> list[Command]:
        """What else is due at once because of that event: the books are kept, and places that are free are filled."""
        out: list[Command] = []
        if (rest := self._rest) is not None:
            self._rest = None
            rest(now, out)
            self._note(out)
        return out

    def settle(self, now: float) -> list[Command]:
        """The rest of what follows from the events since the last time: who starts and ends, and what moves."""
        out: list[Command] = []
        changed, self._changed, self._settles_at = self._changed, {}, NEVER
        for pool in changed:
            self._reconcile(pool, now, out)
        self._note(out)
        return out

    def _handle(self, event: e.Event, now: float, out: list[Command]) -> None:
        """The most frequent events: those about inputs and containers."""
        match event:
            case e.InputsSubmitted():
                self._submitted(event, now, out)
            case e.ResultsReceived():
                if found := self._container(event.container):
                    self._results(*found, event, now, out)
            case e.ChunksReceived():
                if found := self._container(event.container):
                    pool, container = found
                    pool.chunks(container, event, out)
            case e.ContainerExited():
                self._exited(event, now, out)
            case e.ContainerEvent():
                if found := self._container(event.container):
                    self._of_container(*found, event, now, out)
                    self._grant(found[0], now, out)
            case e.UsageSampled():
                if sampled := self._pools.get(event.function):
                    sampled.sampled(event, now)
                    self._grant(sampled, now, out)
            case _:
                self._administer(event, now, out)

    def _of_container(
        self, pool: Pool, container: Container, event: e.ContainerEvent, now: float, out: list[Command]
    ) -> None:
        match event:
            case e.FailureReceived():
                pool.failure(container, event, now, out)
            case e.RangeReturned(range=number, stop=stop):
                pool.returned(container, number, stop, now, out)
            case e.InputSuspended(range=number):
                pool.suspended(container, number, True, now, out)
            case e.InputResumed(range=number):
                pool.suspended(container, number, False, now, out)
            case e.ContainerReady():
                pool.container_ready(container, now)
            case e.StartFailed(message=message):
                pool.start_failed(container, message, out)
            case e.ContainerStopped():
                pool.stop(container, out)

    def _administer(self, event: e.Event, now: float, out: list[Command]) -> None:
        """The rarer events: those about functions, owners, whole calls and nodes."""
        match event:
            case e.FunctionDeclared(function=function):
                if function not in self._pools:
                    self._pools[function] = Pool(function, self._limits, self._node, self._policy, self._new_id)
                self._pools[function].declare(event, now, out)
                self._grant(self._pools[function], now, out)
            case e.FunctionRemoved(function=function, reason=reason):
                if pool := self._pools.pop(function, None):
                    pool.remove(reason, now, out)
                    self._grant(pool, now, out)
            case e.SettingsUpdated(function=function, update=update):
                if pool := self._pools.get(function):
                    pool.scaling.apply(update)
                    self._grant(pool, now, out)
            case e.InputsEnded(call=name, total=total):
                if known := self._calls.get(name):
                    pool, call = known
                    pool.queue.end(call, total, out)
                    self._grant(pool, now, out)
            case e.CallCancelled(call=name, running=running, terminate=terminate):
                self._cancel(name, running, terminate, now, out)
            case e.InputCancelled(call=name, position=position, terminate=terminate):
                if known := self._calls.get(name):
                    pool, call = known
                    pool.cancel_input(call, position, terminate, out)
                    self._grant(pool, now, out)
            case e.CallRestored(saved=saved):
                self._restored(saved, now, out)
            case e.ContainerRejoined():
                self._rejoined(event, now, out)
            case e.Recovered(events=events):
                self._recovers = True
                for one in events:
                    self._administer(one, now, out)
                self._recovers = False
                for changed in self._changed:
                    changed.grant(now, out)
            case e.OwnerLeft(owner=owner):
                for name in list(self._owned.pop(owner, ())):
                    self._cancel(name, True, False, now, out)
            case e.NodesChanged(capacity=capacity):
                self._node.resized(capacity)
                self._grant_short(now, out)

    def _submitted(self, event: e.InputsSubmitted, now: float, out: list[Command]) -> None:
        pool = self._pools.get(event.function)
        if pool is None and event.accepted:
            queue = Queue(event.function, self._limits)
            if (orphan := queue.admit(event, 0, now, out)) is not None:
                _fail_orphan(queue, orphan, out)
            return
        if pool is None:
            out.append(Refuse(event.call, event.first, event.count, no_function(event.function), missing=True))
            return
        if not event.accepted and not self._node.holds(pool.scaling.spec.resources):
            reason = f"{pool.label} asks for {pool.scaling.spec.resources}, and {self._node.held()}: ask for less"
            out.append(Refuse(event.call, event.first, event.count, reason, missing=True))
            return
        known = self._calls.get(event.call)
        if known is not None and known[0] is not pool:
            reason = f"the call {event.call} is one of {known[0].label}, not of {pool.label}"
            out.append(Refuse(event.call, event.first, event.count, reason, missing=True))
            return
        call = pool.queue.admit(event, pool.not_started, now, out)
        pool.grant(now, out)

        def rest(now: float, out: list[Command]) -> None:
            if call is not None and event.first == 0:
                pool.estimates.learn_call(now)
                self._know(pool, call)
                pool.make_way(call, out)
            self._settle_soon(pool, now)

        self._rest = rest

    def _results(
        self, pool: Pool, container: Container, event: e.ResultsReceived, now: float, out: list[Command]
    ) -> None:
        held = pool.results(container, event, now, out)

        def rest(now: float, out: list[Command]) -> None:
            if held is not None:
                pool.account(container, held, event, now, out)
            pool.grant(now, out)
            self._settle_soon(pool, now)

        self._rest = rest

    def _restored(self, saved: SavedCall, now: float, out: list[Command]) -> None:
        pool = self._pools.get(saved.function)
        if pool is None:
            queue = Queue(saved.function, self._limits)
            _fail_orphan(queue, queue.restore(saved, out), out)
            return
        call = pool.queue.restore(saved, out)
        self._know(pool, call)
        self._grant(pool, now, out)

    def _rejoined(self, event: e.ContainerRejoined, now: float, out: list[Command]) -> None:
        pool = self._containers.get(event.container) or self._pools.get(event.function)
        if pool is None:
            out.append(Kill(event.container, f"there is no function {label_of(event.function)} any more"))
            return
        self._containers[event.container] = pool
        pool.rejoined(event, now, out)
        self._grant(pool, now, out)

    def _know(self, pool: Pool, call: Call) -> None:
        self._calls[call.id] = (pool, call)
        if call.owner:
            self._owned.setdefault(call.owner, {})[call.id] = None

    def _exited(self, event: e.ContainerExited, now: float, out: list[Command]) -> None:
        if found := self._container(event.container):
            pool, container = found
            del self._containers[event.container]
            pool.container_exited(container, event, now, out)
            self._grant(pool, now, out)
            self._grant_short(now, out, pool)

    def _grant_short(self, now: float, out: list[Command], granted: Pool | None = None) -> None:
        """There may be room again for pools that lacked it, of which `granted` has looked already.

        One that still lacks it goes to the end of the line.
        """
        for pool in list(self._short):
            if pool is not granted:
                self._grant(pool, now, out)

    def _cancel(self, name: str, running: bool, terminate: bool, now: float, out: list[Command]) -> None:
        if known := self._calls.get(name):
            pool, call = known
            pool.cancel(call, running, terminate, out)
            self._grant(pool, now, out)

    def _container(self, name: str) -> tuple[Pool, Container] | None:
        pool = self._containers.get(name)
        return None if pool is None else (pool, pool.containers.by_id[name])

    # -- time --------------------------------------------------------------------------------------

    def wake(self, now: float) -> list[Command]:
        """What to do because time has passed, and the rest of what follows from events that were only taken."""
        out = self.settle(now) if self._settles_at <= now else []
        while (pool := self._agenda.pop_due(now)) is not None:
            pool.grant(now, out)
            self._reconcile(pool, now, out)
        self._note(out)
        return out

    def deadline(self) -> float | None:
        """When `wake` wants to be called, or `None`: nothing happens by itself."""
        moment = self._agenda.next_at()
        if self._settles_at < moment:
            moment = self._settles_at
        return None if moment == NEVER else moment

    def _grant(self, pool: Pool, now: float, out: list[Command]) -> None:
        """The pool has changed: who has room gets what waits, and the rest is for `settle`."""
        self._changed[pool] = None
        if not self._recovers:
            pool.grant(now, out)
        self._settles_at = now

    def _settle_soon(self, pool: Pool, now: float) -> None:
        """Inputs of the pool have come or gone: the rest is for `settle`, at once only if something is pressing."""
        self._changed[pool] = None
        if pool.is_pressing():
            self._settles_at = now
        elif self._settles_at == NEVER:
            self._settles_at = now + AT_LEISURE_SECONDS

    def _reconcile(self, pool: Pool, now: float, out: list[Command]) -> None:
        self._agenda.put(pool, pool.reconcile(now, out))
        self._short.pop(pool, None)
        if pool.is_short_of_room():
            self._short[pool] = None

    def _note(self, commands: list[Command]) -> None:
        """Note what became of calls and containers."""
        for command in commands:
            if type(command) is Start:  # faster than `isinstance`, of all that are passed over
                self._containers[command.container] = self._pools[command.function]
            elif type(command) is FinishCall:
                self._forget(command.call)

    def _forget(self, name: str) -> None:
        known = self._calls.pop(name, None)
        if known and (owned := self._owned.get(known[1].owner)) is not None:
            owned.pop(name, None)
            if not owned:
                del self._owned[known[1].owner]

    # -- read only ---------------------------------------------------------------------------------

    def statistics(self, function: str) -> Statistics | None:
        """What the function's pool holds, or `None` where there is no such function."""
        pool = self._pools.get(function)
        if pool is None:
            return None
        containers = pool.containers
        places = containers.ready * pool.scaling.spec.concurrency.max_inputs * pool.scaling.spec.concurrency.place
        return Statistics(
            backlog=pool.not_started,
            pending=pool.queue.waiting + containers.unstarted,
            running=containers.running + containers.retiring,
            headroom=max(0, places - containers.running),
            succeeded=pool.queue.succeeded,
            failed=pool.queue.failed,
            starting=containers.starting,
            ready=containers.ready,
            settings=pool.scaling.settings,
            decision=pool.scaling.decision.words,
            wanted=pool.scaling.decision.containers,
            rule=pool.scaling.decision.rule,
        )

    def room_for_spawned(self, function: str) -> int:
        """How many spawned inputs the function may have beside those that it has; 0 where there is no such function."""
        pool = self._pools.get(function)
        return 0 if pool is None else self._limits.spawned_pending - pool.queue.unsettled["spawned"]

    def container(self, name: str) -> ContainerStatus | None:
        """How the container is, or `None` where it is gone."""
        if (found := self._container(name)) is None:
            return None
        pool, container = found
        return ContainerStatus(pool.function, container.state, container.started_at, container.running)

    def call(self, name: str) -> CallStatus | None:
        """How the call is, or `None` where it has ended or never was."""
        if (known := self._calls.get(name)) is None:
            return None
        call = known[1]
        settled = call.submitted - call.unsettled
        return CallStatus(call.submitted, settled, call.failed, call.total is not None, bool(call.cancelled))


def _fail_orphan(queue: Queue, call: Call, out: list[Command]) -> None:
    """The call was accepted, and nobody runs it: its function is gone."""
    queue.fail_waiting(call, "cancelled", f"there is no function {label_of(call.function)} any more", out)
    queue.end(call, call.submitted, out)
