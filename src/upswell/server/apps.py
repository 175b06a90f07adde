"""Apps: opened for as long as their client stays, or deployed, and then kept with their versions and called by name.

A deploy is offered to the store whole: files, version, and which one is served. What is on disk by then is served, also
after a restart. Ids of an app's functions are the same in all its versions, so calls and settings find them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from msgspec.structs import replace

from .. import store as s
from ..core import events as e
from ..errors import Error, NotFoundError, StoreError
from ..spec import FunctionRecord, SettingsUpdate, Strategy, app_of, check_name, label_of, require
from ..store import AppRecord, Version
from ..wire import messages as m
from ..wire.codec import ProtocolError
from .connections import Connection
from .dispatcher import Dispatcher
from .model import App, Caller
from .timetable import Timetable

if TYPE_CHECKING:
    from ..code import CodeStore

NEAREST_NAMES = 5  # in a message about one that is not there


class AppService:
    """All apps of this server. Without `code`, which is where files are put, it is a private one and keeps none."""

    def __init__(self, dispatcher: Dispatcher, timetable: Timetable, code: CodeStore | None) -> None:
        self._dispatcher = dispatcher
        self._timetable = timetable
        self._code = code
        self._names: dict[str, App] = {}  # deployed apps that are served
        self._deploying: set[str] = set()
        self._awaited: set[str] = set()  # detached apps of an earlier life whose client may come back
        self._overrides: dict[str, SettingsUpdate] = {}  # by function, of kept apps
        dispatcher.call_ended = self._call_ended

    # -- apps of a client that is there ------------------------------------------------------------

    def open(self, connection: Connection, message: m.OpenApp) -> None:
        """Run the app until its client closes it, or is gone."""
        if self._code is not None and message.files:
            try:
                self._code.make_tree(message.files)
            except Error as error:
                raise ProtocolError(f"the code of {message.app}: {error}") from None
        app = self._dispatcher.apps[message.app] = App(
            message.app, message.name, connection, {}, deployed_at=self._dispatcher.ledger.now()
        )
        for record in message.functions:
            self._dispatcher.declare(app, record)

    def close(self, connection: Connection, name: str) -> None:
        """The client needs the app no more."""
        app = self._dispatcher.apps.get(name)
        if app is None:
            connection.send(m.AppClosed(name))
        elif app.record is not None:
            connection.send(m.AppClosed(name))
            self._left(app)
        else:
            self._end(app)

    def declare(self, message: m.Declare) -> None:
        """Add a function of other options or parameters to an app.

        Of an app that closes or never was nothing is declared: what follows is refused as it would be later.
        """
        app, record = self._dispatcher.apps.get(message.app), message.function
        if app is None or app.closing or record.id in app.functions:
            return
        if (plain := app.functions.get(f"{app.id}/{record.name}")) is not None:
            record = derived(plain, record)  # a container that calls it does not have all of the variables
        if app.record is not None:
            if plain is None:
                return
            self._dispatcher.ledger.decided(s.PutDerived(record))
        self._dispatcher.declare(app, record)

    def client_left(self, connection: Connection) -> None:
        """What the client had opened ends; what outlives it goes on."""
        for app in list(self._dispatcher.apps.values()):
            if app.opener is connection:
                if app.record is None:
                    self._end(app)
                else:
                    self._left(app)
            if connection in app.watchers:
                app.watchers.remove(connection)

    def attend(self, connection: Connection, name: str) -> None:
        """The client of a detached app is there. Of one that has ended nothing is left to be said."""
        app = self._dispatcher.apps.get(name)
        if app is not None and app.record is not None and app.record.detached and app.opener is None:
            app.opener = connection
            self._awaited.discard(name)

    def expect_nobody(self) -> None:
        """Clients of detached apps that have not come back by now never will."""
        awaited, self._awaited = self._awaited, set()
        for name in awaited:
            if app := self._dispatcher.apps.get(name):
                self._end_if_done(app)

    def _left(self, app: App) -> None:
        app.opener = None
        self._end_if_done(app)

    def _end(self, app: App) -> None:
        app.closing = True
        for function in list(app.functions):
            self._timetable.remove(function)
            self._overrides.pop(function, None)
            self._dispatcher.remove(app, function, e.STOPPED)
        self._dispatcher.close_if_empty(app)

    # -- code --------------------------------------------------------------------------------------

    def offer_files(self, connection: Connection, message: m.OfferFiles) -> None:
        """Say which files are not here yet."""
        code = self._where_apps_are_kept()
        connection.send(m.MissingFiles(message.request, sorted(code.missing(message.digests))))

    def put_file(self, digest: str, content: memoryview) -> None:
        """Take a file."""
        self._where_apps_are_kept().put(digest, content)

    def sweep_code(self) -> Iterator[None]:
        """Let go, step by step, of code that no app that is served and no container has: it is in the store too."""
        records = [*self._dispatcher.functions.values(), *(one.record for one in self._dispatcher.containers.values())]
        return self._where_apps_are_kept().sweep({record.environment.code for record in records})

    def _where_apps_are_kept(self) -> CodeStore:
        if self._code is None:
            raise ProtocolError("this server ends with its client, and keeps no apps: start one by `upswell serve`")
        return self._code

    # -- deployed apps -----------------------------------------------------------------------------

    def deploy(self, connection: Connection, message: m.Deploy) -> None:
        """Serve a new version of the app."""
        request = message.request
        try:
            code = self._where_apps_are_kept()
            check_name("app", message.name)
            require(message.name not in self._deploying, f"another deploy of {message.name} is under way: try again")
            known = None if message.detached else self._known(message.name)
            app_id = known.id if known else message.app
            require(known is not None or app_id not in self._dispatcher.apps, f"the app {app_id} is here already")
            files = tuple(sorted(message.files))
            tree = code.make_tree(files)
            functions = tuple(replace(record, id=f"{app_id}/{record.label}") for record in message.functions)
            for record in functions:
                require(record.environment.code in ("", tree), f"the code of {record.name} is not what was sent")
        except Error as error:
            refuse(connection, request, "full" if isinstance(error, StoreError) else "invalid", error)
            return
        number = self._latest_version(app_id) + 1
        served = self._served_version(known)
        version = following(
            served, Version(app_id, number, message.tag, self._dispatcher.ledger.now(), functions, files)
        )
        if known and served is not None and is_same(served, version):
            self._go_back_to_declared(connection, request, known, served)
            return
        contents = [
            s.PutFile(digest, code.content(digest))
            for digest in self._dispatcher.store.missing(digest for _, digest in files)
        ]
        kept = AppRecord(app_id, message.name, version.number, message.detached)
        self._serve(connection, request, kept, version, contents, message.strategy)

    def rollback(self, connection: Connection, message: m.Rollback) -> None:
        """Serve what an earlier version was, as a new one; where that is served, it is as a deploy without changes."""
        try:
            self._where_apps_are_kept()
            known = self._known(message.name)
            if known is None:
                raise NotFoundError(f"there is no app {message.name}{self._near(message.name)}")
            latest = self._latest_version(known.id)
            number = message.version or known.version - 1
            require(number >= 0, f"{message.name} is stopped: name the version to serve, from 1 to {latest}")
            require(number > 0, f"{message.name} has no version before its first")
            require(number <= latest, f"{message.name} has no version {number}: its latest is {latest}")
            require(message.name not in self._deploying, f"a deploy of {message.name} is under way: try again")
        except Error as error:
            refuse(connection, message.request, "missing" if isinstance(error, NotFoundError) else "invalid", error)
            return
        earlier = self._dispatcher.store.version(known.id, number)
        assert earlier is not None, "numbers have no gaps"
        self._restore_code(earlier)
        tag = earlier.tag or f"as version {number}"
        version = replace(earlier, number=latest + 1, tag=tag, deployed_at=self._dispatcher.ledger.now())
        served = self._served_version(known)
        version = following(served, version)
        if served is not None and is_same(served, version):
            self._go_back_to_declared(connection, message.request, known, served)
            return
        self._serve(connection, message.request, replace(known, version=version.number), version, [], "rolling")

    def _serve(
        self,
        connection: Connection,
        request: int,
        record: AppRecord,
        version: Version,
        contents: list[s.PutFile],
        strategy: Strategy,
    ) -> None:
        """Have the version kept, and serve it then."""
        app = self._dispatcher.apps.get(record.id)
        present = set(app.functions) if app else set()
        writes: list[s.Write] = [*contents, s.PutVersion(version), s.PutApp(record)]
        writes += [s.PutSettings(function, None) for function in present if function in self._overrides]
        scheduled = {function.id for function in version.functions if function.spec.schedule is not None}
        writes += [s.PutFire(function, None) for function in present - scheduled]
        follow, gone = self._derived_of(app, version) if app else ([], [])
        writes += [s.PutDerived(one) for one in follow] + [s.DropDerived(one) for one in gone]
        self._deploying.add(record.name)

        def answer(error: Error | None) -> None:
            self._deploying.discard(record.name)
            if error is not None:
                refuse(connection, request, "full", error)
                return
            app = self._install(record, version, follow, strategy)
            self._dispatcher.say(f"{said(version)} is served from now on, {strategy}", app=app.id)
            if record.detached:
                app.opener = connection
            connection.send(m.Deployed(request, record.id, version.number))

        self._dispatcher.ledger.offer(writes, answer)

    def _install(
        self, record: AppRecord, version: Version, derived: Iterable[FunctionRecord], strategy: Strategy
    ) -> App:
        """What is kept is served from now on."""
        app = self._dispatcher.apps.get(record.id)
        if app is None:
            app = self._dispatcher.apps[record.id] = App(record.id, record.name, None, {})
        app.record, app.version, app.deployed_at, app.closing = record, version.number, version.deployed_at, False
        if not record.detached:
            self._names[record.name] = app
        wanted = {function.id: function for function in chain(version.functions, derived)}
        for function in [function for function in app.functions if function not in wanted]:
            self._timetable.remove(function)
            reason = f"{label_of(function)} is no part of version {version.number} of {record.name}"
            self._dispatcher.remove(app, function, reason)
        for function, declared in wanted.items():
            self._overrides.pop(function, None)
            self._dispatcher.declare(app, declared, strategy)
            self._schedule(declared, version.deployed_at)
        return app

    def _go_back_to_declared(self, connection: Connection, request: int, known: AppRecord, served: Version) -> None:
        """Nothing has changed; settings that were laid over the declared ones are taken away, as by any deploy."""
        app = self._dispatcher.apps[known.id]
        laid_over = [function for function in app.functions if function in self._overrides]

        def answer(error: Error | None) -> None:
            if error is not None:
                refuse(connection, request, "full", error)
                return
            for function in laid_over:
                self._overrides.pop(function, None)
                self._dispatcher.declare(app, app.functions[function])
            connection.send(m.Deployed(request, known.id, served.number, unchanged=True))

        self._dispatcher.ledger.offer([s.PutSettings(function, None) for function in laid_over], answer)

    def _derived_of(self, app: App, version: Version) -> tuple[list[FunctionRecord], list[str]]:
        """Of the app's functions with other options: as they are in the new version, and those that it has no more."""
        plain = {function.id: function for function in version.functions}
        follow, gone = [], []
        for record in app.functions.values():
            if "@" in record.id:
                base = plain.get(f"{app.id}/{record.name}")
                if base is None:
                    gone.append(record.id)
                else:
                    follow.append(derived(base, record).follows(record, version.number))
        return follow, gone

    def _schedule(self, record: FunctionRecord, began_at: float, fired_until: float | None = None) -> None:
        if record.spec.schedule is None:
            self._timetable.remove(record.id)
        else:
            self._timetable.put(record.id, record.spec.schedule, began_at, fired_until)

    # -- stopping ----------------------------------------------------------------------------------

    def stop(self, connection: Connection, message: m.StopApp) -> None:
        """Serve the app no more. What waits is cancelled; versions and results are kept."""
        app = self._names.get(message.name) or self._dispatcher.apps.get(message.name)
        if app is None or app.record is None or app.closing:
            reason = f"no app {message.name} is served here{self._near(message.name)}"
            if app is not None and not app.closing:
                reason = f"the app {message.name} runs for a program, and ends with it: stop that"
            connection.send(m.Done(message.request, m.ErrorRecord("missing", "", reason)))
            return

        def answer(error: Error | None) -> None:
            refused = None if error is None else m.ErrorRecord("full", "", str(error))
            if error is None:
                self._stopped(app)
            connection.send(m.Done(message.request, refused))

        self._dispatcher.ledger.offer(self._as_stopped(app), answer)

    def _as_stopped(self, app: App) -> list[s.Write]:
        """The writes that stop it: versions stay, and what came after its deploy (settings, fires, derived) goes."""
        assert app.record is not None
        writes: list[s.Write] = [
            s.PutSettings(function, None) for function in app.functions if function in self._overrides
        ]
        writes += [s.PutFire(one.id, None) for one in app.functions.values() if one.spec.schedule is not None]
        writes += [s.DropDerived(function) for function in app.functions if "@" in function]
        return [*writes, s.PutApp(replace(app.record, version=0))]

    def _stopped(self, app: App) -> None:
        assert app.record is not None
        self._dispatcher.say("stopped", app=app.id)
        if self._names.get(app.record.name) is app:
            del self._names[app.record.name]
        self._end(app)

    def _call_ended(self, call: str, caller: Caller) -> None:
        self._timetable.ended(caller.function, call)
        if app := self._dispatcher.apps.get(caller.app):
            self._end_if_done(app)

    def _end_if_done(self, app: App) -> None:
        """A detached app whose client has left ends with its last call."""
        if app.record is None or not app.record.detached or app.opener is not None or app.closing:
            return
        if app.id in self._awaited:
            return
        if not any(caller.app == app.id for caller in self._dispatcher.calls.values()):
            *others, last = self._as_stopped(app)
            for write in others:
                self._dispatcher.ledger.decided(write)
            self._dispatcher.ledger.decided(last, lambda: self._stopped(app))

    # -- by name -----------------------------------------------------------------------------------

    def resolve(self, connection: Connection, message: m.Resolve) -> None:
        """Tell the id of an app, and one of its functions, by name."""
        try:
            connection.send(self._resolved(message))
        except NotFoundError as error:
            connection.send(m.Resolved(message.request, error=m.ErrorRecord("missing", "", str(error))))

    def _resolved(self, message: m.Resolve) -> m.Resolved:
        app = self._names.get(message.app)
        if app is None:
            raise NotFoundError(f"there is no app {message.app!r} here{self._near(message.app)}: deploy it first")
        if message.version not in (0, app.version):
            raise NotFoundError(f"{message.app} is served in version {app.version}, not in version {message.version}")
        if not message.name:
            return m.Resolved(message.request, app.id, app.version)
        record = app.functions.get(f"{app.id}/{message.name}")
        if record is None:
            names = sorted(one.name for one in app.functions.values() if "@" not in one.id)
            known = _instead(names, message.name)
            raise NotFoundError(f"{message.app} has no function or class {message.name!r}: {known}")
        # Values of variables may be secret, and are none of the caller's business.
        public = replace(record, environment=replace(record.environment, variables=()))
        return m.Resolved(message.request, app.id, app.version, public)

    def _known(self, name: str) -> AppRecord | None:
        """The app of that name, served or stopped."""
        named = [app for app in self._dispatcher.store.apps() if app.name == name and not app.detached]
        return named[-1] if named else None

    def _served_version(self, known: AppRecord | None) -> Version | None:
        return self._dispatcher.store.version(known.id, known.version) if known else None

    def _latest_version(self, app: str) -> int:
        """The number of the app's latest version, served or not; 0 where it has none."""
        heads = self._dispatcher.store.version_heads(app, 1)
        return heads[0].number if heads else 0

    def _near(self, name: str) -> str:
        from difflib import get_close_matches

        near = get_close_matches(name, self._names, NEAREST_NAMES)
        return f" (there is {', '.join(near)})" if near else ""

    # -- settings ----------------------------------------------------------------------------------

    def update(self, function: str, update: SettingsUpdate, answer: s.Answer) -> None:
        """Lay settings over those that are in force; `answer` is told the error that refused it, or `None`."""
        app = self._dispatcher.apps.get(app_of(function))
        if app is None or app.record is None:
            self._dispatcher.happened(e.SettingsUpdated(function, update))
            answer(None)
            return
        override = update.over(self._overrides.get(function))

        def kept(error: Error | None) -> None:
            if error is None:
                self._overrides[function] = override
                self._dispatcher.happened(e.SettingsUpdated(function, update))
            answer(error)

        self._dispatcher.ledger.offer([s.PutSettings(function, override)], kept)

    # -- restart -----------------------------------------------------------------------------------

    def restore(self, snapshot: s.Snapshot) -> None:
        """Serve what an earlier life of the server did; what the core has to know is `recovery`'s business."""
        derived_of: dict[str, list[FunctionRecord]] = {}
        for record in snapshot.derived:
            derived_of.setdefault(app_of(record.id), []).append(record)
        fires = dict(snapshot.fires)
        self._overrides = dict(snapshot.settings)
        for app_record, version in snapshot.apps:
            app = App(app_record.id, app_record.name, None, {}, app_record, version.number, version.deployed_at)
            self._dispatcher.apps[app.id] = app
            if app_record.detached:
                self._awaited.add(app.id)
            else:
                self._names[app_record.name] = app
            self._restore_code(version)
            for record in chain(version.functions, derived_of.get(app.id, ())):
                app.functions[record.id] = self._dispatcher.functions[record.id] = record
                self._schedule(record, version.deployed_at, fires.get(record.id))

    def _restore_code(self, version: Version) -> None:
        """Its files are in the store, whatever has become of the tree."""
        if self._code is None or not version.files or self._code.has_tree(version.files):
            return
        for digest in self._code.missing(digest for _, digest in version.files):
            self._code.put(digest, self._dispatcher.store.file(digest))
        self._code.make_tree(version.files)


def refuse(connection: Connection, request: int, kind: m.ErrorKind, error: Error) -> None:
    """Say that nothing is deployed, and why."""
    connection.send(m.Deployed(request, error=m.ErrorRecord(kind, "", str(error))))


def following(served: Version | None, version: Version) -> Version:
    """The version after the one that is served: it tells which functions' containers are the same in both."""
    before = {function.id: function for function in served.functions} if served else {}
    functions = tuple(one.follows(before.get(one.id), version.number) for one in version.functions)
    return replace(version, functions=functions)


def is_same(served: Version, version: Version) -> bool:
    """Whether the version, which follows the one that is served, has the same code and the same declarations."""
    return (served.functions, served.files) == (version.functions, version.files)


def said(version: Version) -> str:
    """The version for people, with how much of it is as it was before."""
    tag = f" ({version.tag})" if version.tag else ""
    count, same = len(version.functions), sum(one.version != version.number for one in version.functions)
    as_before = f", with containers of {same} of its {count} functions as they were," if same else ""
    return f"version {version.number}{tag}{as_before}"


def derived(plain: FunctionRecord, record: FunctionRecord) -> FunctionRecord:
    """The function with the options and parameters of `record`, and the code of `plain`."""
    variables = dict(plain.environment.variables) | dict(record.environment.variables)
    environment = replace(plain.environment, variables=tuple(sorted(variables.items())))
    return replace(
        plain,
        id=record.id,
        spec=record.spec,
        environment=environment,
        parameters=record.parameters,
        described=record.described,
    )


def _instead(names: list[str], asked: str) -> str:
    """What an app has where something else was asked for."""
    owner, _, method = asked.partition(".")
    if method and owner in names:
        return f"methods are those of an object, as in upswell.Cls.from_name(...)(...).{method}"
    more = ", …" if len(names) > NEAREST_NAMES else ""
    return f"it has {', '.join(names[:NEAREST_NAMES])}{more}" if names else "it has none"
