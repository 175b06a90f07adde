"""A stand-in for the plane that scales its pools by a rival's policy. Everything but the number of containers is ours:
late binding from one queue, the fullest container below target first, the longest idle stopped first, never a busy one.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..core import commands as c
from ..core import events as e
from ..spec import FunctionSpec
from .rivals import Policy, Seen

MOST_CONTAINERS = 2000


@dataclass(slots=True, eq=False)
class Replica:
    """A container, and the ranges of one input each that it holds."""

    id: str
    ready: bool = False
    idle_since: float = 0.0
    held: dict[int, str] = field(default_factory=dict)  # range → call


@dataclass(slots=True, eq=False)
class RivalPool:
    """One function's queue and containers."""

    function: str
    spec: FunctionSpec
    policy: Policy
    seen: Seen
    queue: deque[tuple[str, int, int, int]] = field(default_factory=deque)  # call, first, count of segment, position
    replicas: dict[str, Replica] = field(default_factory=dict)
    places: dict[int, dict[str, Replica]] = field(default_factory=dict)  # ready ones, by how much they hold
    desired: int = 0
    tick_at: float = 0.0
    active: bool = False  # it had containers or a queue after the last event; ticks of others are not simulated
    seen_at: float = 0.0

    def ticks(self, now: float) -> bool:
        """Whether the policy is to be asked now; ticks are at the multiples of their distance."""
        tick = self.policy.tick_seconds
        if not tick:
            return True
        if self.tick_at > now:
            return False
        self.tick_at = (math.floor(now / tick) + 1) * tick
        return self.active

    def wakes_at(self, now: float) -> float:
        """When something happens without an event."""
        at = math.inf
        if self.active and self.policy.tick_seconds:
            at = self.tick_at
        idle = self.places.get(0)
        surplus = len(self.replicas) - self.desired
        if idle and surplus > 0:
            at = min(at, max(now, next(iter(idle.values())).idle_since + self.policy.idle_seconds))
        return at


class RivalPlane:
    """Takes the events of a `Plane` and answers with its commands."""

    def __init__(self, make_policy: Callable[[], Policy]) -> None:
        self._make_policy = make_policy
        self._pools: dict[str, RivalPool] = {}
        self._of: dict[str, RivalPool] = {}
        self._wakes: dict[str, float] = {}
        self._ids = itertools.count(1)

    def take(self, event: e.Event, now: float) -> list[c.Command]:
        """What to do because something happened."""
        out: list[c.Command] = []
        match event:
            case e.FunctionDeclared(function=function, spec=spec):
                seen = Seen(spec.concurrency.target_inputs)
                pool = self._pools[function] = RivalPool(function, spec, self._make_policy(), seen)
            case e.InputsSubmitted(call=call, first=first, count=count):
                pool = self._pools[event.function]
                self._account(pool, now)
                pool.queue.extend((call, first, count, position) for position in range(first, first + count))
                pool.seen.waiting += count
                out.append(c.Accept(call, first, count))
            case e.ContainerReady(container=container):
                pool = self._of[container]
                replica = pool.replicas[container]
                replica.ready, replica.idle_since = True, now
                pool.seen.starting -= 1
                pool.seen.ready += 1
                pool.places.setdefault(0, {})[container] = replica
            case e.ResultsReceived(container=container):
                pool = self._of[container]
                self._finished(pool, event, now, out)
            case e.ContainerExited(container=container):
                pool = self._of.pop(container)
            case _:
                return out
        self._reconcile(pool, now, out)
        return out

    def wake(self, now: float) -> list[c.Command]:
        """What to do because time has passed."""
        out: list[c.Command] = []
        for function, moment in list(self._wakes.items()):
            if moment <= now:
                self._reconcile(self._pools[function], now, out)
        return out

    def deadline(self) -> float | None:
        """When to be woken."""
        return min(self._wakes.values(), default=None)

    def _finished(self, pool: RivalPool, event: e.ResultsReceived, now: float, out: list[c.Command]) -> None:
        self._account(pool, now)
        replica = pool.replicas[event.container]
        call = replica.held[event.range]
        self._hold(pool, replica, event.range, None)
        replica.idle_since = now
        pool.seen.running -= 1
        before = pool.seen.service_seconds
        pool.seen.service_seconds = event.seconds if before is None else before + 0.1 * (event.seconds - before)
        out.append(c.Deliver(call, event.start, event.count))

    def _account(self, pool: RivalPool, now: float) -> None:
        pool.seen.area += pool.seen.load * (now - pool.seen_at)
        pool.seen_at = now

    def _reconcile(self, pool: RivalPool, now: float, out: list[c.Command]) -> None:
        self._account(pool, now)
        concurrency, seen, policy = pool.spec.concurrency, pool.seen, pool.policy
        self._grant(pool, concurrency.target_inputs, out)
        from_zero = policy.at_once_from_zero and seen.waiting and not pool.replicas
        if pool.ticks(now) or from_zero:
            pool.desired = min(policy.desired(seen, now), MOST_CONTAINERS)
        for _ in range(pool.desired - len(pool.replicas)):
            name = f"co-{next(self._ids)}"
            pool.replicas[name] = Replica(name)
            self._of[name] = pool
            seen.starting += 1
            out.append(c.Start(name, pool.function))
        self._grant(pool, concurrency.max_inputs, out)
        self._drain(pool, now, out)
        pool.active = bool(pool.replicas or pool.queue)
        moment = pool.wakes_at(now)
        if moment == math.inf:
            self._wakes.pop(pool.function, None)
        else:
            self._wakes[pool.function] = moment

    def _grant(self, pool: RivalPool, places: int, out: list[c.Command]) -> None:
        for held in range(places - 1, -1, -1):
            bucket = pool.places.get(held)
            while pool.queue and bucket:
                replica = next(reversed(bucket.values()))
                while pool.queue and len(replica.held) < places:
                    call, first, count, position = pool.queue.popleft()
                    number = next(self._ids)
                    self._hold(pool, replica, number, call)
                    pool.seen.waiting -= 1
                    pool.seen.running += 1
                    out.append(c.Grant(replica.id, number, call, first, count, position, position + 1))

    def _hold(self, pool: RivalPool, replica: Replica, number: int, call: str | None) -> None:
        """The replica holds a range of the call from now on, or (`None`) no longer."""
        del pool.places[len(replica.held)][replica.id]
        if call is None:
            del replica.held[number]
        else:
            replica.held[number] = call
        pool.places.setdefault(len(replica.held), {})[replica.id] = replica

    def _drain(self, pool: RivalPool, now: float, out: list[c.Command]) -> None:
        idle = pool.places.get(0, {})
        while len(pool.replicas) > pool.desired and idle:
            replica = next(iter(idle.values()))
            if replica.idle_since + pool.policy.idle_seconds > now:
                return
            del idle[replica.id]
            del pool.replicas[replica.id]
            pool.seen.ready -= 1
            out.append(c.Drain(replica.id, "surplus"))
