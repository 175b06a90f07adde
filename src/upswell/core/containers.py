"""The containers of one function: their lives, and what they have room for.

Sums over containers are kept as each of them changes (`recount`), so that a step costs what changed and not what
exists. Nothing is decided here: who starts, gets work or ends is up to the pool. Each goes by the declaration it was
started with, so those of two versions may differ in how much they take.
"""

from __future__ import annotations

from ..spec import FunctionSpec
from . import watch
from .agenda import NEVER, Agenda
from .commands import Command, Drain, Kill, Retire, Start, TakeBack
from .model import Container, KilledFor, State


class Containers:
    """The containers of one pool, from their start to their exit."""

    def __init__(self) -> None:
        self.by_id: dict[str, Container] = {}
        self.starting = 0
        self.ready = 0
        self.running = 0  # inputs: a sum over containers, as is the next
        self.unstarted = 0
        self.retiring = 0  # inputs that run in those that retire, and in no other sum
        self.room = 0  # places that are free, likewise
        # Ready ones with room, by how many free places they have below their target: 0 or less for those that are at
        # it or beyond. Each in the order they came to that number.
        self.buckets: dict[int, dict[str, Container]] = {}
        self.full: dict[str, Container] = {}  # ready ones without room
        self.idle: dict[str, Container] = {}  # ready ones that hold nothing, not even a suspended input; longest first
        self.loaded: dict[str, Container] = {}  # those with inputs that are not started
        self.outdated: dict[str, Container] = {}  # ready ones of a version that is not the present one
        self.progress_at = 0.0  # the last time an input finished, or the first of those that run was granted
        self.ready_at = 0.0  # the last time a container became ready, or the first of those starting began to
        self._version = 0  # the present one
        self._watch: Agenda[Container] = Agenda()  # when to look whether a container is stuck

    @property
    def present(self) -> int:
        """Those that count: starting and ready ones."""
        return self.ready + self.starting

    @property
    def leaving(self) -> int:
        """Those that retire or end."""
        return len(self.by_id) - self.present

    def longest_idle(self) -> Container:
        """The first to go."""
        return next(iter(self.idle.values()))

    # -- their lives -----------------------------------------------------------------------------------

    def start(self, name: str, function: str, spec: FunctionSpec, version: int, now: float, out: list[Command]) -> None:
        """One more starts; `spec` names the resources that are its own."""
        container = self.by_id[name] = Container(name, spec, State.STARTING, now, now, version)
        if not self.starting:
            self.ready_at = now
        container.starting_beside = self.starting
        self.starting += 1
        self._watch.put(container, watch.due_at(container))
        out.append(Start(name, function, spec.resources.gpus))

    def join(self, container: Container) -> None:
        """It has been there all along, and is ready."""
        self.by_id[container.id] = container
        self.ready += 1
        if container.version != self._version:
            self.outdated[container.id] = container

    def began(self, container: Container, now: float) -> None:
        """It is ready."""
        container.state = State.READY
        container.heard_at = container.idle_since = self.ready_at = now
        self.starting -= 1
        self.ready += 1
        self.watch(container)
        self.recount(container)

    def outdate(self, version: int) -> None:
        """From now on this is the present version."""
        self._version = version
        ready = (container for container in self.by_id.values() if container.state is State.READY)
        self.outdated = {container.id: container for container in ready if container.version != version}

    def retire(self, container: Container, reason: str, out: list[Command]) -> None:
        """It gets no more work, gives back what it has not begun, and is to be drained when it holds nothing."""
        self._leave(container)
        container.state, container.retired_for = State.RETIRING, reason
        self.recount(container)
        self._watch.put(container, watch.due_at(container))
        out.append(Retire(container.id, reason))
        self.ask_back(container, out)

    def ask_back(self, container: Container, out: list[Command]) -> bool:
        """It is to give back whatever it has not begun; whether there is anything that was not asked for before."""
        asked = [held for held in container.to_take_back() if not held.batch]
        for held in asked:
            held.wanted_back = True
            out.append(TakeBack(container.id, held.id))
        return bool(asked)

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
        self._place(container, None)
        self._watch.put(container, NEVER)
        if container.state is State.RETIRING:
            self.retiring -= container.running
        else:
            self.running -= container.running
        self.unstarted -= container.unstarted
        self.room -= container.room
        container.running = container.unstarted = container.room = 0
        for kind in (self.idle, self.loaded, self.full, self.outdated):
            kind.pop(container.id, None)

    # -- whether they are stuck ------------------------------------------------------------------------

    def watch(self, container: Container) -> None:
        """Note when it will be stuck unless it is heard. In one that is ready that moment moves on with each input, so
        there it is only ever set earlier: `overdue` sees that the container was heard meanwhile.
        """
        put = self._watch.put_by if container.state is State.READY else self._watch.put
        put(container, watch.due_at(container))

    def overdue(self, now: float) -> Container | None:
        """One that takes too long to start or to exit, or is silent for longer than any input may take."""
        while (container := self._watch.pop_due(now)) is not None:
            due = watch.due_at(container)  # later by now, where it was heard meanwhile
            if due <= now:
                return container
            self._watch.put(container, due)
        return None

    def due_at(self) -> float:
        """When to look for one that is stuck; `NEVER` where none has anything to do."""
        if not (self.running or self.unstarted or self.starting or self.leaving):
            return NEVER
        return self._watch.next_at()

    # -- what they have room for -------------------------------------------------------------------------

    def recount(self, container: Container) -> None:
        """Renew what it adds to the sums, and where it stands in the buckets."""
        spec, name, concurrency = container.spec, container.id, container.spec.concurrency
        most, taken = concurrency.max_inputs, len(container.places)
        if taken > most:
            taken = most
        running = container.inputs if concurrency.batch_size else taken
        if container.state is not State.READY:
            if container.state is State.RETIRING:
                self.retiring += running - container.running
                container.running = running
            return
        unstarted = container.inputs - running
        room = 0 if spec.single_use and container.ranges else most - taken
        self.running += running - container.running
        self.unstarted += unstarted - container.unstarted
        self.room += room - container.room
        container.running, container.unstarted, container.room = running, unstarted, room
        if unstarted:
            self.loaded[name] = container
        else:
            self.loaded.pop(name, None)
        if container.ranges:
            self.idle.pop(name, None)
        else:
            self.idle.setdefault(name, container)
        if room:
            self.full.pop(name, None)
        else:
            self.full.setdefault(name, container)
        self._place(container, concurrency.target_inputs - taken if room else None)

    def _place(self, container: Container, bucket: int | None) -> None:
        if container.bucket != bucket:
            if container.bucket is not None:
                del self.buckets[container.bucket][container.id]
                if not self.buckets[container.bucket]:
                    del self.buckets[container.bucket]
            if bucket is not None:
                self.buckets.setdefault(bucket, {})[container.id] = container
            container.bucket = bucket
