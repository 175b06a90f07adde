"""The simulated world: it performs what a plane commands and answers with events, as engine, containers and clients do.

Time is a number that jumps from event to event, and every draw comes from one seeded `random.Random`, so a seed is a
history. The plane is the product's own, or a rival's (`rivals.py`): the world can't tell them apart.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any, Protocol

from ..core import commands as c
from ..core import events as e
from ..spec import MAP_WINDOW, CallKind, FunctionSpec, Strategy
from .faults import NO_FAULTS, Faults
from .process import Behaviour, Process, Work
from .processors import Processors
from .watch import Violation, Watch

SEGMENT_INPUTS = 100  # of a map travel together
WAKES_AT_ONE_MOMENT = 1000  # more than this, and the plane never lets time pass
EXIT_SECONDS = 0.002


class Controller(Protocol):
    """What decides: the product's Plane, or a rival's stand-in."""

    def take(self, event: e.Event, now: float) -> list[c.Command]:
        """What to do at once because something happened."""

    def wake(self, now: float) -> list[c.Command]:
        """What else to do because of that, or because time has passed."""

    def deadline(self) -> float | None:
        """When to be woken."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What containers run on."""

    cores: float = 8.0
    memory_bytes: int = 64 << 30
    latency_seconds: float = 0.0001  # of a message between server and container


@dataclass(slots=True, eq=False)
class Caller:
    """A call and its client: it offers inputs as the SDK does, and notes how long they waited."""

    call: str
    function: str
    kind: CallKind
    services: Sequence[float]  # seconds each input takes
    made_at: float
    owner: str = ""
    waits: list[float] = field(default_factory=list)  # of inputs with results: seconds until then less their own
    failed: int = 0  # inputs without a result
    refused: int = 0  # inputs that were turned away for good
    submitted: int = 0
    unsettled: int = 0
    offering: bool = False  # a segment was offered and not answered
    segments: list[tuple[int, int]] = field(default_factory=list)  # first and count of those that were taken
    ended: bool = False  # it has said that no more inputs come
    cancelled: bool = False
    unwanted: dict[int, None] = field(default_factory=dict)  # inputs that were cancelled alone
    finished: bool = False

    def delivered(self, start: int, count: int, now: float) -> None:
        """Results came: what they took beyond the time of the inputs themselves was waiting, wherever it was spent."""
        for position in range(start, start + count):
            self.waits.append(max(0.0, now - self.made_at - self.services[position]))


def _none_follows(first_id: int) -> Controller:
    raise AssertionError("the server of this world does not die")


class World:
    """Physics around one plane."""

    def __init__(
        self,
        plane: Controller,
        machine: Machine,
        random: Random,
        *,
        faults: Faults = NO_FAULTS,
        successor: Callable[[int], Controller] | None = None,
        most_decisions: float = math.inf,
    ) -> None:
        """A history that takes more than `most_decisions` is taken for one without an end: `Violation`."""
        self.plane = plane
        self.successor = successor or _none_follows
        self.life = 0  # how many servers there were before this one
        self.highest_id = 0  # of a container, range or batch
        self.most_decisions = most_decisions
        self.machine = machine
        self.random = random
        self.faults = faults
        self.watch = Watch()
        self.processors = Processors(machine.cores)
        self.now = 0.0
        self.behaviours: dict[str, Behaviour] = {}
        self.declared: dict[str, e.FunctionDeclared] = {}
        self.updated: dict[str, list[e.SettingsUpdated]] = {}  # since then
        self.callers: dict[str, Caller] = {}
        self.processes: dict[str, Process] = {}
        self.memory_used = 0
        self.container_seconds = 0.0  # of containers that exited
        self.starts = self.peak = self.out_of_memory = self.decisions = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._tick = 0
        self._happened: deque[e.Event] = deque()
        self._busy = False

    # -- what happens from outside -----------------------------------------------------------------------

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something at a moment."""
        self._tick += 1
        heappush(self._heap, (moment, self._tick, action))

    def after(self, seconds: float, process: Process, action: Callable[[], None]) -> None:
        """Do something in a while if the container still exists then."""
        self.at(self.now + seconds, lambda: None if process.gone else action())

    def declare(
        self, function: str, spec: FunctionSpec, behaviour: Behaviour, *, version: int = 0, at_once: bool = False
    ) -> None:
        """The function exists from now on, or is of another version, which replaces the earlier one."""
        self.behaviours[function] = behaviour
        strategy: Strategy = "recreate" if at_once else "rolling"
        self.happened(e.FunctionDeclared(function, spec, version=version, strategy=strategy))

    def call(self, caller: Caller) -> None:
        """A client makes a call now."""
        self.callers[caller.call] = caller
        self._offer(caller)

    def run(self, until: float = math.inf) -> None:
        """Let things happen, up to a moment or until nothing more does."""
        wakes = 0
        while True:
            due = self._heap[0][0] if self._heap else math.inf
            computed = self.processors.due()
            deadline = self.plane.deadline()
            waking = math.inf if deadline is None else max(deadline, self.now)
            moment = min(due, computed, waking)
            if moment > until or moment == math.inf:
                return
            wakes = wakes + 1 if moment == self.now and moment == waking else 0
            if wakes > WAKES_AT_ONE_MOMENT:
                raise Violation(f"at {self.now:.6f} the plane asks to be woken again and again")
            self.now = moment
            if moment == due:
                heappop(self._heap)[2]()
            elif moment == computed:
                self.processors.finish(moment)()
            else:
                self._obey(None, self.plane.wake(moment))

    # -- events and commands -------------------------------------------------------------------------------

    def happened(self, event: e.Event) -> None:
        """The plane hears of it now, or as soon as the commands before it are performed."""
        self._happened.append(event)
        if not self._busy:
            self._busy = True
            while self._happened:
                event = self._happened.popleft()
                self._keep(event)
                self._obey(event, self.plane.take(event, self.now))
            self._busy = False

    def _keep(self, event: e.Event) -> None:
        """Note what the next server has to know."""
        match event:
            case e.FunctionDeclared(function=function):
                self.declared[function] = event
                self.updated[function] = []
            case e.SettingsUpdated(function=function):
                self.updated.setdefault(function, []).append(event)
            case e.FunctionRemoved(function=function):
                self.declared.pop(function, None)
                for caller in self.callers.values():
                    caller.cancelled = caller.cancelled or caller.function == function
            case e.CallCancelled(call=call):
                self.callers[call].cancelled = True
            case e.InputCancelled(call=call, position=position):
                self.callers[call].unwanted[position] = None
            case e.OwnerLeft(owner=owner):
                for caller in self.callers.values():
                    caller.cancelled = caller.cancelled or caller.owner == owner
            case e.InputsEnded(call=call):
                self.callers[call].ended = True

    def _obey(self, event: e.Event | None, commands: list[c.Command]) -> None:
        self.decisions += 1
        if self.decisions > self.most_decisions:
            raise Violation(f"at {self.now:.6f}, after {self.most_decisions:,} decisions, there is still no end")
        deadline = self.plane.deadline()
        self.watch.saw(event, commands, self.now, settled=deadline is None or deadline > self.now)
        outer, self._busy = self._busy, True
        for command in commands:
            self._perform(command)
        self._busy = outer
        if not outer and self._happened:
            self.happened(self._happened.popleft())

    def _perform(self, command: c.Command) -> None:
        match command:
            case c.Grant():
                caller = self.callers[command.call]
                work = Work(command.range, caller, command.first, command.start, command.stop, command.start)
                self.highest_id = max(self.highest_id, command.range)
                self._say(command.container, lambda process: process.assign(work))
            case c.Deliver(call=call, count=count) | c.Fail(call=call, count=count):
                caller = self.callers[call]
                if isinstance(command, c.Deliver):
                    caller.delivered(command.start, count, self.now)
                else:
                    caller.failed += count
                caller.unsettled -= count
                self._offer(caller)
            case c.Start(container=container, function=function):
                self._start(container, function)
            case c.Drain(container=container):
                self._say(container, Process.drain)
            case c.Kill(container=container):
                if process := self.processes.get(container):
                    self.exit(process, "it was killed")
            case c.Sample():
                self._sample(command)
            case c.TakeBack(container=container, range=number):
                self._say(container, lambda process: process.give_back(number))
            case c.CancelRange(container=container, range=number):
                self._say(container, lambda process: process.cancel(number))
            case c.FinishCall(call=call):
                self.callers[call].finished = True
            case c.Accept(call=call, first=first, count=count):
                caller = self.callers[call]
                caller.segments.append((first, count))
                caller.submitted += count
                caller.unsettled += count
                caller.offering = False
                self._offer(caller)
            case c.Refuse():
                self._refused(command)
            case c.Invite(call=call):
                self.callers[call].offering = False
                self._offer(self.callers[call])

    def _refused(self, command: c.Refuse) -> None:
        caller = self.callers[command.call]
        if command.missing or caller.kind == "remote":
            caller.refused += len(caller.services) - caller.submitted
            caller.services = caller.services[: caller.submitted]

    # -- clients -------------------------------------------------------------------------------------------

    def offer_again(self, caller: Caller) -> None:
        """The server is another one: it knows nothing of what was refused before."""
        caller.offering = False
        self._offer(caller)

    def _offer(self, caller: Caller) -> None:
        """Send the next segment, as the SDK does: the first input alone, the others together, within the window."""
        first, total = caller.submitted, len(caller.services)
        if caller.offering or first >= total:
            return
        room = total if caller.kind == "spawn" else MAP_WINDOW - caller.unsettled
        count = min(SEGMENT_INPUTS if first else 1, total - first, room)
        if count > 0:
            caller.offering = True
            last = first + count == total and not self.faults.ends_apart
            caller.ended = caller.ended or last
            written = self.faults.spools and caller.kind == "spawn" and total == 1 and caller.call[-1] in "13579"
            self.happened(
                e.InputsSubmitted(caller.call, caller.function, caller.kind, first, count, last, caller.owner, written)
            )
            if first + count == total and not last:
                self.at(self.now + self.faults.delay(self.random), lambda: self._end_inputs(caller))

    def _end_inputs(self, caller: Caller) -> None:
        if caller.offering:
            self.at(self.now + 1.0, lambda: self._end_inputs(caller))
        else:
            self.happened(e.InputsEnded(caller.call, len(caller.services)))

    # -- containers ----------------------------------------------------------------------------------------

    def _start(self, container: str, function: str) -> None:
        declared, behaviour = self.declared[function], self.behaviours[function]
        self.highest_id = max(self.highest_id, int(container.rpartition("-")[2]))
        process = Process(self, container, function, declared.spec, declared.version, behaviour, self.now, self.life)
        self.processes[container] = process
        self.starts += 1
        self.peak = max(self.peak, len(self.processes))
        self.memory_used += behaviour.memory_bytes
        self.faults.container_starts(self, process)
        process.start()
        if self.memory_used > self.machine.memory_bytes:
            self.out_of_memory += 1
            victim = self.random.choice(list(self.processes.values()))
            self.exit(victim, "killed by signal 9 (SIGKILL): the machine ran out of memory", out_of_memory=True)

    def exit(self, process: Process, reason: str, *, out_of_memory: bool = False) -> None:
        """The container's process ends now; the plane hears of it after everything it sent."""
        if process.gone:
            return
        process.end()
        self.container_seconds += self.now - process.started_at
        self.memory_used -= process.behaviour.memory_bytes
        del self.processes[process.id]
        moment, life = max(process.told_until, self.now + EXIT_SECONDS), process.connected
        event = e.ContainerExited(process.id, reason, out_of_memory)
        self.at(moment, lambda: self.happened(event) if life == self.life else None)

    def tell(self, process: Process, event: e.Event) -> None:
        """A container sends the event; it arrives a moment later, in order."""
        process.told_until = moment = max(process.told_until, self.now + self._latency())
        life = process.connected
        self.at(moment, lambda: self.happened(event) if life == self.life else None)

    def _say(self, container: str, action: Callable[[Process], Any]) -> None:
        process = self.processes.get(container)
        if process is not None:
            process.heard_until = moment = max(process.heard_until, self.now + self._latency())
            life = self.life
            self.at(moment, lambda: None if process.gone or life != self.life else action(process))

    def _latency(self) -> float:
        return self.machine.latency_seconds * (1.0 if self.faults.calm else self.random.expovariate(1.0))

    def _sample(self, command: c.Sample) -> None:
        self.processors.advance(self.now)
        measured = [self.processes[name] for name in command.containers if name in self.processes]
        self._happened.append(
            e.UsageSampled(
                command.function,
                tuple((process.id, process.cpu_seconds()) for process in measured),
                measured[0].behaviour.memory_bytes if measured else None,
                self.machine.cores,
                self.machine.memory_bytes - self.memory_used,
            )
        )

    def seconds_of_containers(self) -> float:
        """Container-seconds so far, those of living ones included."""
        return self.container_seconds + sum(self.now - process.started_at for process in self.processes.values())
