"""The containers of one function: their lives, and what they have room for.

Sums over containers are kept as each of them changes (`recount`), so that a step costs what changed and not what
exists. Nothing is decided here: who starts, gets work or ends is up to the pool.
"""

from __future__ import annotations

from ..spec import FunctionSpec
from . import watch
from .agenda import NEVER, Agenda
from .commands import Command, Drain, Kill, Start
from .model import Container, KilledFor, State


class Containers:
    """Those that start, that are ready, and that end."""

    def __init__(self) -> None:
        self.by_id: dict[str, Container] = {}
        self.starting = 0
        self.ready = 0
        self.running = 0  # inputs: a sum over containers, as is the next
        self.unstarted = 0
        # Ready ones that may take work, by how many places are taken; each in the order they came to that number.
        self.buckets: dict[int, dict[str, Container]] = {}
        self.idle: dict[str, Container] = {}  # ready ones that hold nothing, not even a suspended input; longest first
        self.loaded: dict[str, Container] = {}  # those with inputs that are not started
        self.progress_at = 0.0  # the last time an input finished, or the first of those that run was granted
        self.ready_at = 0.0  # the last time a container became ready, or the first of those starting began to
        self._watch: Agenda[Container] = Agenda()  # when to look whether a container is stuck

    @property
    def present(self) -> int:
        """Those that count: starting and ready ones."""
        return self.ready + self.starting

    def longest_idle(self) -> Container:
        """The first to go."""
        return next(iter(self.idle.values()))

    # -- their lives -----------------------------------------------------------------------------------

    def start(self, name: str, function: str, spec: FunctionSpec, now: float, out: list[Command]) -> None:
        """One more."""
        container = self.by_id[name] = Container(name, spec, State.STARTING, now, now)
        if not self.starting:
            self.ready_at = now
        container.starting_beside = self.starting
        self.starting += 1
        self._watch.put(container, watch.due_at(container))
        out.append(Start(name, function))

    def began(self, container: Container, now: float) -> None:
        """It is ready."""
        container.state = State.READY
        container.heard_at = container.idle_since = self.ready_at = now
        self.starting -= 1
        self.ready += 1
        self.recount(container)

    def drain(self, container: Container, reason: str, now: float, out: list[Command]) -> None:
        """Ask it to exit."""
        self.end(container, now)
        out.append(Drain(container.id, reason))

    def kill(self, container: Container, why: KilledFor, reason: str, out: list[Command]) -> None:
        """Have it ended; once is enough."""
        if not container.killed_for:
            container.killed_for = why
            self.end(container, container.heard_at)
            out.append(Kill(container.id, reason))

    def end(self, container: Container, now: float) -> None:
        """It gets no more work, and its exit is on the way, after its exit hooks unless it is killed."""
        self._leave(container)
        container.state, container.heard_at = State.ENDING, now
        self._watch.put(container, watch.due_at(container))

    def remove(self, container: Container) -> None:
        """It is gone."""
        self._leave(container)
        del self.by_id[container.id]

    def _leave(self, container: Container) -> None:
        """Take it out of every count and bucket; its state is still the old one."""
        if container.state is State.STARTING:
            self.starting -= 1
        elif container.state is State.READY:
            self.ready -= 1
        self._place(container, -1)
        self._watch.put(container, NEVER)
        self.idle.pop(container.id, None)
        self.running -= container.running
        self.unstarted -= container.unstarted
        container.running = container.unstarted = 0
        self.loaded.pop(container.id, None)

    # -- whether they are stuck ------------------------------------------------------------------------

    def watch(self, container: Container) -> None:
        """It may be due for a look earlier than before."""
        self._watch.bring_forward(container, watch.due_at(container))

    def overdue(self, now: float) -> Container | None:
        """One that takes too long to start or to exit, or is silent for longer than any input may take."""
        while first := self._watch.first():
            moment, container = first
            due = watch.due_at(container)
            if moment == due > now:
                return None
            self._watch.put(container, due if due > now else NEVER)
            if due <= now:
                return container
        return None

    def due_at(self) -> float:
        """When to look for one that is stuck."""
        first = self._watch.first()
        return first[0] if first else NEVER

    # -- what they have room for -------------------------------------------------------------------------

    def recount(self, container: Container) -> None:
        """Renew what it adds to the sums, and where it stands in the buckets."""
        if container.state is not State.READY:
            return
        spec = container.spec
        most = spec.concurrency.max_inputs
        taken = min(len(container.places), most)
        running = container.inputs if spec.concurrency.batch_size else taken
        unstarted = container.inputs - running
        self.running += running - container.running
        self.unstarted += unstarted - container.unstarted
        container.running, container.unstarted = running, unstarted
        if unstarted:
            self.loaded[container.id] = container
        else:
            self.loaded.pop(container.id, None)
        if container.ranges:
            self.idle.pop(container.id, None)
        else:
            self.idle.setdefault(container.id, container)
        self._place(container, most if spec.single_use and container.ranges else taken)

    def _place(self, container: Container, bucket: int) -> None:
        if container.bucket != bucket:
            if container.bucket >= 0:
                del self.buckets[container.bucket][container.id]
                if not self.buckets[container.bucket]:
                    del self.buckets[container.bucket]
            if bucket >= 0:
                self.buckets.setdefault(bucket, {})[container.id] = container
            container.bucket = bucket
