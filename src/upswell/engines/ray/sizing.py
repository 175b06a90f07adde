"""How large the next leases are: what containers of one shape need, and what the nodes have free. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...capacity import MIB, MOST_NAMED, Capacity, Gpus, Size, largest
from ...spec import Gpu, Resources

if TYPE_CHECKING:
    from .messages import Node

UNDECLARED_CPUS = 1.0  # what a lease holds for a container that reserves no `cpu`; Ray adds no node for nothing
MOST_WAITING = 100  # leases that Ray is asked for at once without a node that has room
NEW_BYTES_EACH_CPU = 4 << 30  # what nodes are thought to have that are yet to come, where none is there to tell
GROWTH = 4  # a lease has room for a quarter of what its shape has already, where its node does
SLIVER = 1e-6  # Ray counts in ten-thousandths, so sums of fractions may miss a whole by a little


class Shape(NamedTuple):
    """What one container reserves. Containers of one shape share leases, whatever their functions."""

    cpu: float
    memory_mib: int
    gpus: int = 0
    gpu_kind: str = ""  # as Ray calls it; "" for any

    @classmethod
    def of(cls, resources: Resources) -> Shape:
        gpu = resources.gpus[0] if resources.gpus else Gpu(count=0)
        return cls(resources.cpu, resources.memory_mib, gpu.count, ray_kind(gpu.kind))

    @property
    def is_elastic(self) -> bool:
        """Whether more containers may share what a lease holds than it was sized for: they have reserved nothing."""
        return not self.cpu and not self.memory_mib and not self.gpus

    @property
    def cpus(self) -> float:
        """Processors that a lease holds for each."""
        return self.cpu or UNDECLARED_CPUS

    def most(self, node: Node) -> int:
        """How many fit on the node when it is empty."""
        return self._slots(node, node.cpus, node.memory_bytes, node.gpus)

    def room(self, node: Node) -> int:
        """How many fit there now."""
        return self._slots(node, node.cpus_free, node.memory_free, node.gpus_free)

    def _slots(self, node: Node, cpus: float, memory_bytes: int, gpus: int) -> int:
        slots = int(cpus / self.cpus + SLIVER)
        if self.memory_mib:
            slots = min(slots, memory_bytes // (self.memory_mib * MIB))
        if self.gpus:
            slots = min(slots, gpus // self.gpus) if self.gpu_kind in ("", *node.gpu_kinds) else 0
        return slots

    def words(self) -> str:
        """For people, such as "cpu=2, memory=512, gpu=A10G:2"."""
        gpus = (Gpu(self.gpu_kind, self.gpus),) if self.gpus else ()
        declared = str(Resources(cpu=self.cpu, memory_mib=self.memory_mib, gpus=gpus))
        return declared or f"nothing in particular, for which {UNDECLARED_CPUS:g} cpu is held"


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
    rooms = sorted(((shape.room(node), node.id) for node in nodes), reverse=True)
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
    largest = max(1, max((shape.most(node) for node in nodes), default=0))
    whole, rest = divmod(wanted, largest)
    return Plan(fitting, [*[largest] * whole, *([rest] if rest else [])][:MOST_WAITING])


def missing(shape: Shape, nodes: Sequence[Node]) -> str:
    """Why there is no room for one more container, for people."""
    asks, nodes = f"each container asks for {shape.words()}", _working(nodes)
    if not nodes:
        return f"{asks}, and the cluster has no nodes with cpus"
    if not any(shape.most(node) for node in nodes):
        sizes = " or ".join(map(str, sizes_of(nodes)[:MOST_NAMED]))
        return f"{asks}, and no node has so much even when empty: the largest have {sizes}"
    free, cpus = sum(node.cpus_free for node in nodes), sum(node.cpus for node in nodes)
    memory = max(node.memory_free for node in nodes)
    on = f"{len(nodes)} node{'s' * (len(nodes) > 1)}"
    words = f"of {cpus:g} cpus on {on} {free:g} are free, and at most {memory // MIB} MiB on one"
    if shape.gpus:
        fitting = [node for node in nodes if shape.gpu_kind in ("", *node.gpu_kinds)]
        free, gpus = sum(node.gpus_free for node in fitting), sum(node.gpus for node in fitting)
        words += f", and {free} of {gpus} {shape.gpu_kind or 'GPU'}{'s' * (not shape.gpu_kind and gpus > 1)}"
    return f"{asks}, and no node has so much free: {words}"


def _working(nodes: Sequence[Node]) -> Sequence[Node]:
    """Those that containers may be on; the others are there for Ray, or for the server."""
    return [node for node in nodes if node.cpus]


def sizes_of(nodes: Sequence[Node]) -> tuple[Size, ...]:
    """What the largest nodes have."""
    return largest([Size(node.cpus, node.memory_bytes, gpus_of([node])) for node in nodes])


def gpus_of(nodes: Sequence[Node]) -> Gpus:
    """How many GPUs the nodes have, by kind, and under "" all of them. A kind has the names that users and Ray use."""
    found: Gpus = {}
    for node in nodes:
        for kind in {"", *node.gpu_kinds, *map(user_kind, node.gpu_kinds)} if node.gpus else ():
            found[kind] = found.get(kind, 0) + node.gpus
    return found


def ray_kind(kind: str) -> str:
    """What Ray calls a kind of GPU that users call so: "A100-80GB" is its "A100-80G"."""
    return re.sub(r"(-\d+G)B$", r"\1", kind)


def user_kind(kind: str) -> str:
    """The other way round."""
    return re.sub(r"(-\d+G)$", r"\1B", kind).upper()


def capacity_of(nodes: Sequence[Node], grows_to_cpus: float = 0.0, grows_to_gpus: int = 0) -> Capacity:
    """What the nodes have that are there now, or what the cluster may grow to."""
    nodes = _working(nodes)
    cpus, gpus = sum(node.cpus for node in nodes), gpus_of(nodes)
    free, total = sum(node.memory_free for node in nodes), sum(node.memory_bytes for node in nodes)
    more = max(0.0, grows_to_cpus - cpus)
    if not more and grows_to_gpus <= gpus.get("", 0):
        return Capacity(cpus, free, total, gpus, sizes_of(nodes) or (Size(0.0, 0),))
    memory = int(more * (total / cpus if cpus else NEW_BYTES_EACH_CPU))
    gpus[""] = max(gpus.get("", 0), grows_to_gpus)
    return Capacity(cpus + more, free + memory, total + memory, gpus, may_grow=True)
