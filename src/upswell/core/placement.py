"""Which node gets the next container. There is one node now; what containers reserve of it is counted here."""

from __future__ import annotations

import msgspec

from ..spec import Resources

MIB = 1 << 20
NOTHING = Resources()


class Node(msgspec.Struct):
    """What the machine has, and what the containers on it have reserved by their `cpu` and `memory`."""

    cores: float
    memory_available: int  # bytes free now, as last measured
    memory_total: int
    reserved_cpu: float = 0.0
    reserved_memory: int = 0

    def measured(self, cores: float, memory_available: int) -> None:
        """What there is now. On a cluster machines come and go."""
        self.cores, self.memory_available = cores, memory_available
        self.memory_total = max(self.memory_total, memory_available)

    def reserve(self, resources: Resources) -> None:
        self.reserved_cpu += resources.cpu
        self.reserved_memory += resources.memory_mib * MIB

    def release(self, resources: Resources, memory: int) -> None:
        """A container is gone, and with it what it reserved and about so many bytes that it used."""
        self.memory_available += memory
        self.reserved_cpu -= resources.cpu
        self.reserved_memory -= resources.memory_mib * MIB

    def holds(self, resources: Resources) -> bool:
        """Whether the empty node could hold one such container at all."""
        return resources.cpu <= self.cores and resources.memory_mib * MIB <= self.memory_total

    def room(self, resources: Resources, without: Resources = NOTHING) -> int | None:
        """How many more such containers fit, `without` one that is there; `None` if they reserve nothing."""
        rooms = []
        if resources.cpu:
            rooms.append(int((self.cores - self.reserved_cpu + without.cpu) / resources.cpu + 1e-9))
        if resources.memory_mib:
            left = self.memory_total - self.reserved_memory + without.memory_mib * MIB
            rooms.append(left // (resources.memory_mib * MIB))
        return max(0, min(rooms)) if rooms else None
