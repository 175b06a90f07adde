"""What the server tells its containers, and they answer."""

import msgspec

from ...spec import FunctionRecord
from .base import Buffers, ErrorRecord, Message


class Load(Message, tag=49, frozen=True):
    """The answer to a container's `Hello`, if it does not know it yet: the function it is for.

    `Ready` or `StartFailed` is what the container says next.
    """

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
    may_deliver: bool = False  # outputs may go straight to the client: see `wire/shortcut.py`

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


class Processed(Message, tag=59, frozen=True):
    """The server is done with the first `count` of the `Results`, `Failure` and `Yielded` that came over this
    connection, for good: a server that comes after it will know of them. Said now and then, where one may come.
    """

    count: int


class Ready(Message, tag=70, frozen=True):
    """User code is loaded and its start-up hooks have run."""


class StartFailed(Message, tag=71, frozen=True):
    """User code could not be loaded. Payload: the pickled exception, or nothing."""

    error: ErrorRecord


class Results(Message, tag=72, frozen=True):
    """Outputs of `start .. start + count` of a range; spans of time summed over them. Payload: the values.

    With `delivered` the client has them already, and there is no payload.
    """

    range: int
    start: int
    count: int
    seconds: float
    cpu_seconds: float
    buffers: Buffers | None = None
    delivered: bool = False


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


class Holding(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A range that a container has: its inputs `next .. stop`, of the segment of `call` that begins at `first`.

    From `next` on the server has not said that it is done with outcomes, and of a generator with chunks from `chunks`
    on; where there are any, they follow.
    """

    range: int
    call: str
    first: int
    next: int
    stop: int
    batch: int = 0
    chunks: int = 0
    suspended: bool = False


class Rejoin(Message, tag=79, frozen=True):
    """A container's first word to a server that it was not started by, after `Hello`: all that it has, as it was
    granted. `CancelRange` tells of what it has in vain.
    """

    ranges: list[Holding]
