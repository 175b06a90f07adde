"""The leases of one shape, and the containers that wait for one: who goes where, what to ask for, what to give back.

It decides, and does nothing: the engine asks, and tells it what became of that. Moments are handed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from ...capacity import MIB
from ...spec import FunctionRecord
from .link import Session
from .messages import Node, Usage
from .sizing import Shape, missing, plan

IDLE_SECONDS = 60.0  # an empty lease is kept so long, as the next one costs seconds; less where others wait for room
EXPECTED_SECONDS = 30.0  # a lease that a node had room for is there by then, or something took the room
COUNTED_SECONDS = 1.5  # after which what Ray says is free does not contain what it was asked for before
OVERFILL = 8  # containers that reserve nothing, for each one that their lease was sized for
SILENCE_SECONDS = 15.0  # a lease that was not heard of for so long has lost its connection
SAY_SECONDS, SAY_AGAIN_SECONDS = 5.0, 60.0  # when it is said that a container waits for room


@dataclass(frozen=True, slots=True)
class Wanted:
    """A container that is to start."""

    container: str
    token: str
    function: FunctionRecord
    since: float
    version: int = 0


@dataclass(slots=True, eq=False)
class Lease:
    """So many slots on a node. It is there once it has opened its link, but for moments in which that is lost."""

    name: str
    shape: Shape
    slots: int
    asked_at: float
    likely: str  # the node that has room for it; "" where none has
    link: Session | None = None
    lost_at: float | None = None  # when the link was lost, where it is
    node: str = ""
    is_ending: bool = False
    heard_at: float = 0.0
    empty_since: float = 0.0
    containers: dict[str, Usage | None] = field(default_factory=dict)  # → what was measured last

    @property
    def is_there(self) -> bool:
        """Whether containers can start in it."""
        return self.link is not None and self.lost_at is None and not self.is_ending

    @property
    def filled(self) -> float:
        """Containers for each slot."""
        return len(self.containers) / self.slots

    def is_expected(self, now: float) -> bool:
        """Whether it will be there in a moment."""
        return self.link is None and bool(self.likely) and now - self.asked_at < EXPECTED_SECONDS


class Stock:
    """All leases of one shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.leases: dict[str, Lease] = {}
        self.waiting: dict[str, Wanted] = {}
        self._said: dict[str, float] = {}  # function → when it was said last that it waits

    def assign(self, now: float) -> list[tuple[Lease, Wanted]]:
        """Containers that can start now, and where. They count as there."""
        if not self.waiting:
            return []
        places = self._places(now)
        assigned = []
        for wanted, lease in zip(list(self.waiting.values()), places, strict=False):
            lease.containers[wanted.container] = None
            del self.waiting[wanted.container]
            assigned.append((lease, wanted))
        return assigned

    def _places(self, now: float) -> Iterator[Lease]:
        """Where the next containers go, one after the other; each is counted before the next is asked for.

        The fullest lease with a slot comes first, so that others empty. Where no more leases come, what reserves
        nothing goes to the one that is least overfull.
        """
        there = [lease for lease in self.leases.values() if lease.is_there]
        for lease in sorted(there, key=lambda one: (-one.filled, one.name)):
            for _ in range(lease.slots - len(lease.containers)):
                yield lease
        if not self.shape.is_elastic or any(lease.is_expected(now) for lease in self.leases.values()):
            return
        least = [(lease.filled, lease.name, lease) for lease in there]
        heapq.heapify(least)
        while least and least[0][0] < OVERFILL:
            lease = least[0][2]
            yield lease
            heapq.heapreplace(least, (lease.filled, lease.name, lease))

    @property
    def is_short(self) -> bool:
        """Whether another lease is wanted."""
        return bool(self.waiting) or (self.shape.is_elastic and any(one.filled > 1 for one in self.leases.values()))

    def wishes(self, nodes: Sequence[Node], now: float) -> list[tuple[str, int]]:
        """Leases to ask for: the node that has room, or "", and slots."""
        expected = sum(lease.slots for lease in self.leases.values() if lease.is_expected(now))
        hoped = sum(lease.slots for lease in self.leases.values() if lease.link is None) - expected
        there = [lease for lease in self.leases.values() if lease.is_there]
        overfull = sum(max(0, len(lease.containers) - lease.slots) for lease in there)
        made = plan(self.shape, len(self.waiting) - expected, sum(lease.slots for lease in there), nodes)
        wishes = list(made.fitting)
        if sum(made.waiting) + overfull > hoped:
            # Ray's own autoscaler sees what no node has room for, and may add one.
            hopeless = plan(self.shape, sum(made.waiting) + overfull - hoped, 0, _emptied(nodes))
            wishes += [("", slots) for slots in hopeless.waiting]
        return wishes

    def surplus(self, now: float, others_wait: bool) -> list[Lease]:
        """Leases to give back."""
        overdue = [one for one in self.leases.values() if one.link is None and one.likely and not one.is_expected(now)]
        if self.waiting:
            return overdue
        patience = 0.0 if others_wait else IDLE_SECONDS
        overfull = any(len(lease.containers) > lease.slots for lease in self.leases.values())
        return [
            lease
            for lease in self.leases.values()
            if (lease.link is None and not lease.is_expected(now) and not overfull)
            or (lease.link is not None and not lease.containers and now - lease.empty_since >= patience)
        ]

    def silent(self, now: float) -> list[Lease]:
        """Leases whose connection is gone without a word."""
        there = [one for one in self.leases.values() if one.link is not None and one.lost_at is None]
        return [one for one in there if now - one.heard_at > SILENCE_SECONDS]

    def lost(self, now: float, patience: float) -> list[Lease]:
        """Leases that have not come back for so long."""
        return [one for one in self.leases.values() if one.lost_at is not None and now - one.lost_at > patience]

    def complaints(self, nodes: Sequence[Node], now: float) -> list[tuple[str, str]]:
        """Of each function that waits for room for long, one container, and what is missing.

        Those that leases are expected for, the first to have come, are not in want of it yet.
        """
        expected = sum(lease.slots for lease in self.leases.values() if lease.is_expected(now))
        late: dict[str, list[str]] = {}  # function → its containers
        for position, wanted in enumerate(self.waiting.values()):
            if now - wanted.since >= (EXPECTED_SECONDS if position < expected else SAY_SECONDS):
                late.setdefault(wanted.function.id, []).append(wanted.container)
        found = []
        for name, containers in late.items():
            if now - self._said.get(name, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
                self._said[name] = now
                words = (
                    f"{len(containers)} of its containers wait for room in the cluster: {missing(self.shape, nodes)}"
                )
                found.append((containers[0], words))
        return found


def free_of(nodes: Sequence[Node], leases: Sequence[Lease], now: float) -> list[Node]:
    """The nodes, less what leases will take that were asked for so shortly that Ray has not counted them."""
    counted = {node.id: node for node in nodes}
    for lease in leases:
        if (node := counted.get(lease.likely)) and lease.link is None and now - lease.asked_at < COUNTED_SECONDS:
            counted[node.id] = replace(
                node,
                cpus_free=node.cpus_free - lease.slots * lease.shape.cpus,
                memory_free=node.memory_free - lease.slots * lease.shape.memory_mib * MIB,
                gpus_free=node.gpus_free - lease.slots * lease.shape.gpus,
            )
    return list(counted.values())


def _emptied(nodes: Sequence[Node]) -> list[Node]:
    return [replace(node, cpus_free=0.0, memory_free=0) for node in nodes]
