"""What processes say to one another, as typed values; `codec.py` makes frames of them.

A frame is a message and a payload: opaque bytes that only the two ends of a call read (see `payload.py`). Buffers are
memory that travels beside the payload by reference. Ids are text with a kind prefix; positions count inputs of a call
from 0; spans are half open.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..operations import AnyOperation, Problem
from ..spec import AutoscalerSettings, FunctionRecord, SettingsUpdate

PROTOCOL = 1

CallKind = Literal["remote", "map", "spawn", "generator"]
InputState = Literal["pending", "succeeded", "failed", "failed to start", "terminated", "timed out"]
ErrorKind = Literal[
    "user", "cancelled", "lost", "memory", "timeout", "start", "exhausted", "missing", "unreadable", "invalid"
]


class Message(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True, gc=False):
    """Base of all messages."""


class Buffers(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One block of shared memory that holds the out-of-band buffers of a payload, one after the other, each aligned.

    It is reached as descriptor `descriptor` of process `process` (`/proc/PROCESS/fd/DESCRIPTOR`); who forwards it opens
    it first, so that the block lives until the last reader has it and never outlives the processes.
    """

    process: int
    descriptor: int
    size: int


class ErrorRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A failure as data: readable without unpickling. For kind `user` the payload beside it has the exception."""

    kind: ErrorKind
    type: str  # the exception's qualified name, such as "builtins.ValueError"
    message: str
    traceback: str = ""
    attempts: int = 1


# -- both ways -------------------------------------------------------------------------------------


class Hello(Message, tag=1, frozen=True):
    """The first frame of every connection. `token` of a container is what the engine gave it."""

    protocol: int
    role: Literal["client", "container"]
    token: str
    process: int


class Welcome(Message, tag=2, frozen=True):
    """The answer to a good `Hello`; `address` is where others reach the server, such as "unix:@name"."""

    protocol: int
    process: int
    address: str


class Bye(Message, tag=3, frozen=True):
    """The sender closes this connection, and why."""

    reason: str


# -- client → server -------------------------------------------------------------------------------


class OpenApp(Message, tag=10, frozen=True):
    """Declare an app. It is closed, and its calls cancelled, when the connection ends (ephemeral)."""

    app: str
    name: str
    functions: list[FunctionRecord]


class CloseApp(Message, tag=11, frozen=True):
    """Stop the app: its calls are cancelled, its containers stopped, its logs flushed; the answer is `AppClosed`."""

    app: str


class Submit(Message, tag=12, frozen=True):
    """Inputs `first .. first + count` of a call; the first such frame of a call makes it. Payload: the inputs."""

    call: str
    function: str
    kind: CallKind
    first: int
    count: int
    last: bool
    parent: str = ""  # the input that made this call, when made inside a container
    buffers: Buffers | None = None
    method: str = ""  # of the object that the function's containers hold; "" where they hold a function


class EndInputs(Message, tag=13, frozen=True):
    """The call has `total` inputs and no more come (where the last `Submit` could not say so)."""

    call: str
    total: int


class Cancel(Message, tag=14, frozen=True):
    """Cancel what is left of the call: what has not started, with `running` also what has, with `terminate` by killing
    its containers.
    """

    call: str
    running: bool = True
    terminate: bool = False


class Collect(Message, tag=15, frozen=True):
    """Send the outputs `first .. stop` (-1: all) of a spawned call as they come, to this connection. Idempotent.

    The answer begins with `CallDescribed`, or is `Failed` with kind `missing`.
    """

    call: str
    first: int
    stop: int


class Uncollect(Message, tag=16, frozen=True):
    """Stop sending outputs of the call here."""

    call: str


class Inquire(Message, tag=17, frozen=True):
    """Ask for a function's statistics, or with `update` set change its settings; answered by `Statistics`."""

    request: int
    function: str
    update: SettingsUpdate | None = None


class Release(Message, tag=19, frozen=True):
    """The sender has taken over the block of shared memory `descriptor` of the receiver, which may close it."""

    descriptor: int


class Consumed(Message, tag=24, frozen=True):
    """The consumer of a generator's call has taken so many chunks, and bytes of their payloads, in all.

    The generator may be `STREAM_CHUNKS` and `STREAM_BYTES` ahead of that.
    """

    call: str
    chunks: int
    bytes: int


class DescribeGraph(Message, tag=25, frozen=True):
    """Ask for the inputs of a spawned call and of the calls they made; answered by `CallGraph`."""

    request: str
    call: str


class Watch(Message, tag=18, frozen=True):
    """Send `Progress` of the app's functions to this connection a few times a second while anything changes."""

    app: str


class UseObject(Message, tag=20, frozen=True):
    """Do something with a Dict or a Queue; answered by `ObjectAnswer`, which waits where the operation does.

    Payload: the values, one after the other, each of its size in `sizes`.
    """

    request: int
    object: str
    operation: AnyOperation
    sizes: tuple[int, ...] = ()


class Withdraw(Message, tag=21, frozen=True):
    """Nobody waits for the answer to that `UseObject` any more: it is an empty one, if it is not under way yet."""

    request: int


class Declare(Message, tag=29, frozen=True):
    """Add a function to an app that runs, from the app's opener or from inside its containers.

    Idempotent: the id says what the function is. Frames that follow on this connection may refer to it.
    """

    app: str
    function: FunctionRecord


# -- server → client -------------------------------------------------------------------------------


class AppOpened(Message, tag=30, frozen=True):
    """The app is declared; its functions take inputs."""

    app: str


class AppClosed(Message, tag=31, frozen=True):
    """The app is stopped, and everything its containers wrote was sent."""

    app: str


class Accepted(Message, tag=32, frozen=True):
    """The inputs of a spawned call are taken, and will be settled whatever happens. Other calls learn it by outputs."""

    call: str
    first: int
    count: int


class Refused(Message, tag=33, frozen=True):
    """The inputs are not taken: a limit is reached. Maps and spawn_maps offer them again after `Invited`."""

    call: str
    first: int
    count: int
    error: ErrorRecord


class Invited(Message, tag=34, frozen=True):
    """There is room again for the call whose inputs were refused."""

    call: str


class Outputs(Message, tag=35, frozen=True):
    """The outputs `first .. first + count` of a call. Payload: the values."""

    call: str
    first: int
    count: int
    buffers: Buffers | None = None


class Failed(Message, tag=36, frozen=True):
    """The inputs `first .. first + count` failed for good. Payload: the pickled exception, if it is the user's."""

    call: str
    first: int
    count: int
    error: ErrorRecord


class Chunks(Message, tag=44, frozen=True):
    """What the generator of a call has yielded, from chunk `first` on; its end is `Outputs`. Payload: the values."""

    call: str
    first: int
    count: int
    buffers: Buffers | None = None


class CallDescribed(Message, tag=37, frozen=True):
    """What is known of a spawned call: `total` is -1 while inputs still come."""

    call: str
    total: int


class Log(Message, tag=38, frozen=True):
    """Whole lines that a container wrote: stream 1 or 2; `container` is a short label."""

    app: str
    function: str
    container: str
    stream: int
    text: str


class FunctionProgress(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Counts of one function's inputs and containers."""

    name: str
    pending: int
    running: int
    succeeded: int
    failed: int
    starting: int
    ready: int


class Progress(Message, tag=39, frozen=True):
    """The state of an app's functions, for people."""

    app: str
    functions: list[FunctionProgress]


class Statistics(Message, tag=40, frozen=True):
    """Answer to `Inquire`; `error` is empty or why it was refused."""

    request: int
    backlog: int
    containers: int
    running: int
    headroom: int
    settings: AutoscalerSettings
    decision: str = ""  # the autoscaler's last decision, in words
    error: str = ""


class ObjectAnswer(Message, tag=41, frozen=True):
    """Answer to `UseObject`. Payload: values, or keys, each of its size in `sizes`; -1 says that there is none."""

    request: int
    sizes: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    count: int = 0
    problem: Problem = ""
    reason: str = ""


class GraphInput(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One input in a call graph. `parent` is the input that made its call."""

    input: str
    call: str
    parent: str
    container: str
    state: InputState
    function: str
    module: str


class CallGraph(Message, tag=45, frozen=True):
    """Answer to `DescribeGraph`: parents before their children; `missing` where there is no such call."""

    request: str
    inputs: list[GraphInput]
    missing: bool = False


# -- server → container ----------------------------------------------------------------------------


class Load(Message, tag=49, frozen=True):
    """The answer to a container's `Hello`: the function it is for. It answers with `Ready` or `StartFailed`."""

    function: FunctionRecord


class Assign(Message, tag=50, frozen=True):
    """Run the inputs `start .. stop` of a segment (`first .. first + count` of `call`), one after the other.

    With `batch` set they run in one call of the function, together with the other ranges of that batch, once none of
    its inputs is `left` to come. Payload: the whole segment, or nothing where this container has it already. Every
    output goes back under `range`.
    """

    range: int
    call: str
    first: int
    count: int
    start: int
    stop: int
    buffers: Buffers | None = None
    method: str = ""  # which of the container's service to run
    batch: int = 0
    left: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole segment, so that the container need not keep the payload for another range of it."""
        return self.start == self.first and self.stop == self.first + self.count


class TakeBack(Message, tag=51, frozen=True):
    """Give back what has not been started of the range; answered by `Returned` (also when nothing is left)."""

    range: int


class CancelRange(Message, tag=52, frozen=True):
    """Cancel what is running and drop what is not started of the range; answered by `Returned` with what it dropped."""

    range: int


class Credit(Message, tag=58, frozen=True):
    """What the consumer of the range's generator has taken, in all: see `Consumed`."""

    range: int
    chunks: int
    bytes: int


class Forget(Message, tag=53, frozen=True):
    """The segment is settled: drop its payload."""

    call: str
    first: int


class Drain(Message, tag=54, frozen=True):
    """No more work comes: run the exit hooks, send what is left, and exit with status 0."""

    reason: str


# -- container → server ----------------------------------------------------------------------------


class Ready(Message, tag=70, frozen=True):
    """User code is loaded and its start-up hooks have run."""

    startup_seconds: float


class StartFailed(Message, tag=71, frozen=True):
    """User code could not be loaded. Payload: the pickled exception, or nothing."""

    error: ErrorRecord


class Results(Message, tag=72, frozen=True):
    """Outputs of `start .. start + count` of a range; spans of time summed over them. Payload: the values."""

    range: int
    start: int
    count: int
    seconds: float
    cpu_seconds: float
    buffers: Buffers | None = None


class Failure(Message, tag=73, frozen=True):
    """The input at `position` failed. Payload: the pickled exception, or nothing. `fatal`: the container exits now."""

    range: int
    position: int
    seconds: float
    cpu_seconds: float
    error: ErrorRecord
    fatal: bool = False


class Yielded(Message, tag=78, frozen=True):
    """What the range's generator has yielded, from chunk `first` on. Payload: the values. Its end is `Results`."""

    range: int
    first: int
    count: int
    buffers: Buffers | None = None


class Returned(Message, tag=74, frozen=True):
    """The inputs from `stop` on of the range are not started and will not be."""

    range: int
    stop: int


class Suspended(Message, tag=75, frozen=True):
    """The input that the range is at waits, for a nested call or a generator's consumer, and lends its place.

    Its tail was `Returned` before. Of a batch every range is suspended.
    """

    range: int


class Resumed(Message, tag=76, frozen=True):
    """The input has its place back."""

    range: int


AnyMessage = (
    Hello | Welcome | Bye
    | OpenApp | CloseApp | Submit | EndInputs | Cancel | Collect | Uncollect | Inquire | Watch | Release
    | UseObject | Withdraw | Consumed | DescribeGraph | Declare
    | AppOpened | AppClosed | Accepted | Refused | Invited | Outputs | Failed | Chunks | CallDescribed
    | Log | Progress | Statistics | ObjectAnswer | CallGraph
    | Load | Assign | TakeBack | CancelRange | Credit | Forget | Drain
    | Ready | StartFailed | Results | Failure | Yielded | Returned | Suspended | Resumed
)  # fmt: skip
