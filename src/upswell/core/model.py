"""The state of the core: calls, the segments they come in, the ranges containers hold, and containers.

Plain values with few mutable fields; every field has its law beside it. Rules live in the modules that use them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from typing import Literal

import msgspec

from ..spec import CallKind, FunctionSpec

KilledFor = Literal["", "timeout", "start", "cancelled"]


class Segment(msgspec.Struct, eq=False):
    """Consecutive inputs of a call that were submitted, and are serialised, together."""

    first: int
    count: int
    unsettled: int  # 0 exactly when the payload may be forgotten
    holders: set[str] = set()  # containers that were granted a part of it


class Span(msgspec.Struct, eq=False):
    """Inputs `start .. stop` of one segment that wait in a queue."""

    call: Call
    segment: Segment
    start: int
    stop: int
    since: float = 0.0  # the moment they were submitted; 0 where they have been in a container before

    def __len__(self) -> int:
        return self.stop - self.start


class Call(msgspec.Struct, eq=False):
    """One `.remote`, `.map` or `.spawn`: its segments, what of it waits, and what became of its difficult inputs."""

    id: str
    function: str
    kind: CallKind
    owner: str
    submitted: int = 0  # inputs taken so far; the next segment begins here
    unsettled: int = 0  # inputs taken and neither delivered nor failed
    failed: int = 0  # inputs; for people
    total: int | None = None  # known once the last input was submitted
    cancelled: str = ""  # why nothing of it is granted any more; "" while it goes on
    waiting: deque[Span] = msgspec.field(default_factory=deque)  # no other place holds these inputs
    segments: dict[int, Segment] = {}  # by first position; only unsettled ones
    ranges: dict[int, Range] = {}  # those that containers hold
    failures: dict[int, int] = {}  # position → attempts that failed, only where there are any; of unsettled segments
    losses: dict[int, int] = {}  # position → containers that died under it, likewise
    unwanted: dict[int, bool] = {}  # cancelled inputs that ranges hold → whether their containers are to die with them

    def forget_attempts(self, segment: Segment) -> None:
        """No input of the segment is tried again."""
        gone = range(segment.first, segment.first + segment.count)
        self.failures = {position: count for position, count in self.failures.items() if position not in gone}
        self.losses = {position: count for position, count in self.losses.items() if position not in gone}


class Range(msgspec.Struct, eq=False):
    """Inputs of one segment that one container was granted; `next` is the first without a result.

    They run in order, one at a time; those of a batch run together with the other ranges of that batch.
    """

    id: int
    container: Container
    call: Call
    segment: Segment
    start: int
    stop: int
    next: int
    heard_at: float  # the input at `next` did not begin before this
    batch: int = 0  # the batch it is a part of; never taken back then
    chunks: int = 0  # of a generator, passed on to the owner: once there are any, the input can't be tried again
    suspended: bool = False  # its input waits for a nested call or for its consumer, and lends its place
    wanted_back: bool = False  # its tail was asked for, or came: there is nothing more to fetch
    returned: bool = False  # its tail came: of what is left only the last input has not ended
    is_ending: bool = False  # its container was told to end what is left of it, as nobody wants that

    def __len__(self) -> int:
        return self.stop - self.next


class State(Enum):
    """The life of a container; it only moves down this list."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # gets no work, and is drained once what it has begun has ended
    ENDING = "ending"  # drained or killed; gets no work, its exit is yet to come


class Container(msgspec.Struct, eq=False):
    """One process that runs inputs of one pool."""

    id: str
    spec: FunctionSpec  # as its function was declared when it was started
    state: State
    started_at: float
    heard_at: float  # the last sign of life: ready, a result, a grant while idle
    version: int = 0  # of its function; it is outdated where the function has another by now
    idle_since: float = 0.0  # meaningful while it is ready and holds nothing
    starting_beside: int = 0  # containers of the pool that were starting when it was started
    ranges: dict[int, Range] = {}  # in the order they were granted
    places: dict[int, int] = {}  # range or batch that takes a place → its ranges not suspended
    inputs: int = 0  # without a result, of ranges not suspended
    retired_for: str = ""  # why it gets no more work
    killed_for: KilledFor = ""  # why the core killed it
    proven: bool = False  # it has ended an input, so its start was good
    blameless: bool = False  # it said itself which input ends it, so its exit blames none
    # What it adds to the sums of its pool; kept by Containers.recount and by nothing else.
    running: int = 0  # inputs
    unstarted: int = 0
    room: int = 0  # places that are free
    bucket: int | None = None  # places that are free below its target; None: it has no room, or can't take work

    def is_new(self, now: float, seconds: float) -> bool:
        """Whether it has been ready for no longer than `seconds`, and has ended no input."""
        return not self.proven and now < self.idle_since + seconds

    def hold(self, held: Range) -> None:
        """The range is granted."""
        self.ranges[held.id] = held
        self._count(held, 1, len(held))

    def advance(self, held: Range, inputs: int) -> None:
        """So many more inputs of the range have a result."""
        held.next += inputs
        self._count(held, 0, -inputs)

    def shorten(self, held: Range, stop: int) -> None:
        """The range ends earlier now."""
        before, held.stop = held.stop, stop
        self._count(held, 0, stop - before)

    def suspend(self, held: Range, suspended: bool) -> None:
        """Its input lends its place, or has it back."""
        if held.suspended != suspended:
            held.suspended = False  # or it would not be counted
            sign = -1 if suspended else 1
            self._count(held, sign, sign * len(held))
            held.suspended = suspended

    def release(self, held: Range) -> None:
        """The range has ended."""
        self._count(held, -1, -len(held))
        del self.ranges[held.id]

    def _count(self, held: Range, ranges: int, inputs: int) -> None:
        if not held.suspended:
            self.inputs += inputs
            if ranges:
                place = held.batch or held.id
                left = self.places.get(place, 0) + ranges
                if left:
                    self.places[place] = left
                else:
                    del self.places[place]

    def started(self) -> set[int]:
        """The ranges with an input that has begun: the suspended, and the first, as many as have places."""
        running = set(islice(self.places, self.spec.concurrency.max_inputs))
        begun = (held for held in self.ranges.values() if held.suspended or (held.batch or held.id) in running)
        return {held.id for held in begun}

    def to_take_back(self) -> Iterator[Range]:
        """The ranges with an input that may not have begun and was not asked back, the one to start last first."""
        started = self.started()
        if len(self.places) > self.spec.concurrency.max_inputs:
            # A place that was lent may be taken back just as it is granted again: only the container knows who has it.
            started = {held.id for held in self.ranges.values() if held.suspended or held.next > held.start}
        ranges = reversed(self.ranges.values())
        return (held for held in ranges if len(held) > (held.id in started) and not held.wanted_back)
