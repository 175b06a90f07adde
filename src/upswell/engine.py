"""The engine seam: how containers are started and ended on a node. An engine launches, kills and reports; inputs,
outputs and heartbeats go over the container's own connection to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from .capacity import Capacity
from .spec import FunctionRecord


class ContainerExit(msgspec.Struct, frozen=True):
    """A container's process is gone. `reason` is for people, such as "killed by signal 9 (SIGKILL)"."""

    container: str
    status: int  # as `os.waitstatus_to_exitcode`: negative for a signal
    reason: str
    out_of_memory: bool = False


class ContainerOutput(msgspec.Struct, frozen=True):
    """Whole lines that a container wrote to its standard output (stream 1) or standard error (2)."""

    container: str
    stream: int
    text: str


class ContainerDelayed(msgspec.Struct, frozen=True):
    """A container can't start yet, as there is no room; it does when there is some. `reason` is for people."""

    container: str
    reason: str


class CapacityChanged(msgspec.Struct, frozen=True):
    """There are other nodes than there were: see `Engine.capacity`."""


class ContainerFound(msgspec.Struct, frozen=True):
    """A container that an earlier server has started, and that is still there. It will call home again."""

    container: str
    token: str
    function: str
    version: int


Reported = ContainerExit | ContainerOutput | ContainerDelayed | CapacityChanged
Report = Callable[[Reported], None]


class Engine(Protocol):
    """Starts and ends containers. Calls never block; what happens is reported on the server's loop."""

    crosses_machines: bool  # containers may be on other machines, so they dial an address that those can reach

    async def open(self, address: str, report: Report) -> Sequence[ContainerFound]:
        """Begin. `address` is where containers dial; `report` is called on the loop of the caller.

        Returns the containers that an earlier engine, of a server that was killed, has left to this one. Nothing is
        reported before the caller has had them.
        """

    def prepare(self, function: FunctionRecord) -> None:
        """The function is declared: containers of it may soon be wanted (imports may begin)."""

    def start(self, container: str, token: str, function: FunctionRecord, version: int = 0) -> None:
        """Start a container that presents `token` in its `Hello`. Its end is always reported, exactly once.

        Of GPUs the function asks for one alternative at most, or for none where they are not counted.

        `version` is that of the function's containers, where its app has any.
        """

    def kill(self, container: str) -> None:
        """End the container's process and its children now."""

    def cpu_seconds(self, container: str) -> float | None:
        """CPU time of the container's process so far, as last measured; `None` when it is not known."""

    def sample(self, containers: Sequence[str]) -> list[tuple[str, float]]:
        """The same of all of them that were measured since they were sampled last: what is old looks like idleness."""

    def memory_bytes(self, container: str) -> int | None:
        """Memory that ending the container would free (PSS where it can be had)."""

    def capacity(self) -> Capacity:
        """What the nodes have now."""

    async def close(self) -> None:
        """End every container and every process of the engine; all exits are reported before this returns.

        Nothing is left to a later engine then.
        """
