"""What nodes have for containers, as engines say it and the core counts it. Nothing here acts."""

from __future__ import annotations

import msgspec

from .spec import Resources

MIB = 1 << 20
MOST_NAMED = 3  # sizes of nodes, in what people are told
Gpus = dict[str, int]  # kind → how many, each under every kind that it is of, and all of them under ""


class Size(msgspec.Struct, frozen=True):
    """What one node has for containers when it is empty."""

    cpus: float
    memory_bytes: int
    gpus: Gpus = {}

    def holds(self, resources: Resources) -> bool:
        """Whether one such container fits."""
        if resources.cpu > self.cpus or resources.memory_mib * MIB > self.memory_bytes:
            return False
        return not resources.gpus or any(gpu.count <= self.gpus.get(gpu.kind, 0) for gpu in resources.gpus)

    def covers(self, other: Size) -> bool:
        """Whether the other one has more of nothing."""
        more = other.cpus > self.cpus or other.memory_bytes > self.memory_bytes
        return not more and all(count <= self.gpus.get(kind, 0) for kind, count in other.gpus.items())

    def __str__(self) -> str:
        words = f"{self.cpus:g} cpus, {self.memory_bytes // MIB} MiB"
        if count := self.gpus.get("", 0):
            kinds = ", ".join(sorted(kind for kind in self.gpus if kind))
            words += f", {count} GPU{'s' * (count > 1)}" + (f" ({kinds})" if kinds else "")
        return words


def largest(sizes: list[Size]) -> tuple[Size, ...]:
    """Those of which no other has as much of everything: what fits on none of them fits nowhere."""
    found: list[Size] = []
    for size in sizes:
        if not any(other.covers(size) for other in found):
            found = [other for other in found if not size.covers(other)] + [size]
    return tuple(found)


class Capacity(msgspec.Struct, frozen=True):
    """What all nodes have for containers: cores, and bytes of memory that are free now, less a reserve.

    `gpus` is None where they are not counted, and functions run without. `sizes` are the largest that single nodes
    have, and none where all of it is one node's. Where it `may_grow`, there are none either, and what is said contains
    nodes that are yet to come, of whatever sizes and kinds of GPU.
    """

    cores: float
    memory_available: int
    memory_total: int = 0  # 0: what is available at first
    gpus: Gpus | None = None
    sizes: tuple[Size, ...] = ()
    may_grow: bool = False
