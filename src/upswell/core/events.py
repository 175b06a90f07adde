"""What can happen, as past participles. The shell makes them; `Plane.handle` takes them.

Positions are those of inputs within their call, spans are half open, moments are the caller's `now`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..capacity import Capacity
from ..spec import CallKind, FunctionSpec, SettingsUpdate, Strategy
from .snapshot import SavedCall

STOPPED = "its app is stopped"


class FunctionDeclared(msgspec.Struct, frozen=True, gc=False):
    """A function exists from now on, with a pool of its own.

    Declared again, it goes on with its queue, calls and containers under another declaration, and what was laid over
    its settings is gone. Its containers of another `version` are outdated: `rolling` replaces them one by one,
    `recreate` at once.
    """

    function: str
    spec: FunctionSpec
    ephemeral: bool = True
    version: int = 0
    strategy: Strategy = "rolling"


class FunctionRemoved(msgspec.Struct, frozen=True, gc=False):
    """The function is no more: its calls are cancelled and its containers drained, for this reason."""

    function: str
    reason: str = STOPPED


class SettingsUpdated(msgspec.Struct, frozen=True, gc=False):
    """Settings to lay over the present ones."""

    function: str
    update: SettingsUpdate


class InputsSubmitted(msgspec.Struct, frozen=True, gc=False):
    """A segment: inputs `first .. first + count` of a call. The first segment of a call makes the call."""

    call: str
    function: str
    kind: CallKind
    first: int
    count: int
    last: bool
    owner: str = ""  # the connection that ends with the call; "" for a call that nobody needs to wait for
    accepted: bool = False  # earlier, and kept: it is not refused, it can only fail


class InputsEnded(msgspec.Struct, frozen=True, gc=False):
    """The call has `total` inputs and no more come."""

    call: str
    total: int


class CallCancelled(msgspec.Struct, frozen=True, gc=False):
    """With `running` false the inputs that have started go on to their end; with `terminate` their containers die."""

    call: str
    running: bool = True
    terminate: bool = False


class InputCancelled(msgspec.Struct, frozen=True, gc=False):
    """Nobody wants this input any more; the others of its call go on. With `terminate` its container dies if it runs.

    One that runs together with others of its call, in a batch, goes on to its end.
    """

    call: str
    position: int
    terminate: bool = False


class OwnerLeft(msgspec.Struct, frozen=True, gc=False):
    """The connection is gone: its calls are cancelled."""

    owner: str


class CallRestored(msgspec.Struct, frozen=True, gc=False):
    """A call that outlived an earlier plane: it goes on here. Its function is declared; if not, its inputs fail."""

    saved: SavedCall


class Recovered(msgspec.Struct, frozen=True, gc=False):
    """What an earlier life of the server left: functions, settings, calls, and last the containers that re-joined.

    Nothing is started or granted before all of it is known.
    """

    events: tuple[FunctionDeclared | SettingsUpdated | CallRestored | ContainerRejoined, ...]


class ContainerEvent(msgspec.Struct, frozen=True, gc=False):
    """Base of all that a container says, and that happens to one; of a container that is not known it means nothing."""

    container: str


class ContainerReady(ContainerEvent, frozen=True, gc=False):
    """User code is loaded and its start-up hooks have run."""


class HeldRange(msgspec.Struct, frozen=True, gc=False):
    """What a container holds of a range it was granted: the inputs `next .. stop` have no result that it has sent.

    `chunks` is the first one that it will send, of a generator. Results that it sends once more, from before `next`,
    come in the same parts as before.
    """

    range: int
    call: str
    first: int  # of the segment
    next: int
    stop: int
    batch: int = 0
    chunks: int = 0
    suspended: bool = False


class ContainerRejoined(msgspec.Struct, frozen=True, gc=False):
    """A container that is ready has made its connection anew, to this server or to the one that follows it.

    `ranges` are all it holds, in the order it was granted them. What is not its own any more, because it is settled,
    cancelled, or granted to somebody else by now, or its call is not known, it is told to cancel. A container that was
    told to exit does so, and does not re-join.
    """

    container: str
    function: str
    version: int
    ranges: tuple[HeldRange, ...] = ()
    spec: FunctionSpec | None = None  # of that version; None: the present one's, or nobody knows


class StartFailed(ContainerEvent, frozen=True, gc=False):
    """The container could not load user code; its exit follows as `ContainerExited`."""

    message: str


class ContainerExited(ContainerEvent, frozen=True, gc=False):
    """The process is gone and everything it sent has been handled. Every started container exits exactly once."""

    reason: str
    out_of_memory: bool = False


class ContainerStopped(ContainerEvent, frozen=True, gc=False):
    """Somebody wants the container ended: what it holds goes to others."""


class ResultsReceived(ContainerEvent, frozen=True, gc=False):
    """Outputs of the range, in order; `seconds` and `cpu_seconds` are sums over them."""

    range: int
    start: int
    count: int
    seconds: float
    cpu_seconds: float


class FailureReceived(ContainerEvent, frozen=True, gc=False):
    """The input at `position` raised, or ran out of time. `fatal`: the container exits because of it."""

    range: int
    position: int
    seconds: float
    cpu_seconds: float
    kind: Literal["user", "timeout", "memory", "cancelled", "unreadable"]
    fatal: bool = False


class ChunksReceived(ContainerEvent, frozen=True, gc=False):
    """The generator of the range has yielded its chunks `first .. first + count`."""

    range: int
    first: int
    count: int


class RangeReturned(ContainerEvent, frozen=True, gc=False):
    """The inputs of the range from `stop` on were not started by the container and will not be."""

    range: int
    stop: int


class InputSuspended(ContainerEvent, frozen=True, gc=False):
    """The input the range is at waits for a nested call, or for the consumer of what it yields, and lends its place.

    The range's tail was returned before. Of a batch every range is suspended.
    """

    range: int


class InputResumed(ContainerEvent, frozen=True, gc=False):
    """The input has its place back."""

    range: int


class NodesChanged(msgspec.Struct, frozen=True, gc=False):
    """Nodes have come or gone, and this is what there is now."""

    capacity: Capacity


class UsageSampled(msgspec.Struct, frozen=True, gc=False):
    """Answer to `Sample`: CPU seconds so far of containers, bytes of memory of one of them, and what the node has."""

    function: str
    cpu_seconds: tuple[tuple[str, float], ...]
    memory_bytes: int | None
    cores: float
    memory_available: int


Event = (
    FunctionDeclared
    | FunctionRemoved
    | SettingsUpdated
    | InputsSubmitted
    | InputsEnded
    | CallCancelled
    | InputCancelled
    | OwnerLeft
    | CallRestored
    | Recovered
    | ContainerRejoined
    | ContainerReady
    | StartFailed
    | ContainerExited
    | ContainerStopped
    | ResultsReceived
    | FailureReceived
    | ChunksReceived
    | RangeReturned
    | InputSuspended
    | InputResumed
    | NodesChanged
    | UsageSampled
)
