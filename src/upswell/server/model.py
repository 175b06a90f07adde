"""Calls, containers and apps as the shell sees them, beside what the core knows: where to send what, and to whom.

Values with few mutable fields, in the tables of the dispatcher. Whoever changes them has the rules.
"""

from __future__ import annotations

import msgspec

from ..core.snapshot import SavedSegment
from ..engine import ContainerExit
from ..spec import CallKind, FunctionRecord, app_of
from ..store import AppRecord
from ..wire import messages as m
from .connections import Connection
from .window import Window


class Caller(msgspec.Struct, eq=False):
    """A call as the shell sees it: where its outcomes go."""

    connection: Connection | None  # none where the client has left, and the call goes on
    kind: CallKind
    function: str
    method: str = ""  # of an object's, the one that its inputs run
    maker: str = ""  # the app whose container has made it, or `SCHEDULE`
    kept: bool = False  # it outlives the server, and so do its outcomes
    accepted: int = 0  # inputs taken so far
    window: Window = msgspec.field(default_factory=Window)
    total: int = -1
    refusals: int = 0  # of its segments; what was on its way to the store meanwhile is void
    arriving: list[SavedSegment] | None = None  # of a call that an earlier life had, until all of it is here
    holder: tuple[str, int] | None = None  # of a generator's call, the container and the range that run it
    collectors: list[Connection] = []  # who fetches a spawned call's outcomes
    begun_at: float = 0.0  # of one that is not kept, by the calendar

    @property
    def app(self) -> str:
        return app_of(self.function)

    @property
    def offered(self) -> int:
        """Inputs that have come so far."""
        return self.accepted + self.window.waiting

    def tell(self, message: m.Message) -> None:
        """Say something to whoever submits the call, if anybody still does."""
        if self.connection is not None:
            self.connection.send(message)


class Served(msgspec.Struct, eq=False):
    """A container as the shell sees it."""

    id: str
    token: str
    record: FunctionRecord
    version: int = 0  # that its record had when it was started
    connection: Connection | None = None
    exit: ContainerExit | None = None
    explained: bool = False  # why it ends was said in the log
    segments: set[tuple[str, int]] = set()  # payloads it has


class App(msgspec.Struct, eq=False):
    """A running app: who opened it, what it has, who watches it. One with a `record` outlives its opener."""

    id: str
    name: str
    opener: Connection | None
    functions: dict[str, FunctionRecord]
    record: AppRecord | None = None
    version: int = 0
    deployed_at: float = 0.0  # or opened
    watchers: list[Connection] = []
    containers: int = 0
    closing: bool = False
