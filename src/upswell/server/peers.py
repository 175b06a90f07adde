"""Who speaks to the server: clients and containers. Their messages become events of the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from ..core import events as e
from ..errors import Error, InvalidError
from ..spec import app_of
from ..store import Kept
from ..wire import messages as m
from ..wire.codec import ProtocolError
from .apps import AppService
from .calls import CallService, adopt
from .connections import Connection
from .dispatcher import DELIVERED, Dispatcher
from .guard import Guard, no_statistics
from .identity import NEIGHBOUR
from .listing import Listings
from .model import App, Served
from .objects import ObjectService
from .receipts import Receipts
from .runtime import Runtime
from .validation import check_client, check_container

if TYPE_CHECKING:
    from .logs import Logs
    from .spools import Spools

PROGRESS_SECONDS = 0.1


class ContainerPeer:
    """A container that has called home."""

    def __init__(
        self, connection: Connection, served: Served, dispatcher: Dispatcher, receipts: Receipts | None
    ) -> None:
        """`receipts` are for a container that may outlive this server."""
        self._connection = connection
        self._served = served
        self._dispatcher = dispatcher
        self._receipts = receipts
        served.connection = connection

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """What a container says."""
        check_container(message, self._connection)
        self._handle(message, payload)
        if self._receipts is not None and isinstance(message, m.Results | m.Failure | m.Yielded):
            self._receipts.came(
                len(payload)
                + (0 if isinstance(message, m.Failure) or message.buffers is None else message.buffers.size)
            )

    def _handle(self, message: m.Message, payload: memoryview) -> None:
        name, happened = self._served.id, self._dispatcher.happened
        match message:
            case m.Results(delivered=True) if self._dispatcher.delivers_to is None:
                raise ProtocolError("it says that outputs are delivered, and there is no client to whom it could")
            case m.Results(range=number, start=start, count=count, seconds=seconds, cpu_seconds=cpu):
                kept = DELIVERED if message.delivered else adopt(self._connection, payload, message.buffers)
                happened(e.ResultsReceived(name, number, start, count, seconds, cpu), kept)
            case m.Failure() if self._dispatcher.stopping:
                pass  # it was interrupted, and will be tried again
            case m.Failure(range=number, position=position, seconds=seconds, cpu_seconds=cpu, error=error):
                if message.fatal:
                    self._dispatcher.ends_with_its_input(self._served, error)
                kind = error.kind if error.kind in ("timeout", "memory", "cancelled", "unreadable") else "user"
                event = e.FailureReceived(name, number, position, seconds, cpu, kind, message.fatal)
                happened(event, Kept(payload), error)
            case m.Yielded(range=number, first=first, count=count):
                kept = adopt(self._connection, payload, message.buffers)
                happened(e.ChunksReceived(name, number, first, count), kept)
            case m.Returned(range=number, stop=stop):
                happened(e.RangeReturned(name, number, stop))
            case m.Suspended(range=number):
                happened(e.InputSuspended(name, number))
            case m.Resumed(range=number):
                happened(e.InputResumed(name, number))
            case m.Ready():
                happened(e.ContainerReady(name))
            case m.StartFailed(error=error):
                self._dispatcher.start_failed(self._served, error, payload)
            case m.Bye():
                pass
            case _:
                raise ProtocolError(f"a container does not send {type(message).__name__}")

    def lost(self) -> None:
        """Everything it sent was handled; its process is gone or must go."""
        self._dispatcher.container_gone(self._served)


class Services(msgspec.Struct, frozen=True):
    """What a client may ask for."""

    runtime: Runtime
    dispatcher: Dispatcher
    calls: CallService
    apps: AppService
    objects: ObjectService
    describe: Callable[[int], m.ServerDescribed]
    listings: Listings
    logs: Logs | None
    spools: Spools | None = None


class ClientPeer:
    """A program that uses the SDK: a user's, or one inside a container."""

    def __init__(self, connection: Connection, services: Services) -> None:
        self._connection = connection
        self._dispatcher = services.dispatcher
        self._runtime = services.runtime
        self._calls = services.calls
        self._apps = services.apps
        self._objects = services.objects
        self._describe = services.describe
        self._guard = Guard(connection, services.dispatcher)
        self._listings = services.listings
        self._logs = services.logs
        self._spools = services.spools
        self._progress: dict[str, m.Progress] = {}

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """What a client says."""
        guarded = self._connection.identity is not NEIGHBOUR
        if guarded and not self._guard.allows(message):
            return
        if self._spools is not None:
            self._spools.look()  # what is in them was said before
        check_client(message, self._connection, self._dispatcher)
        if guarded and not self._guard.reaches(message):
            return
        match message:
            case m.Submit():
                self._calls.submit(self._connection, message, payload)
            case m.Restore():
                self._calls.go_on(self._connection, message, payload)
            case m.EndInputs(call=call, total=total):
                self._calls.end(call, total)
            case m.Cancel():
                self._calls.cancel(self._connection, message)
            case m.Consumed(call=call, chunks=chunks, bytes=size):
                self._dispatcher.consumed(call, chunks, size)
            case m.OpenApp():
                self._apps.open(self._connection, message)
            case m.Declare():
                self._apps.declare(message)
            case m.CloseApp(app=app):
                self._apps.close(self._connection, app)
            case m.Collect():
                self._calls.collect(self._connection, message)
            case m.AttendCall(call=call):
                self._calls.attend(self._connection, call)
            case m.Uncollect(call=call):
                self._calls.uncollect(self._connection, call)
            case m.Inquire():
                self._inquire(message)
            case m.DescribeGraph(request=request, call=call, position=position):
                inputs = self._dispatcher.graph.inputs(call, position)
                self._connection.send(m.CallGraph(request, inputs or [], inputs is None))
            case m.Watch(app=app):
                self._watch(app)
            case m.UseObject():
                self._objects.use(self._connection, message, payload)
            case m.Withdraw(request=request):
                self._objects.withdraw(self._connection, request)
            case m.Bye():
                pass
            case _:
                self._administer(message, payload)

    def _administer(self, message: m.Message, payload: memoryview) -> None:
        """The rarer messages: those about deployed apps, about what is here, and about the server."""
        match message:
            case m.OfferFiles():
                self._apps.offer_files(self._connection, message)
            case m.PutFile(digest=digest):
                self._apps.put_file(digest, payload)
            case m.Deploy():
                self._apps.deploy(self._connection, message)
            case m.AttendApp(app=app):
                self._apps.attend(self._connection, app)
            case m.Rollback():
                self._apps.rollback(self._connection, message)
            case m.StopApp():
                self._apps.stop(self._connection, message)
            case m.Resolve():
                self._apps.resolve(self._connection, message)
            case m.DescribeServer(request=request):
                self._connection.send(self._describe(request))
            case m.BackUp():
                self._when_kept(lambda: self._back_up(message))
            case m.List():
                self._when_kept(lambda: self._listings.begin(self._connection, message))
            case m.LookAt(spool=name) if self._spools is not None:
                self._spools.look_at(name)
            case m.StopContainer(request=request, container=container):
                self._stop_container(request, container)
            case m.ReadLogs():
                self._read_logs(message)
            case m.Unfollow(request=request):
                if self._logs is not None:
                    self._logs.unfollow(self._connection, request)
            case _:
                raise ProtocolError(f"a client does not send {type(message).__name__}")

    def _inquire(self, message: m.Inquire) -> None:
        """Answer with the function's statistics, after the change of its settings, if one is asked for."""
        now = self._runtime.plane.statistics(message.function)
        if now is None or message.update is None:
            self._answer(message)
            return
        try:
            now.settings.merge(message.update)
        except InvalidError as refused:
            self._answer(message, m.ErrorRecord("invalid", "", str(refused)))
            return

        def answer(error: Error | None) -> None:
            self._answer(message, m.ErrorRecord("full", "", str(error)) if error else None)

        self._apps.update(message.function, message.update, answer)

    def _answer(self, message: m.Inquire, error: m.ErrorRecord | None = None) -> None:
        now = self._runtime.plane.statistics(message.function)
        if now is None:
            self._connection.send(no_statistics(message))
            return
        self._connection.send(
            m.Statistics(
                message.request,
                now.backlog,
                now.containers,
                now.running,
                now.headroom,
                now.settings,
                now.decision,
                error,
            )
        )

    def _when_kept(self, then: Callable[[], None]) -> None:
        """Once the calls are kept that have come by now."""
        if self._spools is not None:
            self._spools.when_kept(then)
        else:
            then()

    def _back_up(self, message: m.BackUp) -> None:
        def answer(error: Error | None) -> None:
            record = m.ErrorRecord("invalid", "", str(error)) if error else None
            self._connection.send(m.Done(message.request, record))

        self._dispatcher.store.backup(message.path, answer)

    def _stop_container(self, request: int, container: str) -> None:
        error = None
        if self._runtime.plane.container(container) is None:
            error = m.ErrorRecord("missing", "", f"there is no container {container}: it has ended, or it never was")
        self._dispatcher.happened(e.ContainerStopped(container))
        self._connection.send(m.Done(request, error))

    def _read_logs(self, message: m.ReadLogs) -> None:
        served = self._dispatcher.containers.get(message.container)
        if not message.app and served is not None:
            message = replace(message, app=app_of(served.record.id))
        if self._logs is not None:
            self._logs.read(self._connection, message)
            return
        error = m.ErrorRecord("missing", "", "this server ends with its client, who is shown what containers write")
        self._connection.send(m.Logged(message.request, [], True, error))

    def _watch(self, name: str) -> None:
        app = self._dispatcher.apps.get(name)
        if app is not None and self._connection not in app.watchers:
            app.watchers.append(self._connection)
            self._send_progress(app)

    def _send_progress(self, app: App) -> None:
        """Say how the app is doing, and again in a moment, for as long as it runs."""
        if not self._connection.is_open or app.id not in self._dispatcher.apps:
            return
        rows = []
        for function, record in app.functions.items():
            now = self._runtime.plane.statistics(function)
            if now is not None:
                counts = (now.backlog, now.running, now.succeeded, now.failed, now.starting, now.ready)
                rows.append(m.FunctionProgress(record.label, *counts))
        progress = m.Progress(app.id, rows)
        if progress != self._progress.get(app.id):
            self._progress[app.id] = progress
            self._connection.send(progress)
        self._runtime.clock.call_later(PROGRESS_SECONDS, self._send_progress, app)

    def lost(self) -> None:
        """The client is gone: what it owned ends."""
        self._calls.client_left(self._connection)
        self._objects.client_left(self._connection)
        self._apps.client_left(self._connection)
        if self._logs is not None:
            self._logs.client_left(self._connection)
        if self._spools is not None:
            self._spools.sweep()
