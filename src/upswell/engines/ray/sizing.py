"""How large the next leases are: what containers of one shape need, and what the nodes have free. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...spec import Resources
from .messages import Node

UNDECLARED_CPUS = 1.0  # what a lease holds for a container that reserves no `cpu`; Ray adds no node for nothing
MOST_WAITING = 100  # leases that Ray is asked for at once without a node that has room
GROWTH = 4  # a lease has room for a quarter of what its shape has already, where its node does
MIB = 1 << 20
SLIVER = 1e-6  # Ray counts in ten-thousandths, so sums of fractions may miss a whole by a little


class Shape(NamedTuple):
    """What one container reserves. Containers of one shape share leases, whatever their functions."""

    cpu: float
    memory_mib: int

    @classmethod
    def of(cls, resources: Resources) -> Shape:
        return cls(resources.cpu, resources.memory_mib)

    @property
    def is_elastic(self) -> bool:
        """Whether more containers may share what a lease holds than it was sized for: they have reserved nothing."""
        return not self.cpu and not self.memory_mib

    @property
    def cpus(self) -> float:
        """Processors that a lease holds for each."""
        return self.cpu or UNDECLARED_CPUS

    def slots(self, cpus: float, memory_bytes: int) -> int:
        """How many fit in so much."""
        slots = int(cpus / self.cpus + SLIVER)
        return min(slots, memory_bytes // (self.memory_mib * MIB)) if self.memory_mib else slots

    def words(self) -> str:
        """For people, such as "cpu=2, memory=512"."""
        declared = [f"cpu={self.cpu:g}"] if self.cpu else []
        declared += [f"memory={self.memory_mib}"] if self.memory_mib else []
        return ", ".join(declared) or f"nothing in particular, for which {UNDECLARED_CPUS:g} cpu is held"


class Plan(NamedTuple):
    """Slots of the leases to ask for: those that a node has room for now, and those that wait for one."""

    fitting: list[tuple[str, int]]  # node that was thought of, and slots; Ray may choose another
    waiting: list[int]


def plan(shape: Shape, wanted: int, present: int, nodes: Sequence[Node]) -> Plan:
    """Leases for `wanted` more containers, where `present` slots of the shape are there already.

    The roomiest node comes first, and few large leases are better than many small ones, as each costs seconds.
    """
    if wanted <= 0:
        return Plan([], [])
    rooms = sorted(((shape.slots(node.cpus_free, node.memory_free), node.id) for node in nodes), reverse=True)
    spare = max(0, -(-present // GROWTH) - wanted)
    fitting: list[tuple[str, int]] = []
    for room, node in rooms:
        if wanted <= 0 or room <= 0:
            break
        size = min(room, wanted + spare)
        fitting.append((node, size))
        wanted -= size
    if wanted <= 0:
        return Plan(fitting, [])
    largest = max(1, max((shape.slots(node.cpus, node.memory_bytes) for node in nodes), default=0))
    whole, rest = divmod(wanted, largest)
    return Plan(fitting, [*[largest] * whole, *([rest] if rest else [])][:MOST_WAITING])


def missing(shape: Shape, nodes: Sequence[Node]) -> str:
    """Why there is no room for one more container, for people."""
    asks = f"each container asks for {shape.words()}"
    if not nodes:
        return f"{asks}, and the cluster has no nodes"
    if not any(shape.slots(node.cpus, node.memory_bytes) for node in nodes):
        cpus, memory = max(node.cpus for node in nodes), max(node.memory_bytes for node in nodes)
        return f"{asks}, and no node has so much even when empty: at most {cpus:g} cpus and {memory // MIB} MiB"
    free, cpus = sum(node.cpus_free for node in nodes), sum(node.cpus for node in nodes)
    memory = max(node.memory_free for node in nodes)
    return (
        f"{asks}, and no node has so much free: of {cpus:g} cpus on {len(nodes)} nodes {free:g} are free, "
        f"and at most {memory // MIB} MiB on one"
    )
