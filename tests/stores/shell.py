"""A server without a loop or processes: the real core over a real store, whose writes reach the disk when the history
says so, and which can be killed at any moment. It keeps the rule of the store's two faces: what comes from outside
enters the core once it is kept, what the core decides is shown once it is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from upswell import store as s
from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.errors import Error
from upswell.spec import AutoscalerSettings, FunctionSpec, Limits, Retries
from upswell.store import Kept, Outcome, Store, Write
from upswell.wire.messages import ErrorRecord

from .desk import Desk

FUNCTIONS = {
    "f": FunctionSpec(settings=AutoscalerSettings(max_containers=2), retries=Retries(max_retries=2)),
    "g": FunctionSpec(settings=AutoscalerSettings(max_containers=1)),
}
EVERYTHING = 1 << 62  # where a range is returned from that its container does not have
LIMITS = Limits(spawned_pending=40)


@dataclass
class Client:
    """What the world has seen; it outlives the server."""

    function: dict[str, str] = field(default_factory=dict)  # call → its function
    accepted: dict[str, int] = field(default_factory=dict)  # call → inputs it was told are kept
    seen: dict[str, set[int]] = field(default_factory=dict)  # positions whose outcome it was shown
    cancelled: dict[str, set[int]] = field(default_factory=dict)  # positions, where that is kept

    def look(self, store: Store) -> None:
        """After a restart: fetch what there is. What was shown before must be among it."""
        for call in self.function:
            before, self.seen[call] = self.seen.get(call, set()), set()
            for outcome in store.outcomes(call):
                self.show(call, outcome)
            assert before <= self.seen[call], f"{call}: {before - self.seen[call]} were shown and are not kept"

    def show(self, call: str, outcome: Outcome) -> None:
        positions = set(range(outcome.first, outcome.first + outcome.count))
        twice = positions & self.seen.setdefault(call, set())
        assert not twice, f"{call}: {sorted(twice)} were delivered twice"
        self.seen[call] |= positions


class Shell:
    """One life of the server."""

    def __init__(self, desk: Desk, client: Client, now: float) -> None:
        self.store = desk.store
        self.client = client
        self.now = now
        self.containers: dict[str, dict[int, tuple[c.Grant, int]]] = {}  # with their ranges, and how far they are
        self.starting: list[str] = []
        self.ending: list[str] = []
        self._events: deque[e.Event] = deque()
        self._desk = desk
        self._unwritten: deque[tuple[Sequence[Write], Callable[[Error | None], None]]] = deque()
        self._writes: list[Write] = []
        self._shown: list[tuple[str, Outcome]] = []
        snapshot = desk.store.load()
        self.first_id = snapshot.first_id
        self.plane = Plane(LIMITS, cores=2, first_id=snapshot.first_id)
        for function, spec in FUNCTIONS.items():
            self.happened(e.FunctionDeclared(function, spec, ephemeral=False))
        for call in snapshot.calls:
            self.happened(e.CallRestored(call))

    # -- the disk ----------------------------------------------------------------------------------

    def unwritten(self) -> int:
        return len(self._unwritten)

    def write(self, steps: int) -> None:
        """The next steps reach the disk, and what waits for them goes on."""
        for _ in range(min(steps, len(self._unwritten))):
            writes, answer = self._unwritten.popleft()
            answer(self._desk.offer(*writes))

    # -- the client --------------------------------------------------------------------------------

    def submit(self, call: str, function: str, count: int, last: bool) -> None:
        """The client offers the next segment of a call, knowing what is accepted."""
        kept = self.store.call(call)
        first = kept.submitted if kept else 0
        self.client.function[call] = function
        writes: list[Write] = [] if kept else [s.OpenCall(call, function, "spawn", self.now)]
        writes.append(s.PutInputs(call, first, count, last, Kept(f"{call}/{first}".encode())))

        def answer(error: Error | None) -> None:
            if error is None:
                self.happened(e.InputsSubmitted(call, function, "spawn", first, count, last))

        self._unwritten.append((writes, answer))

    def end(self, call: str) -> None:
        """The client has no more inputs."""
        if (kept := self.store.call(call)) is not None and kept.total is None:
            self._say(s.EndInputs(call, kept.submitted), e.InputsEnded(call, kept.submitted))

    def cancel(self, call: str) -> None:
        self._say(s.CancelCall(call), e.CallCancelled(call))

    def cancel_input(self, call: str, choice: int) -> None:
        if (kept := self.store.call(call)) is not None and kept.submitted:
            position = choice % kept.submitted

            def answer(error: Error | None) -> None:
                if error is None:
                    self.client.cancelled.setdefault(call, set()).add(position)
                    self.happened(e.InputCancelled(call, position))

            self._unwritten.append(([s.CancelInput(call, position)], answer))

    def _say(self, write: Write, event: e.Event) -> None:
        self._unwritten.append(([write], lambda error: self.happened(event) if error is None else None))

    # -- containers --------------------------------------------------------------------------------

    def start(self, container: str) -> None:
        self.starting.remove(container)
        self.happened(e.ContainerReady(container))

    def finish(self, container: str, count: int) -> None:
        """The container's first range goes on by so many inputs."""
        grant, position, count = self._next(container, count)
        self.happened(e.ResultsReceived(container, grant.range, position, count, 0.001 * count, 0.001 * count))

    def fail(self, container: str) -> None:
        grant, position, _ = self._next(container, 1)
        self.happened(e.FailureReceived(container, grant.range, position, 0.001, 0.001, "user"))

    def exit(self, container: str) -> None:
        del self.containers[container]
        for others in (self.starting, self.ending):
            if container in others:
                others.remove(container)
        self.happened(e.ContainerExited(container, "killed"))

    def _next(self, container: str, count: int) -> tuple[c.Grant, int, int]:
        ranges = self.containers[container]
        grant, position = next(iter(ranges.values()))
        count = min(count, grant.stop - position)
        if position + count == grant.stop:
            del ranges[grant.range]
        else:
            ranges[grant.range] = (grant, position + count)
        return grant, position, count

    # -- the core ----------------------------------------------------------------------------------

    def happened(self, event: e.Event) -> None:
        """Let the core decide; what must be kept is kept in one step, and shown after."""
        self._events.append(event)
        while self._events:
            self._perform(self.plane.handle(self._events.popleft(), self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._perform(self.plane.wake(self.now))
        while self._events:
            self.happened(self._events.popleft())

    def _perform(self, commands: list[c.Command]) -> None:
        for command in commands:
            match command:
                case c.Start(container=container):
                    assert int(container.removeprefix("co-")) >= self.first_id
                    self.containers[container] = {}
                    self.starting.append(container)
                case c.Grant(container=container, range=number, call=call, first=first):
                    assert bytes(self.store.inputs(call, first).payload) == f"{call}/{first}".encode()
                    again = self.client.cancelled.get(call, set()) & set(range(command.start, command.stop))
                    assert not again, f"{call}: {again} were cancelled"
                    self.containers[container][number] = (command, command.start)
                case c.TakeBack(container=container, range=number) | c.CancelRange(container=container, range=number):
                    _, position = self.containers[container].pop(number, (None, EVERYTHING))
                    self._events.append(e.RangeReturned(container, number, position))
                case c.Drain(container=container) | c.Kill(container=container):
                    self.ending.append(container)
                case _:
                    self._keep(command)
        if self._writes:
            shown, self._shown = self._shown, []
            writes, self._writes = self._writes, []

            def kept(error: Error | None) -> None:
                assert error is None, error
                for outcome in shown:
                    self.client.show(*outcome)

            self._unwritten.append((writes, kept))

    def _keep(self, command: c.Command) -> None:
        match command:
            case c.Accept(call=call, first=first, count=count):
                self.client.accepted[call] = first + count
            case c.Refuse(call=call, first=first):
                self._writes.append(s.WithdrawInputs(call, first))
            case c.Deliver(call=call, start=start, count=count):
                self._settle(call, Outcome(start, count, Kept(b"outputs")))
            case c.Fail(call=call, start=start, count=count, reason=reason):
                self._settle(call, Outcome(start, count, Kept(b""), ErrorRecord("user", "", reason)))
            case c.RememberAttempts(call=call, position=position, failures=failures, losses=losses):
                self._writes.append(s.PutAttempts(call, position, failures, losses))
            case c.ForgetSegment(call=call, first=first):
                self._writes.append(s.DropInputs(call, first))
            case c.FinishCall(call=call):
                self._writes.append(s.FinishCall(call, self.now))

    def _settle(self, call: str, outcome: Outcome) -> None:
        self._writes.append(s.PutOutcome(call, outcome))
        self._shown.append((call, outcome))
