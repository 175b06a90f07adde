"""What the core asks of the world, as imperatives. The shell performs them in order."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..spec import Gpu

FailureKind = Literal["user", "cancelled", "lost", "memory", "timeout", "start", "unreadable"]


class Accept(msgspec.Struct, frozen=True, gc=False):
    """Tell the owner that the segment is taken."""

    call: str
    first: int
    count: int


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """Tell the owner that the segment is not taken, and drop it. `reason` names the limit and what to do."""

    call: str
    first: int
    count: int
    reason: str
    missing: bool = False  # the function does not exist (any more)


class Invite(msgspec.Struct, frozen=True, gc=False):
    """Tell the owner of a call whose segment was refused that there is room again."""

    call: str


class Start(msgspec.Struct, frozen=True, gc=False):
    """Start a container of the function. The core has chosen its id, and the GPUs that it has for itself."""

    container: str
    function: str
    gpus: tuple[Gpu, ...] = ()  # one alternative of those that the function asks for, or none


class Retire(msgspec.Struct, frozen=True, gc=False):
    """The container gets no more work, and is drained once it has ended what it has begun. It need not be told."""

    container: str
    reason: str


class Drain(msgspec.Struct, frozen=True, gc=False):
    """Ask the container to exit; it gets no more work. What it still runs, as its app is stopped, is cancelled."""

    container: str
    reason: str


class Kill(msgspec.Struct, frozen=True, gc=False):
    """End the container now; its exit is reported like any other."""

    container: str
    reason: str


class Grant(msgspec.Struct, frozen=True, gc=False):
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


class TakeBack(msgspec.Struct, frozen=True, gc=False):
    """Ask the container for what it has not started of the range."""

    container: str
    range: int


class CancelRange(msgspec.Struct, frozen=True, gc=False):
    """Tell the container to stop the range's running input and drop the rest."""

    container: str
    range: int


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """The outputs `start .. start + count` that just came are final: pass them to the owner or keep them.

    Issued only in answer to a `ResultsReceived`, for a part or all of it.
    """

    call: str
    start: int
    count: int


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Pass the chunks that just came on to the owner of the generator's call; issued in answer to `ChunksReceived`."""

    call: str
    first: int
    count: int


class Fail(msgspec.Struct, frozen=True, gc=False):
    """The inputs `start .. start + count` failed for good. With kind `user` or `unreadable`, the exception came with
    the event that is being handled; with `start`, with the last `StartFailed` of the function.
    """

    call: str
    start: int
    count: int
    kind: FailureKind
    reason: str
    attempts: int


class RememberAttempts(msgspec.Struct, frozen=True, gc=False):
    """Attempts at the input of a spawned call came to nothing, and it is to be tried again: `failures` were its own
    doing, in `losses` its container died. Whoever restores the call says so.
    """

    call: str
    position: int
    failures: int
    losses: int


class ForgetSegment(msgspec.Struct, frozen=True, gc=False):
    """Every input of the segment is settled: drop its payload here and in `containers`."""

    call: str
    first: int
    containers: tuple[str, ...]


class FinishCall(msgspec.Struct, frozen=True, gc=False):
    """Every input of the call is settled and no more come."""

    call: str


class Complain(msgspec.Struct, frozen=True, gc=False):
    """The function has not the containers that it must have: for some seconds there has been no room for them, or start
    after start has failed. Or one has died, and what it ran is tried again. Say so, once.
    """

    function: str
    reason: str


class Sample(msgspec.Struct, frozen=True, gc=False):
    """Measure CPU time of these containers, the memory of one, and the node; answer with `UsageSampled`."""

    function: str
    containers: tuple[str, ...]


Command = (
    Accept
    | Refuse
    | Invite
    | Start
    | Retire
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
    | Complain
    | Sample
)
