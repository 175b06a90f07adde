"""A container's process in the simulated world: it does with ranges what the real container does, in simulated time.

Inputs of a range run one after another, results leave after a few milliseconds or at the end of the range, what has
not begun can be given back. Its computing shares one interpreter, and the cores with everybody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core import events as e
from ..spec import GATHER_SECONDS, FunctionSpec
from .processors import Burst

if TYPE_CHECKING:
    from .world import Caller, World

LOOK_SECONDS = 1.5 * GATHER_SECONDS  # results wait no longer than this while an input runs
SLICE_SECONDS = 0.020  # inputs that compute and wait do so by turns of this length
ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a function's containers start and what its inputs do, beside how long they take."""

    start_seconds: float = 0.4  # of a start that waits: for disks, networks, other machines
    start_compute: float = 0.1  # CPU seconds of a start
    compute: float = 0.0  # share of an input's time that it computes
    memory_bytes: int = 50 << 20
    asynchronous: bool = False  # its inputs can be cancelled without ending the container


@dataclass(slots=True, eq=False)
class Work:
    """A range in a container; `position` is the input that runs or is next."""

    range: int
    caller: Caller
    first: int  # of its segment
    position: int
    stop: int
    sent: int
    begun: bool = False
    ended: bool = False
    interrupted: bool = False
    suspended: bool = False
    measured_at: float = 0.0
    computed: float = 0.0  # CPU seconds since results were last sent
    look_planned: bool = False


@dataclass(slots=True, eq=False)
class Process:
    """One container. `serves` turns true when it is ready; `gone` is final."""

    world: World
    id: str
    function: str
    spec: FunctionSpec
    version: int
    behaviour: Behaviour
    started_at: float
    connected: int  # the server's life it has its connection to
    slowness: float = 1.0
    serves: bool = False
    drained: bool = False
    gone: bool = False
    heard_until: float = 0.0  # messages of one connection arrive in their order: when the last one to it does
    told_until: float = 0.0  # ... and the last one from it
    held: dict[int, Work] = field(default_factory=dict)
    busy: int = 0  # places taken
    computed: float = 0.0  # CPU seconds of bursts that ended
    _queued: deque[Work] = field(default_factory=deque)
    _resuming: deque[Work] = field(default_factory=deque)
    _interpreter: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)
    _burst: Burst | None = None

    # -- from birth to readiness -------------------------------------------------------------------

    def start(self) -> None:
        """Compute, then wait, then be ready."""
        self._compute(self.behaviour.start_compute * self.slowness, self._loaded)

    def _loaded(self) -> None:
        self.world.after(self.behaviour.start_seconds * self.slowness, self, self._ready)

    def _ready(self) -> None:
        self.serves = True
        self.world.tell(self, e.ContainerReady(self.id))

    # -- what the server says ------------------------------------------------------------------------

    def assign(self, work: Work) -> None:
        """Run the range when there is a place."""
        self.held[work.range] = work
        self._queued.append(work)
        self._fill()

    def give_back(self, number: int) -> None:
        """Return what has not begun of the range."""
        work = self.held.get(number)
        self.world.tell(self, e.RangeReturned(self.id, number, ALL if work is None else self._shorten(work)))

    def cancel(self, number: int) -> None:
        """Return what has not begun and stop what runs: at once, or with the whole container a moment later."""
        self.give_back(number)
        work = self.held.get(number)
        if work is not None and work.begun and not work.ended:
            self.interrupt(work, "cancelled", self.world.random.choice((0.0, 0.001, 0.5)))

    def interrupt(self, work: Work, kind: str, delay: float) -> None:
        """End the running input of the range with a failure of this kind."""
        position = work.position
        if not work.interrupted:
            work.interrupted = True
            self.world.after(delay, self, lambda: self._interrupt(work, position, kind))

    def drain(self) -> None:
        """Nothing more comes: exit."""
        self.drained = True
        self.world.exit(self, "it was drained")

    def cpu_seconds(self) -> float:
        """CPU time so far, of the burst that runs as well."""
        burst = self._burst
        return self.computed + (self.world.processors.attained - burst.began if burst is not None else 0.0)

    def end(self) -> None:
        """The process is gone."""
        self.gone = True
        if self._burst is not None:
            self.world.processors.abandon(self._burst, self.world.now)

    # -- inputs --------------------------------------------------------------------------------------

    def _fill(self) -> None:
        places = self.spec.concurrency.max_inputs
        while self._resuming and self.busy < places:
            work = self._resuming.popleft()
            self.busy += 1
            work.suspended = False
            self.world.tell(self, e.InputResumed(self.id, work.range))
            self._ended(work)
        while self._queued and self.busy < places:
            work = self._queued.popleft()
            self.busy += 1
            work.begun = True
            work.measured_at = self.world.now
            self._next(work)

    def _next(self, work: Work) -> None:
        if work.position >= work.stop:
            self._send_outputs(work)
            work.ended = True
            del self.held[work.range]
            self.busy -= 1
            self._fill()
            return
        seconds = work.caller.services[work.position] * self.slowness
        self.world.faults.input_begins(self.world, self, work, seconds)

    def run(self, work: Work, seconds: float) -> None:
        """Let the input at the range's position run to its end, which comes after `seconds` if it gets its CPU."""
        share = self.behaviour.compute
        position = work.position
        if share <= 0.0:
            self.world.after(seconds, self, lambda: self._ended(work, position))
        elif share >= 1.0:
            self._compute_for(work, seconds, lambda: self._ended(work, position))
        else:
            self._alternate(work, position, seconds)

    def _alternate(self, work: Work, position: int, left: float) -> None:
        if left <= 1e-9:
            self._ended(work, position)
            return
        slice_seconds = min(SLICE_SECONDS, left)
        share = self.behaviour.compute

        def wait() -> None:
            self.world.after(
                slice_seconds * (1 - share), self, lambda: self._alternate(work, position, left - slice_seconds)
            )

        self._compute_for(work, slice_seconds * share, wait)

    def _ended(self, work: Work, position: int | None = None) -> None:
        """An input returned: its result leaves now or soon, and the next one begins."""
        if work.ended or (position is not None and position != work.position):
            return
        work.position += 1
        work.interrupted = False
        if work.position < work.stop and self.world.now - work.measured_at <= GATHER_SECONDS:
            if not work.look_planned:
                work.look_planned = True
                self.world.after(LOOK_SECONDS, self, lambda: self._look(work))
        elif work.position < work.stop:
            self._send_outputs(work)
        self._next(work)

    def _look(self, work: Work) -> None:
        work.look_planned = False
        if not work.ended:
            self._send_outputs(work)

    def _send_outputs(self, work: Work) -> None:
        count = work.position - work.sent
        if count:
            seconds, cpu = self._measure(work)
            self.world.tell(self, e.ResultsReceived(self.id, work.range, work.sent, count, seconds, cpu))
            work.sent = work.position

    def _measure(self, work: Work) -> tuple[float, float]:
        seconds, cpu = self.world.now - work.measured_at, work.computed
        work.measured_at, work.computed = self.world.now, 0.0
        return seconds, cpu

    def _shorten(self, work: Work) -> int:
        work.stop = min(work.stop, work.position + 1 if work.begun else work.position)
        return work.stop

    # -- inputs that end otherwise ---------------------------------------------------------------------

    def fail(self, work: Work, kind: str, fatal: bool) -> None:
        """The running input failed; the next one begins unless the container ends with it."""
        self._send_outputs(work)
        seconds, cpu = self._measure(work)
        failure = e.FailureReceived(self.id, work.range, work.position, seconds, cpu, kind, fatal)  # type: ignore[arg-type]
        self.world.tell(self, failure)
        work.position += 1
        work.sent = work.position
        work.interrupted = False
        if fatal:
            self.world.exit(self, f"an input ended it: {kind}")
        else:
            self._next(work)

    def _interrupt(self, work: Work, position: int, kind: str) -> None:
        if not work.ended and not work.suspended and work.position == position and work.interrupted:
            self.fail(work, kind, not self.behaviour.asynchronous)

    def suspend(self, work: Work, seconds: float) -> None:
        """The running input waits for a nested call, and lends its place for so long."""
        self._send_outputs(work)
        self.world.tell(self, e.RangeReturned(self.id, work.range, self._shorten(work)))
        self.world.tell(self, e.InputSuspended(self.id, work.range))
        work.suspended = True
        self.busy -= 1
        self.world.after(seconds, self, lambda: self._wants_its_place(work))
        self._fill()

    def _wants_its_place(self, work: Work) -> None:
        self._resuming.append(work)
        self._fill()

    # -- the interpreter: one burst at a time ------------------------------------------------------------

    def _compute_for(self, work: Work, seconds: float, done: Callable[[], None]) -> None:
        def finished() -> None:
            work.computed += seconds
            done()

        self._compute(seconds, finished)

    def _compute(self, seconds: float, done: Callable[[], None]) -> None:
        self._interpreter.append((seconds, done))
        if self._burst is None:
            self._continue()

    def _continue(self) -> None:
        seconds, done = self._interpreter.popleft()

        def finished() -> None:
            self._burst = None
            self.computed += seconds
            if self._interpreter:
                self._continue()
            done()

        self._burst = self.world.processors.compute(seconds, finished, self.world.now)
