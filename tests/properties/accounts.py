"""What is known of the functions, calls, inputs and containers of a history from events and commands alone.

Plain values, as the core must believe them to be; `World` keeps them and asserts the laws on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from upswell.spec import AutoscalerSettings, FunctionSpec

from .process import Process


@dataclass(eq=False)
class Input:
    """Where an accepted input is: nowhere in a container (`holder` empty), in one, or settled."""

    holder: str = ""
    settled: bool = False
    not_before: float = 0.0  # its next attempt may wait until then
    failures: int = 0  # attempts that failed by its own doing, as told by its container
    allowed: int = 0  # so many of them were allowed when the last one came
    blows: int = 0  # containers that ended while it was the next of its range, or in a batch
    losses: int = 0  # of these, the ones that certainly cost it an attempt
    since: float = 0.0  # when it was submitted; 0 once it has been in a container, which is wait enough for a batch
    yielded: bool = False  # chunks of it were passed on
    unwanted: bool = False  # it was cancelled, and not its call
    dies: bool = False  # ... with its container


@dataclass(eq=False)
class Held:
    """A range as the core must believe it to be, from what it has been told."""

    call: Account
    start: int
    next: int
    stop: int
    place: int  # what takes a place: the range, or the batch it is a part of
    batch: int = 0
    chunks: int = 0  # passed on
    suspended: bool = False


@dataclass(eq=False)
class Account:
    """A call and its inputs."""

    id: str
    pool: Declared
    kind: str
    owner: str
    inputs: list[Input] = field(default_factory=list)
    segments: dict[int, int] = field(default_factory=dict)  # first → count; those not forgotten
    ended: bool = False
    cancelled: str = ""  # why
    finished: bool = False
    offer: tuple[int, bool] | None = None  # a segment that was refused: its size, and whether it is the last
    invited: bool = False

    def unsettled(self) -> int:
        return sum(not one.settled for one in self.inputs)


@dataclass(eq=False)
class Declared:
    """A function as declared last, until it is removed."""

    name: str
    spec: FunctionSpec
    ephemeral: bool
    settings: AutoscalerSettings
    version: int = 0
    alive: bool = True
    failed_starts: int = 0
    containers: dict[str, Known] = field(default_factory=dict)
    calls: list[Account] = field(default_factory=list)

    def present(self) -> int:
        return self.count("starting", "ready")

    def is_above_maximum(self) -> bool:
        return self.settings.ceiling is not None and self.present() > self.settings.ceiling

    def count(self, *states: str) -> int:
        return sum(known.state in states for known in self.containers.values())

    def waiting(self, now: float, *, surely: bool) -> list[Input]:
        """The inputs that a container could take; where one's last container ended, that is sure only after a delay."""
        there = (one for call in self.calls if not call.finished for one in call.inputs)
        return [
            one
            for one in there
            if not one.settled and not one.holder and (one.not_before <= now or (one.blows and not surely))
        ]

    def is_due(self, now: float, *, surely: bool) -> bool:
        """Whether what waits may be granted: where batches are formed, one is full, or its oldest input has waited."""
        concurrency = self.spec.concurrency
        if not concurrency.batch_size:
            return True
        waiting, wait = self.waiting(now, surely=surely), concurrency.batch_wait_ms / 1000
        return len(waiting) >= concurrency.batch_size or any(one.since + wait <= now for one in waiting)


@dataclass(eq=False)
class Known:
    """A container as the core must believe it to be."""

    process: Process
    pool: Declared
    spec: FunctionSpec  # as declared when it was started
    version: int
    started_at: float
    state: str = "starting"
    heard_at: float = 0.0
    idle_since: float = 0.0
    held: dict[int, Held] = field(default_factory=dict)

    def is_outdated(self) -> bool:
        return self.version != self.pool.version

    def active(self) -> int:
        """Places that are taken."""
        return len({held.place for held in self.held.values() if not held.suspended})

    def has_room(self) -> bool:
        if self.state != "ready" or (self.spec.single_use and self.held):
            return False
        return self.active() < self.spec.concurrency.max_inputs
