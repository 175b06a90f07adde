"""What is on a server, as rows for people and programs, and what its containers wrote.

A listing comes in several answers, so that a long one holds nobody up; the last one says so. Moments are seconds since
the epoch; `None` stands for what is not known, or has not come.
"""

from typing import Literal

import msgspec

from ...spec import AutoscalerSettings, CallKind
from .base import ErrorRecord, Message

MAX_ROWS = 10_000  # of one listing
MAX_LOG_LINES = 100_000  # that one `ReadLogs` asks for

AppState = Literal["running", "detached", "deployed", "stopping", "stopped"]
ContainerState = Literal["starting", "ready", "retiring", "ending"]
CallState = Literal["running", "cancelled", "finished", "expired"]
LogStream = Literal["stdout", "stderr", "server"]


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False, tag_field="row"):
    """Base of all rows."""


class AppInfo(Row, tag="app", frozen=True):
    """An app. `running` ends with its client, `deployed` has versions; counts are sums over its pools."""

    id: str
    name: str
    state: AppState
    version: int  # the one that is served; 0 where it has none
    deployed_at: float | None  # or opened
    functions: int  # pools, those of objects and changed options included
    containers: int  # starting and ready
    pending: int  # inputs not started


class FunctionInfo(Row, tag="function", frozen=True):
    """A pool: what it holds, how it scales and why."""

    id: str
    app: str  # the app's id
    app_name: str
    name: str  # as people see it, such as "Model@1f60c4"
    backlog: int
    running: int
    headroom: int
    succeeded: int
    failed: int
    starting: int
    ready: int
    settings: AutoscalerSettings  # in force, defaults written out
    wanted: int  # containers that the autoscaler last decided on
    rule: str  # the rule that decided ...
    reason: str  # ... and in words
    schedule: str = ""
    next_fire_at: float | None = None
    parameters: str = ""  # of an object, where they are not the defaults, shortened


class ContainerInfo(Row, tag="container", frozen=True):
    """A container."""

    id: str
    app: str
    app_name: str
    function: str  # its pool, as people see it
    state: ContainerState
    version: int  # of its app, from which on containers of its function were like this one
    started_at: float
    running: int  # inputs
    cpu_seconds: float | None  # so far
    memory_bytes: int | None


class CallInfo(Row, tag="call", frozen=True):
    """A call. `inputs` is what was submitted so far; `is_whole` says that no more come."""

    id: str
    app: str
    app_name: str
    function: str  # with the method, where it has one
    kind: CallKind
    state: CallState
    inputs: int
    done: int
    failed: int | None  # of those; unknown once the outcomes are gone
    is_whole: bool
    submitted_at: float | None
    finished_at: float | None


class VersionInfo(Row, tag="version", frozen=True):
    """One version of a deployed app."""

    app: str
    version: int
    tag: str
    deployed_at: float
    is_served: bool


# -- what can be listed ----------------------------------------------------------------------------


class Subject(msgspec.Struct, array_like=True, frozen=True, gc=False, tag_field="subject"):
    """Base of what can be listed."""


class ListApps(Subject, tag="apps", frozen=True):
    """All apps, the newest first: `AppInfo`."""


class ListFunctions(Subject, tag="functions", frozen=True):
    """The pools of an app, or of all: `FunctionInfo`. With `active`, those with containers or inputs."""

    app: str = ""
    active: bool = False


class ListContainers(Subject, tag="containers", frozen=True):
    """The containers of an app, or of all: `ContainerInfo`."""

    app: str = ""


class ListCalls(Subject, tag="calls", frozen=True):
    """The newest calls first, or the one with this id, or what is known of its input at `position`: `CallInfo`."""

    app: str = ""
    call: str = ""
    position: int = -1


class ListVersions(Subject, tag="versions", frozen=True):
    """The versions of a deployed app, the newest first: `VersionInfo`."""

    app: str


class List(Message, tag=85, frozen=True):
    """Ask for at most `limit` rows; answered by one or more `Listed`."""

    request: int
    subject: ListApps | ListFunctions | ListContainers | ListCalls | ListVersions
    limit: int = MAX_ROWS


class Listed(Message, tag=86, frozen=True):
    """Some rows; with `last` the listing is over. `more` then says that the limit has left some out."""

    request: int
    rows: list[AppInfo | FunctionInfo | ContainerInfo | CallInfo | VersionInfo]
    last: bool = False
    more: bool = False


class StopContainer(Message, tag=87, frozen=True):
    """End the container now; what it runs is tried again elsewhere, at no cost to its retries. Answered by `Done`."""

    request: int
    container: str


# -- logs ------------------------------------------------------------------------------------------


class LogEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Whole lines that were written together, by a container or, of stream "server", about it."""

    at: float
    function: str
    container: str  # "" where it is about the app or the function
    stream: LogStream
    text: str


class ReadLogs(Message, tag=88, frozen=True):
    """Ask for the last `lines` of an app's log; answered by `Logged`.

    Of one function or container only, where it is named; for a container the app may be left out. With `follow`, what
    comes later follows until `Unfollow`. With `after`, only what came after the entry of that moment, or where none of
    that moment is kept, what is of later ones.
    """

    request: int
    app: str
    function: str = ""
    container: str = ""
    lines: int = 100
    follow: bool = False
    after: float = 0.0


class Logged(Message, tag=89, frozen=True):
    """Some of the log, the oldest first. With `last`, what was there at the moment `at` has been sent."""

    request: int
    entries: list[LogEntry]
    last: bool = False
    error: ErrorRecord | None = None
    at: float = 0.0


class Unfollow(Message, tag=90, frozen=True):
    """Send nothing more of the log that this `ReadLogs` asked for."""

    request: int
