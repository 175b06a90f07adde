"""Answers `List`: what is on this server, read from the plane's statistics, the dispatcher's tables and the store.

Nothing is changed here, and nobody is held up: rows are made for a moment in each turn of the loop, and sent as they
are. So a long listing is of no single moment; what ends meanwhile is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from ..clock import Clock
from ..core.plane import Plane
from ..engine import Engine
from ..errors import Error
from ..spec import Cron, Period, app_of, label_of
from ..store import CallRecord
from ..wire import messages as m
from ..wire.codec import ProtocolError
from ..wire.ids import call_of_input
from .connections import Connection
from .dispatcher import Dispatcher
from .model import App, Caller
from .timetable import Timetable

TURN_SECONDS = 0.002  # of a turn of the loop, in which others wait
PAGE_ROWS = 500  # in one answer
WAITING_AT_MOST = 100  # listings that one server has under way
CALLS_AT_ONCE = 100  # read from the store
CALLS_LOOKED_AT = 10_000  # in search of those of one app
VERSIONS_LISTED = 1_000

Row = m.AppInfo | m.FunctionInfo | m.ContainerInfo | m.CallInfo | m.VersionInfo
Rows = Iterator[Row | None]  # `None`: some work was done, and no row came of it


class Listing(msgspec.Struct, eq=False):
    """One that is under way."""

    connection: Connection
    request: int
    rows: Rows
    left: int  # rows that may still be sent
    page: list[Row] = []


class Listings:
    """Those that are under way, one after the other."""

    def __init__(
        self, dispatcher: Dispatcher, plane: Plane, engine: Engine, timetable: Timetable, clock: Clock
    ) -> None:
        self._dispatcher = dispatcher
        self._plane = plane
        self._engine = engine
        self._timetable = timetable
        self._clock = clock
        self._waiting: deque[Listing] = deque()

    def begin(self, connection: Connection, message: m.List) -> None:
        """Take the request; its answers follow."""
        if len(self._waiting) >= WAITING_AT_MOST:
            raise ProtocolError(f"{WAITING_AT_MOST} listings are under way: ask for less at once")
        self._waiting.append(Listing(connection, message.request, self._rows(message), message.limit))
        if len(self._waiting) == 1:
            self._turn()

    def _turn(self) -> None:
        until = time.perf_counter() + TURN_SECONDS
        while self._waiting:
            listing = self._waiting[0]
            try:
                is_over = not listing.connection.is_open or self._advance(listing, until)
            except Error as error:  # what is kept can't be read; others need not wait for that
                listing.connection.refuse(ProtocolError(str(error)))
                is_over = True
            if is_over:
                self._waiting.popleft()
            if time.perf_counter() >= until:
                break
        if self._waiting:
            self._waiting.rotate(-1)  # a short one need not wait for a long one
            asyncio.get_running_loop().call_soon(self._turn)

    def _advance(self, listing: Listing, until: float) -> bool:
        """Make rows until the moment has come; whether there are no more."""
        for row in listing.rows:
            if row is not None:
                if not listing.left:
                    self._send(listing, last=True, more=True)
                    return True
                listing.page.append(row)
                listing.left -= 1
                if len(listing.page) == PAGE_ROWS:
                    self._send(listing)
            if time.perf_counter() >= until:
                return False
        self._send(listing, last=True)
        return True

    def _send(self, listing: Listing, *, last: bool = False, more: bool = False) -> None:
        listing.connection.send(m.Listed(listing.request, listing.page, last, more))
        listing.page = []

    def _rows(self, message: m.List) -> Rows:
        match message.subject:
            case m.ListApps():
                return self._apps()
            case m.ListFunctions(app=app, active=active):
                return self._functions(app, active)
            case m.ListContainers(app=app):
                return self._containers(app)
            case m.ListCalls(call=call, position=position) if call:
                return self._call(call) if position < 0 else self._input(call, position)
            case m.ListCalls(app=app):
                return self._calls(app, message.limit)
            case m.ListVersions(app=app):
                return self._versions(app, message.limit)

    # -- apps and their functions ------------------------------------------------------------------

    def _apps(self) -> Rows:
        apps = self._dispatcher.apps
        for app in reversed(list(apps.values())):
            containers = pending = 0
            for function in list(app.functions):
                if now := self._plane.statistics(function):
                    containers, pending = containers + now.containers, pending + now.backlog
                yield None
            yield m.AppInfo(
                app.id,
                app.name,
                state_of(app),
                app.version,
                app.deployed_at,
                len(app.functions),
                containers,
                pending,
            )
        for kept in reversed(self._dispatcher.store.apps()):
            yield None if kept.id in apps else m.AppInfo(kept.id, kept.name, "stopped", 0, None, 0, 0, 0)

    def _functions(self, name: str, active: bool) -> Rows:
        for app in self._named(name):
            for function in list(app.functions):
                yield self._function(app, function, active)

    def _function(self, app: App, function: str, active: bool) -> m.FunctionInfo | None:
        now, record = self._plane.statistics(function), app.functions.get(function)
        if now is None or record is None or (active and not (now.backlog or now.running or now.containers)):
            return None
        return m.FunctionInfo(
            id=function,
            app=app.id,
            app_name=app.name,
            name=record.label,
            backlog=now.backlog,
            running=now.running,
            headroom=now.headroom,
            succeeded=now.succeeded,
            failed=now.failed,
            starting=now.starting,
            ready=now.ready,
            settings=now.settings.in_force,
            wanted=now.wanted,
            rule=now.rule,
            reason=now.decision,
            schedule=in_words(record.spec.schedule),
            next_fire_at=self._timetable.next(function),
            parameters=record.described,
        )

    def _named(self, name: str) -> list[App]:
        apps = self._dispatcher.apps
        return [app for app in ([apps.get(name)] if name else apps.values()) if app is not None]

    def _versions(self, app: str, limit: int) -> Rows:
        known = self._dispatcher.apps.get(app)
        for head in self._dispatcher.store.version_heads(app, min(limit + 1, VERSIONS_LISTED)):
            is_served = known is not None and known.version == head.number
            yield m.VersionInfo(app, head.number, head.tag, head.deployed_at, is_served)

    # -- containers --------------------------------------------------------------------------------

    def _containers(self, app: str) -> Rows:
        for served in list(self._dispatcher.containers.values()):
            yield None if app and app_of(served.record.id) != app else self._container(served.id)

    def _container(self, name: str) -> m.ContainerInfo | None:
        served, now = self._dispatcher.containers.get(name), self._plane.container(name)
        if served is None or now is None:
            return None
        return m.ContainerInfo(
            id=name,
            app=app_of(served.record.id),
            app_name=served.record.app_name,
            function=served.record.label,
            state=now.state.value,
            version=served.version,
            started_at=self._dispatcher.ledger.now() - (self._clock.time() - now.started_at),
            running=now.running,
            cpu_seconds=self._engine.cpu_seconds(name),
            memory_bytes=self._engine.memory_bytes(name),
        )

    # -- calls -------------------------------------------------------------------------------------

    def _calls(self, app: str, limit: int) -> Rows:
        """Those that are kept and those that are not, merged by age."""
        kept, names = self._kept_records(app, limit), self._names()
        next_kept = next(kept, None)
        for call, caller in reversed(list(self._dispatcher.calls.items())):
            if caller.kept or (app and caller.app != app):
                yield None
                continue
            while next_kept is not None and next_kept.submitted_at > caller.begun_at:
                yield self._kept_call(next_kept, names)
                next_kept = next(kept, None)
            yield self._passing_call(call, caller, names)
        while next_kept is not None:
            yield self._kept_call(next_kept, names)
            next_kept = next(kept, None)

    def _call(self, call: str) -> Rows:
        names = self._names()
        if record := self._dispatcher.store.call(call):
            yield self._kept_call(record, names)
        elif caller := self._dispatcher.calls.get(call):
            yield self._passing_call(call, caller, names)

    def _input(self, call: str, position: int) -> Rows:
        """One input of a group, as the call that it is for whoever made it."""
        for row in self._call(call):
            if isinstance(row, m.CallInfo) and position < row.inputs:
                outcome = next(self._dispatcher.store.outcomes(call, position, position + 1), None)
                error = outcome.error if outcome is not None else None
                if outcome is not None:
                    outcome.kept.close()
                ended: m.CallState = "cancelled" if error is not None and error.kind == "cancelled" else "finished"
                yield replace(
                    row,
                    id=call_of_input(call, position),
                    state="expired" if row.state == "expired" else "running" if outcome is None else ended,
                    inputs=1,
                    done=int(outcome is not None),
                    failed=None if row.failed is None else int(error is not None),
                    is_whole=True,
                )

    def _kept_records(self, app: str, limit: int) -> Iterator[CallRecord]:
        """Of the latest calls that are kept, those of the app."""
        for skip in range(0, CALLS_LOOKED_AT if app else limit + 1, CALLS_AT_ONCE):
            page = self._dispatcher.store.calls(CALLS_AT_ONCE, skip)
            yield from (record for record in page if not app or app_of(record.function) == app)
            if len(page) < CALLS_AT_ONCE:
                return

    def _kept_call(self, record: CallRecord, names: dict[str, str]) -> m.CallInfo:
        store, now = self._dispatcher.store, self._plane.call(record.id)
        state: m.CallState = "running" if record.finished_at is None else "finished"
        state = "expired" if record.expired else "cancelled" if record.cancelled else state
        return m.CallInfo(
            id=record.id,
            app=app_of(record.function),
            app_name=names.get(app_of(record.function), ""),
            function=label_of(record.function, record.method),
            kind=record.kind,
            state=state,
            inputs=record.submitted,
            done=now.settled if now else 0 if record.finished_at is None else record.submitted,
            failed=None if record.expired else store.failures(record.id),
            is_whole=record.total is not None,
            submitted_at=record.submitted_at,
            finished_at=record.finished_at,
        )

    def _passing_call(self, call: str, caller: Caller, names: dict[str, str]) -> m.CallInfo:
        """One that is not kept for longer than this server or its client lives."""
        now = self._plane.call(call)
        return m.CallInfo(
            id=call,
            app=caller.app,
            app_name=names.get(caller.app, ""),
            function=label_of(caller.function, caller.method),
            kind=caller.kind,
            state="finished" if now is None else "cancelled" if now.cancelled else "running",
            inputs=now.submitted if now else caller.accepted,
            done=now.settled if now else caller.accepted,
            failed=now.failed if now else self._dispatcher.store.failures(call),
            is_whole=now.is_whole if now else True,
            submitted_at=caller.begun_at,
            finished_at=None,
        )

    def _names(self) -> dict[str, str]:
        """Of all apps, stopped ones too."""
        kept = {app.id: app.name for app in self._dispatcher.store.apps()}
        return kept | {app.id: app.name for app in self._dispatcher.apps.values()}


def state_of(app: App) -> m.AppState:
    """The app's state in a word."""
    if app.closing:
        return "stopping"
    if app.record is None:
        return "running"
    return "detached" if app.record.detached else "deployed"


def in_words(schedule: Cron | Period | None) -> str:
    """The schedule as its author would write it; "" for none."""
    match schedule:
        case None:
            return ""
        case Cron(cron_string=words, timezone="UTC"):
            return f"Cron({words!r})"
        case Cron(cron_string=words, timezone=zone):
            return f"Cron({words!r}, {zone!r})"
        case Period():
            spans = ((name, getattr(schedule, name)) for name in schedule.__struct_fields__)
            return f"Period({', '.join(f'{name}={span:g}' for name, span in spans if span)})"
