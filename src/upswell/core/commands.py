"""What the core asks of the world, as imperatives. The shell performs them in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FailureKind = Literal["user", "cancelled", "lost", "memory", "timeout", "start", "unreadable"]


@dataclass(frozen=True, slots=True)
class Accept:
    """Tell the owner that the segment is taken."""

    call: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the owner that the segment is not taken, and drop it. `reason` names the limit and what to do."""

    call: str
    first: int
    count: int
    reason: str
    missing: bool = False  # the function does not exist (any more)


@dataclass(frozen=True, slots=True)
class Invite:
    """Tell the owner of a call whose segment was refused that there is room again."""

    call: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container of the function. The core has chosen its id."""

    container: str
    function: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask the container to exit; it gets no more work. What it still runs, as its app is stopped, is cancelled."""

    container: str
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End the container now; its exit is reported like any other."""

    container: str
    reason: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Hand the inputs `start .. stop` of the segment of `call` that begins at `first` to the container."""

    container: str
    range: int
    call: str
    first: int
    count: int
    start: int
    stop: int
    batch: int = 0  # run them in one call with the other ranges of this batch ...
    left: int = 0  # ... of which so many inputs are still to come


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Ask the container for what it has not started of the range."""

    container: str
    range: int


@dataclass(frozen=True, slots=True)
class CancelRange:
    """Tell the container to stop the range's running input and drop the rest."""

    container: str
    range: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """The outputs `start .. start + count` that just came are final: pass them to the owner or keep them.

    Issued only in answer to a `ResultsReceived`, for a part or all of it.
    """

    call: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass the chunks that just came on to the owner of the generator's call; issued in answer to `ChunksReceived`."""

    call: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Fail:
    """The inputs `start .. start + count` failed for good. With kind `user` or `unreadable`, the exception came with
    the event that is being handled; with `start`, with the last `StartFailed` of the function.
    """

    call: str
    start: int
    count: int
    kind: FailureKind
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class RememberAttempts:
    """Attempts at the input of a spawned call came to nothing, and it is to be tried again: `failures` were its own
    doing, in `losses` its container died. Whoever restores the call says so.
    """

    call: str
    position: int
    failures: int
    losses: int


@dataclass(frozen=True, slots=True)
class ForgetSegment:
    """Every input of the segment is settled: drop its payload here and in `containers`."""

    call: str
    first: int
    containers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FinishCall:
    """Every input of the call is settled and no more come."""

    call: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Measure CPU time of these containers, the memory of one, and the node; answer with `UsageSampled`."""

    function: str
    containers: tuple[str, ...]


Command = (
    Accept
    | Refuse
    | Invite
    | Start
    | Drain
    | Kill
    | Grant
    | TakeBack
    | CancelRange
    | Deliver
    | Forward
    | Fail
    | RememberAttempts
    | ForgetSegment
    | FinishCall
    | Sample
)
