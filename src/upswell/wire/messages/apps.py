"""Apps and their functions: opened for as long as their client stays, or deployed and called by name."""

from ...spec import FunctionRecord, Strategy
from .base import ErrorRecord, Message

MAX_TAG_CHARACTERS = 300
MAX_VERSION = 1 << 31


class OpenApp(Message, tag=10, frozen=True):
    """Declare an app. It is closed, and its calls cancelled, when the connection ends (ephemeral).

    `files` are path and digest of what every environment's `code` is the digest of; they were sent before.
    """

    app: str
    name: str
    functions: list[FunctionRecord]
    files: tuple[tuple[str, str], ...] = ()


class CloseApp(Message, tag=11, frozen=True):
    """Stop the app: its calls are cancelled, its containers stopped, its logs flushed; the answer is `AppClosed`."""

    app: str


class AttendApp(Message, tag=91, frozen=True):
    """The client that has deployed this detached app is there, also after a restart: the app does not end yet."""

    app: str


class Declare(Message, tag=29, frozen=True):
    """Add a function to an app that runs, from the app's opener or from inside its containers.

    Idempotent: the id says what the function is. Frames that follow on this connection may refer to it.
    """

    app: str
    function: FunctionRecord


class AppClosed(Message, tag=31, frozen=True):
    """The app is stopped, and everything its containers wrote was sent."""

    app: str


# -- deployed apps ---------------------------------------------------------------------------------


class OfferFiles(Message, tag=60, frozen=True):
    """Ask which of these files of code (SHA-256 in hexadecimal) the server lacks; answered by `MissingFiles`."""

    request: int
    digests: list[str]


class MissingFiles(Message, tag=61, frozen=True):
    """Answer to `OfferFiles`: those that are to be sent by `PutFile`."""

    request: int
    digests: list[str]


class PutFile(Message, tag=62, frozen=True):
    """A file of code. Payload: its content, whose digest it is. A later `Deploy` says what is bad."""

    digest: str


class Deploy(Message, tag=63, frozen=True):
    """Serve these functions under the app's name, in place of those of its version before; answered by `Deployed`.

    Ids of functions are those of a new app; where the name is known, the server puts the known app's id in its place.
    `files` are as those of `OpenApp`. An app that is `detached` is known by its id alone, and ends when its client has
    left and its calls have ended.
    """

    request: int
    app: str
    name: str
    functions: tuple[FunctionRecord, ...]
    files: tuple[tuple[str, str], ...]
    tag: str = ""
    strategy: Strategy = "rolling"
    detached: bool = False


class Rollback(Message, tag=64, frozen=True):
    """Serve an earlier version of the app again, as a new version; 0 is the one before. Answered by `Deployed`."""

    request: int
    name: str
    version: int = 0


class Deployed(Message, tag=65, frozen=True):
    """Answer to `Deploy` and `Rollback`. With `unchanged`, that version was served already."""

    request: int
    app: str = ""
    version: int = 0
    unchanged: bool = False
    error: ErrorRecord | None = None


class StopApp(Message, tag=66, frozen=True):
    """Stop serving the deployed app of that name (or id): pending inputs are cancelled. Answered by `Done`."""

    request: int
    name: str


class Done(Message, tag=67, frozen=True):
    """Answer to a request that needs no other; `error` says why it was refused."""

    request: int
    error: ErrorRecord | None = None


class Resolve(Message, tag=68, frozen=True):
    """Ask for a deployed app's function or class by name ("" asks for the app alone). Answered by `Resolved`.

    With `version`, that version must be the one that is served.
    """

    request: int
    app: str
    name: str
    version: int = 0


class Resolved(Message, tag=69, frozen=True):
    """Answer to `Resolve`."""

    request: int
    app: str = ""
    version: int = 0
    function: FunctionRecord | None = None
    error: ErrorRecord | None = None
