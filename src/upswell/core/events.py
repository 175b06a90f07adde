"""What can happen, as past participles. The shell makes them; `Plane.handle` takes them.

Positions are those of inputs within their call, spans are half open, moments are the caller's `now`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..spec import FunctionSpec, SettingsUpdate
from .snapshot import SavedCall


@dataclass(frozen=True, slots=True)
class FunctionDeclared:
    """A function exists from now on, with a pool of its own. Declared again, its spec replaces the earlier one."""

    function: str
    spec: FunctionSpec
    ephemeral: bool = True


@dataclass(frozen=True, slots=True)
class FunctionRemoved:
    """The function's app is stopped: its calls are cancelled and its containers drained."""

    function: str


@dataclass(frozen=True, slots=True)
class SettingsUpdated:
    """Settings to lay over the present ones."""

    function: str
    update: SettingsUpdate


@dataclass(frozen=True, slots=True)
class InputsSubmitted:
    """A segment: inputs `first .. first + count` of a call. The first segment of a call makes the call."""

    call: str
    function: str
    kind: Literal["remote", "map", "spawn", "generator"]
    first: int
    count: int
    last: bool
    owner: str = ""  # the connection that ends with the call; "" for a call that nobody needs to wait for


@dataclass(frozen=True, slots=True)
class InputsEnded:
    """The call has `total` inputs and no more come."""

    call: str
    total: int


@dataclass(frozen=True, slots=True)
class CallCancelled:
    """With `running` false the inputs that have started go on to their end; with `terminate` their containers die."""

    call: str
    running: bool = True
    terminate: bool = False


@dataclass(frozen=True, slots=True)
class OwnerLeft:
    """The connection is gone: its calls are cancelled."""

    owner: str


@dataclass(frozen=True, slots=True)
class CallRestored:
    """A call that outlived an earlier plane: it goes on here. Its function is declared; if not, its inputs fail."""

    saved: SavedCall


@dataclass(frozen=True, slots=True)
class ContainerReady:
    """User code is loaded and its start-up hooks have run."""

    container: str
    startup_seconds: float


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The container could not load user code; its exit follows as `ContainerExited`."""

    container: str
    message: str


@dataclass(frozen=True, slots=True)
class ContainerExited:
    """The process is gone and everything it sent has been handled. Every started container exits exactly once."""

    container: str
    reason: str
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class ResultsReceived:
    """Outputs of the range, in order; `seconds` and `cpu_seconds` are sums over them."""

    container: str
    range: int
    start: int
    count: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class FailureReceived:
    """The input at `position` raised, or ran out of time. `fatal`: the container exits because of it."""

    container: str
    range: int
    position: int
    seconds: float
    cpu_seconds: float
    kind: Literal["user", "timeout", "memory", "cancelled", "unreadable"]
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class ChunksReceived:
    """The generator of the range has yielded its chunks `first .. first + count`."""

    container: str
    range: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class RangeReturned:
    """The inputs of the range from `stop` on were not started by the container and will not be."""

    container: str
    range: int
    stop: int


@dataclass(frozen=True, slots=True)
class InputSuspended:
    """The input the range is at waits for a nested call, or for the consumer of what it yields, and lends its place.

    The range's tail was returned before. Of a batch every range is suspended.
    """

    container: str
    range: int


@dataclass(frozen=True, slots=True)
class InputResumed:
    """The input has its place back."""

    container: str
    range: int


@dataclass(frozen=True, slots=True)
class UsageSampled:
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
    | OwnerLeft
    | CallRestored
    | ContainerReady
    | StartFailed
    | ContainerExited
    | ResultsReceived
    | FailureReceived
    | ChunksReceived
    | RangeReturned
    | InputSuspended
    | InputResumed
    | UsageSampled
)
