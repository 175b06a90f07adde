"""The store seam: what the server keeps, for as long as it lives or for longer. What payloads mean is nobody's business
here.

A store has two faces. Calls that end with their client are kept as long as the process lives, at once and without an
answer. Calls and apps that outlive it are written: what comes from outside is *offered*, and is acted upon once the
store has answered that it is kept; what the core decides is *committed*, and is shown to the world once it is kept.
Steps are kept in the order they came, each whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from .core.snapshot import SavedCall
from .errors import ConflictError, Error, InvalidError, NotFoundError
from .spec import CallKind, FunctionRecord, SettingsUpdate
from .wire.buffers import Block
from .wire.messages import Buffers, ErrorRecord

MAX_FAILURES = 100_000  # that are counted of one call
SCHEDULE = "(schedule)"  # the maker of a call that is one of its function's schedule; no app has such an id

Bytes = bytes | memoryview


class Kept(msgspec.Struct):
    """A payload, and the block of shared memory that belongs to it."""

    payload: Bytes
    block: Block | None = None

    @property
    def buffers(self) -> Buffers | None:
        """Where the block is, for who is to have it."""
        return None if self.block is None else self.block.buffers

    def share(self) -> Kept:
        """The same once more, to be closed apart from this one."""
        return Kept(self.payload, None if self.block is None else self.block.share())

    def close(self) -> None:
        """Let go of the shared memory."""
        if self.block is not None:
            self.block.close()


class Outcome(msgspec.Struct):
    """What became of the inputs `first .. first + count` of a call: their outputs, or with `error` their failure."""

    first: int
    count: int
    kept: Kept
    error: ErrorRecord | None = None


# -- what is kept of deployed apps, and of calls ---------------------------------------------------


class AppRecord(msgspec.Struct, frozen=True):
    """A deployed app and the version of it that is served; 0 when it is stopped.

    One that is `detached` goes on where its client has left, until its calls have ended.
    """

    id: str
    name: str
    version: int
    detached: bool = False


class Version(msgspec.Struct, frozen=True):
    """What one deploy put on the server: functions, and the files of their code by path and digest."""

    app: str  # the app's id
    number: int  # from 1
    tag: str
    deployed_at: float
    functions: tuple[FunctionRecord, ...]
    files: tuple[tuple[str, str], ...] = ()


class VersionHead(msgspec.Struct, frozen=True):
    """A version without what is in it."""

    number: int
    tag: str
    deployed_at: float


class CallRecord(msgspec.Struct, frozen=True):
    """A call that is kept, with or without its outcomes. Moments are seconds since the epoch."""

    id: str
    function: str
    kind: CallKind
    submitted: int  # inputs that are kept; the next segment begins here
    total: int | None
    cancelled: bool
    submitted_at: float
    finished_at: float | None
    expired: bool = False  # finished so long ago that the outcomes are gone
    method: str = ""  # of the object that the function's containers hold
    maker: str = ""  # the app whose container has made the call, or `SCHEDULE`; "" where a program outside has


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a server needs to go on where the last one ended. `first_id` is above every id given out before."""

    first_id: int
    apps: tuple[tuple[AppRecord, Version], ...]  # those that are served
    derived: tuple[FunctionRecord, ...]  # functions of other options or parameters than those that were deployed
    settings: tuple[tuple[str, SettingsUpdate], ...]  # overrides, by function
    fires: tuple[tuple[str, float], ...]  # the last fire of a function's schedule
    calls: tuple[SavedCall, ...]  # those that are not finished
    methods: tuple[tuple[str, str], ...] = ()  # of a call the method that it calls, where there is one
    makers: tuple[tuple[str, str], ...] = ()  # likewise


# -- what a step changes ---------------------------------------------------------------------------


class OpenCall(msgspec.Struct, frozen=True):
    """A call begins; its first segment follows in the same step."""

    call: str
    function: str
    kind: CallKind
    at: float
    method: str = ""
    maker: str = ""


class PutInputs(msgspec.Struct, frozen=True):
    """The next segment of the call. With `last`, no more come."""

    call: str
    first: int
    count: int
    last: bool
    kept: Kept


class WithdrawInputs(msgspec.Struct, frozen=True):
    """The segment was kept and then refused: it never was, nor any after it; with the first one, the call never was.

    Of a call that is not kept there is nothing to withdraw.
    """

    call: str
    first: int


class EndInputs(msgspec.Struct, frozen=True):
    """The call has `total` inputs and no more come."""

    call: str
    total: int


class CancelCall(msgspec.Struct, frozen=True):
    """Nothing of the call is to run any more."""

    call: str


class CancelInput(msgspec.Struct, frozen=True):
    """The input at `position` is not to run any more, and the others of its call are. Where it has ended, or never was,
    nothing is kept of that.
    """

    call: str
    position: int


class PutAttempts(msgspec.Struct, frozen=True):
    """The input at `position` failed so often, and so many containers died under it; it is to be tried again."""

    call: str
    position: int
    failures: int
    losses: int


class PutOutcome(msgspec.Struct, frozen=True):
    """What became of a part of the call, which is settled with that."""

    call: str
    outcome: Outcome


class DropInputs(msgspec.Struct, frozen=True):
    """Every input of the segment is settled."""

    call: str
    first: int


class FinishCall(msgspec.Struct, frozen=True):
    """Every input of the call is settled and no more come; from now on its outcomes are kept for a time."""

    call: str
    at: float


class DropCall(msgspec.Struct, frozen=True):
    """Let go of everything of the call."""

    call: str


class PutFile(msgspec.Struct, frozen=True):
    """The content of a file of code. Kept once however many versions have it, for as long as one does."""

    digest: str
    content: bytes


class PutVersion(msgspec.Struct, frozen=True):
    """A version of an app; its files are kept already, or in the same step."""

    version: Version


class PutApp(msgspec.Struct, frozen=True):
    """The app exists, and this version of it is served. Of several with one name, the latest has the name."""

    app: AppRecord


class DropApp(msgspec.Struct, frozen=True):
    """Let go of the app, its versions and derived functions, the files that no other version has, and its functions'
    settings and fires.
    """

    app: str


class PutDerived(msgspec.Struct, frozen=True):
    """A function of a deployed app with other options or parameters; in place of an earlier one of its id."""

    record: FunctionRecord


class DropDerived(msgspec.Struct, frozen=True):
    """There is no such function any more."""

    function: str


class PutSettings(msgspec.Struct, frozen=True):
    """What is laid over the settings of the function's declaration; `None`: nothing any more."""

    function: str
    settings: SettingsUpdate | None


class PutFire(msgspec.Struct, frozen=True):
    """The function's schedule last fired for this moment; `None`: it has none any more."""

    function: str
    moment: float | None


CallWrite = (
    OpenCall
    | PutInputs
    | WithdrawInputs
    | EndInputs
    | CancelCall
    | CancelInput
    | PutAttempts
    | PutOutcome
    | DropInputs
    | FinishCall
    | DropCall
)
AppWrite = PutFile | PutVersion | PutApp | DropApp | PutDerived | DropDerived | PutSettings | PutFire
Write = CallWrite | AppWrite
Answer = Callable[[Error | None], None]  # `None`: it is kept
Done = Callable[[], None]


def call_of_one(
    call: str, function: str, at: float, kept: Kept, *, method: str = "", maker: str = ""
) -> tuple[OpenCall, PutInputs]:
    """The writes of a spawned call that has one input."""
    return OpenCall(call, function, "spawn", at, method, maker), PutInputs(call, 0, 1, True, kept)


def check_files(version: Version, missing: set[str]) -> None:
    """Raise `InvalidError` where content of the version's files is missing."""
    lost = [path for path, digest in version.files if digest in missing]
    if lost:
        raise InvalidError(f"version {version.number} of {version.app} lacks {', '.join(lost)}: upload it again")


def unknown(call: str) -> NotFoundError:
    """The call is not kept."""
    return NotFoundError(f"there is no call {call}: it never was, or is no longer kept")


def out_of_turn(write: PutInputs) -> ConflictError:
    """The segment is not the next of its call."""
    return ConflictError(
        f"inputs from {write.first} on are not the next of {write.call}: they are here already, others come first, "
        "or the call has ended"
    )


class Store(Protocol):
    """Segments of inputs until they are settled, outcomes that are fetched later, and deployed apps.

    All methods are called on the server's loop, and so is whatever is handed to them.
    """

    # -- as long as the process lives --------------------------------------------------------------

    def put_inputs(self, call: str, first: int, kept: Kept) -> None:
        """Keep the segment of the call that begins at `first`, in place of any that is there."""

    def inputs(self, call: str, first: int) -> Kept:
        """The segment, however it is kept; `KeyError` when it was dropped. It stays the store's."""

    def drop_inputs(self, call: str, first: int) -> None:
        """Let go of the segment, if it is there."""

    def put_outcome(self, call: str, outcome: Outcome) -> None:
        """Keep the outcome of a part of the call."""

    def outcomes(self, call: str, first: int = 0, stop: int | None = None) -> Iterator[Outcome]:
        """The outcomes that were kept when the iteration began, by position, of inputs in `first .. stop`.

        They are read as the iteration advances, which may be much later. Each is its taker's to close.
        """

    def drop_call(self, call: str) -> None:
        """Let go of everything of the call."""

    # -- for longer --------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """Why the last that came for long could not be kept; "" where it was."""

    def offer(self, writes: Sequence[Write], answer: Answer) -> None:
        """Keep all of it, or refuse all of it: `answer` says which, later or at once.

        Blocks remain the caller's, who closes them after the answer. The error is a `ResourceExhaustedError` when
        there is no room; the server can go on.
        """

    def commit(self, writes: Sequence[Write], done: Done) -> None:
        """Keep all of it, however long that takes, and then call `done`; when the disk is full, that is when it no
        longer is. Blocks remain the caller's until then.
        """

    def load(self) -> Snapshot:
        """What to go on with. To be called once, before anything is written."""

    def call(self, call: str) -> CallRecord | None:
        """The call, if it is kept."""

    def calls(self, limit: int = 100, skip: int = 0) -> list[CallRecord]:
        """The latest calls that are kept, the newest first, after `skip` of them."""

    def failures(self, call: str) -> int:
        """How many inputs of the call have failed, counted up to `MAX_FAILURES`."""

    def apps(self) -> list[AppRecord]:
        """All apps that are kept, stopped ones too, the oldest first."""

    def version(self, app: str, number: int) -> Version | None:
        """The version of the app, if it is kept."""

    def version_heads(self, app: str, limit: int = 100) -> list[VersionHead]:
        """The latest versions of the app, the newest first, at little cost however large they are."""

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests whose content is not kept."""

    def file(self, digest: str) -> bytes:
        """The content; `KeyError` when it is not kept."""

    def sweep(self, now: float, done: Done) -> None:
        """Let go, in small steps, of outcomes that were kept long enough, and give room back to the file system."""

    def backup(self, path: str, answer: Answer) -> None:
        """Make a consistent copy at `path`, as of some moment from now on, while everything else goes on."""

    def close(self) -> None:
        """Keep what was committed so far, and let go of everything. Nothing is called any more after this."""
