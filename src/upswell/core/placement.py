"""Whether there is room for the next container. All nodes are counted as one here, as what containers reserve of them
together; that one container fits on one node is held by the sizes that nodes have. Which one gets it is the engine's.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ..capacity import MIB, MOST_NAMED, Capacity, Gpus, Size
from ..spec import FunctionSpec, Gpu, Resources

NOTHING = Resources()


class Node(msgspec.Struct):
    """What the nodes have, and what the containers on them have reserved by their `cpu`, `memory` and `gpu`."""

    cores: float
    memory_available: int  # bytes free now, as last measured
    memory_total: int
    gpus: Gpus | None = None
    sizes: tuple[Size, ...] = ()
    may_grow: bool = False
    reserved_cpu: float = 0.0
    reserved_memory: int = 0
    reserved_gpus: Gpus = {}

    def resized(self, capacity: Capacity) -> None:
        """There are other nodes now, with the same containers. On a cluster machines come and go."""
        self.gpus, self.sizes, self.may_grow = capacity.gpus, capacity.sizes, capacity.may_grow
        self.memory_total = capacity.memory_total
        self.measured(capacity.cores, capacity.memory_available)

    def measured(self, cores: float, memory_available: int) -> None:
        """What there is now."""
        self.cores, self.memory_available = cores, memory_available
        self.memory_total = max(self.memory_total, memory_available)

    def reserve(self, resources: Resources) -> None:
        """A container is there, which has been given these resources; see `choose`."""
        self._reserve(resources, 1)

    def release(self, resources: Resources, memory: int) -> None:
        """A container is gone, and with it what it reserved and about so many bytes that it used."""
        self.memory_available += memory
        self._reserve(resources, -1)

    def _reserve(self, resources: Resources, sign: int) -> None:
        self.reserved_cpu += sign * resources.cpu
        self.reserved_memory += sign * resources.memory_mib * MIB
        for gpu in resources.gpus:
            for kind in {gpu.kind, ""}:
                self.reserved_gpus[kind] = self.reserved_gpus.get(kind, 0) + sign * gpu.count

    def given(self, spec: FunctionSpec) -> FunctionSpec:
        """The declaration that the next container of a function goes by: see `choose`."""
        return replace(spec, resources=self.choose(spec.resources)) if spec.resources.gpus else spec

    def choose(self, resources: Resources) -> Resources:
        """What the next container is given of what is asked for: of GPUs the first alternative that there is room for,
        or else that there is at all; none where they are not counted.
        """
        if self.gpus is None:
            return replace(resources, gpus=())
        alternatives = [replace(resources, gpus=(gpu,)) for gpu in resources.gpus]
        possible = [one for one in alternatives if self.holds(one)] or alternatives
        return next((one for one in possible if self.room(one) != 0), possible[0])

    def holds(self, resources: Resources) -> bool:
        """Whether an empty node could hold one such container at all."""
        if not (resources.cpu or resources.memory_mib or resources.gpus):
            return True  # as it is of nearly every function
        return any(size.holds(self._counted(resources)) for size in self._sizes)

    def held(self) -> str:
        """What the largest nodes have, for people."""
        sizes = " or ".join(map(str, self._sizes[:MOST_NAMED]))
        if self.may_grow:
            return f"the cluster grows to {sizes}"
        return f"the largest nodes have {sizes}" if self.sizes else f"this machine has {sizes}"

    @property
    def _sizes(self) -> tuple[Size, ...]:
        return self.sizes or (Size(self.cores, self.memory_total, self.gpus or {}),)

    def _counted(self, resources: Resources) -> Resources:
        """The same, as far as it is counted here."""
        if not resources.gpus or (self.gpus is not None and not self.may_grow):
            return resources
        return replace(resources, gpus=tuple(Gpu("", gpu.count) for gpu in resources.gpus if self.may_grow))

    def left(self, resources: Resources) -> str:
        """What nobody has reserved of that which such a container asks for, for people."""
        left = []
        if resources.cpu:
            left.append(f"{self.cores - self.reserved_cpu:g} of {self.cores:g} cpus")
        if resources.memory_mib:
            left.append(f"{(self.memory_total - self.reserved_memory) // MIB} of {self.memory_total // MIB} MiB")
        for gpu in self._counted(resources).gpus:
            count = (self.gpus or {}).get(gpu.kind, 0)
            left.append(f"{self._gpus_left(gpu, NOTHING)} of {count} {gpu.kind or 'GPUs'}")
        return ", ".join(left)

    def room(self, resources: Resources, without: Resources = NOTHING) -> int | None:
        """How many more such containers fit, `without` one that is there; `None` if they reserve nothing."""
        rooms = []
        if resources.cpu:
            rooms.append(int((self.cores - self.reserved_cpu + without.cpu) / resources.cpu + 1e-9))
        if resources.memory_mib:
            left = self.memory_total - self.reserved_memory + without.memory_mib * MIB
            rooms.append(left // (resources.memory_mib * MIB))
        if gpus := self._counted(resources).gpus:
            rooms.append(sum(self._gpus_left(gpu, without) // gpu.count for gpu in gpus))
            rooms.append(self._gpus_left(Gpu(), without) // min(gpu.count for gpu in gpus))  # of whichever alternative
        return max(0, min(rooms)) if rooms else None

    def _gpus_left(self, gpu: Gpu, without: Resources) -> int:
        """How many GPUs of the kind are free, which may be fewer than of all kinds together."""
        left = []
        for kind in {gpu.kind, ""}:
            freed = sum(held.count for held in without.gpus if kind in ("", held.kind))
            left.append((self.gpus or {}).get(kind, 0) - self.reserved_gpus.get(kind, 0) + freed)
        return max(0, min(left))
