"""Calls: their inputs to the server, and what became of them back."""

from ...spec import CallKind
from .base import Buffers, ErrorRecord, Message


class Submit(Message, tag=12, frozen=True):
    """Inputs `first .. first + count` of a call; the first such frame of a call makes it, and where that of a spawned
    call is the last, too, it may have none. Payload: the inputs.
    """

    call: str
    function: str
    kind: CallKind
    first: int
    count: int
    last: bool
    parent: str = ""  # the input that made this call, when made inside a container
    buffers: Buffers | None = None
    method: str = ""  # of the object that the function's containers hold; "" where they hold a function


class Spawned(Message, tag=92, frozen=True):
    """A call of one input, as its maker writes it into a spool (`spool.py`), `at` this moment. Payload: the input."""

    call: str
    function: str
    method: str
    at: float  # seconds since the epoch


class LookAt(Message, tag=93, frozen=True):
    """There is something in the spool of that name, which is the sender's."""

    spool: str


class Restore(Message, tag=81, frozen=True):
    """A segment of a map that the client has begun with an earlier life of the server; `unsettled` has no output yet.

    One that is settled is not sent; where none is left, a `count` of 0 says that the call goes on. `left` more segments
    follow, in order, before the call has `submitted` inputs; further ones come as `Submit`. Payload: the inputs.
    """

    call: str
    function: str
    first: int
    count: int
    unsettled: list[tuple[int, int]]  # half-open spans, in order
    left: int
    submitted: int
    total: int  # -1 while inputs still come
    parent: str = ""
    buffers: Buffers | None = None
    method: str = ""


class EndInputs(Message, tag=13, frozen=True):
    """The call has `total` inputs and no more come (where the last `Submit` could not say so)."""

    call: str
    total: int


class Cancel(Message, tag=14, frozen=True):
    """Cancel what is left of the call: what has not started, with `running` also what has, with `terminate` by killing
    its containers. With a `request` (from 1 on) it is answered by `Done` when that will hold whatever happens.
    With a `position` (from 0 on) only that input is cancelled, whether it has started or not.
    """

    call: str
    running: bool = True
    terminate: bool = False
    request: int = 0
    position: int = -1


class Collect(Message, tag=15, frozen=True):
    """Send the outputs `first .. stop` (-1: all) of a spawned call as they come, to this connection. Idempotent.

    The answer begins with `CallDescribed`, or is `Failed` with kind `missing`.
    """

    call: str
    first: int
    stop: int


class AttendCall(Message, tag=94, frozen=True):
    """The sender may have more inputs for the spawned call, which an earlier life of the server had."""

    call: str


class Uncollect(Message, tag=16, frozen=True):
    """Stop sending outputs of the call here."""

    call: str


class Consumed(Message, tag=24, frozen=True):
    """The consumer of a generator's call has taken so many chunks, and bytes of their payloads, in all.

    The generator may be `STREAM_CHUNKS` and `STREAM_BYTES` ahead of that.
    """

    call: str
    chunks: int
    bytes: int


class Accepted(Message, tag=32, frozen=True):
    """The inputs of a spawned call are taken, and will be settled whatever happens. Other calls learn it by outputs.

    More of its kind may come by a spool for as long as that has the same `permit`, unless it is 0.
    """

    call: str
    first: int
    count: int
    permit: int = 0


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
