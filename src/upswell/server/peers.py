"""Who speaks to the server: clients and containers. Their messages become events of the core."""

from __future__ import annotations

from collections.abc import Callable

from ..core import events as e
from ..errors import ConnectionError, InvalidError
from ..spec import AutoscalerSettings
from ..store import Kept
from ..wire import messages as m
from ..wire.buffers import Block
from ..wire.codec import ProtocolError
from .connections import Connection
from .dispatcher import App, Caller, Dispatcher, Served, send_outcome
from .objects import ObjectService
from .runtime import Runtime
from .validation import check_client, check_container

PROGRESS_SECONDS = 0.1


class ContainerPeer:
    """A container that has called home."""

    def __init__(self, connection: Connection, served: Served, dispatcher: Dispatcher) -> None:
        self._connection = connection
        self._served = served
        self._dispatcher = dispatcher
        served.connection = connection
        connection.send(m.Load(served.record))

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """What a container says."""
        check_container(message, self._connection)
        name, happened = self._served.id, self._dispatcher.happened
        match message:
            case m.Results(range=number, start=start, count=count, seconds=seconds, cpu_seconds=cpu):
                kept = adopt(self._connection, payload, message.buffers)
                happened(e.ResultsReceived(name, number, start, count, seconds, cpu), kept)
            case m.Failure(range=number, position=position, seconds=seconds, cpu_seconds=cpu, error=error):
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
            case m.Ready(startup_seconds=seconds):
                happened(e.ContainerReady(name, seconds))
            case m.StartFailed(error=error):
                self._dispatcher.start_failed(self._served, error, payload)
            case m.Bye():
                pass
            case _:
                raise ProtocolError(f"a container does not send {type(message).__name__}")

    def lost(self) -> None:
        """Everything it sent was handled; its process is gone or must go."""
        self._dispatcher.container_gone(self._served)


class ClientPeer:
    """A program that uses the SDK: a user's, or one inside a container."""

    def __init__(
        self,
        connection: Connection,
        dispatcher: Dispatcher,
        runtime: Runtime,
        objects: ObjectService,
        left: Callable[[], None] | None,
    ) -> None:
        self._connection = connection
        self._dispatcher = dispatcher
        self._runtime = runtime
        self._objects = objects
        self._left = left
        self._progress: dict[str, m.Progress] = {}

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """What a client says."""
        check_client(message, self._connection, self._dispatcher)
        match message:
            case m.Submit():
                self._submit(message, payload)
            case m.EndInputs(call=call, total=total):
                if caller := self._dispatcher.calls.get(call):
                    caller.total = total
                    for collector in caller.collectors:
                        collector.send(m.CallDescribed(call, total))
                self._dispatcher.happened(e.InputsEnded(call, total))
            case m.Cancel(call=call, running=running, terminate=terminate):
                self._dispatcher.happened(e.CallCancelled(call, running, terminate))
            case m.Consumed(call=call, chunks=chunks, bytes=size):
                self._dispatcher.consumed(call, chunks, size)
            case m.OpenApp():
                self._open(message)
            case m.Declare():
                self._declare(message)
            case m.CloseApp(app=app):
                self._close(app)
            case m.Collect():
                self._collect(message)
            case m.Uncollect(call=call):
                caller = self._dispatcher.calls.get(call)
                if caller and self._connection in caller.collectors:
                    caller.collectors.remove(self._connection)
            case m.Inquire():
                self._inquire(message)
            case m.DescribeGraph(request=request, call=call):
                inputs = self._dispatcher.graph.inputs(call)
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
                raise ProtocolError(f"a client does not send {type(message).__name__}")

    def _submit(self, message: m.Submit, payload: memoryview) -> None:
        dispatcher = self._dispatcher
        owned = message.kind != "spawn"
        if message.first == 0 and message.call not in dispatcher.calls:
            dispatcher.calls[message.call] = Caller(self._connection, message.kind, message.function, message.method)
            record = dispatcher.functions.get(message.function)
            if record is not None and (message.kind == "spawn" or message.parent):
                dispatcher.graph.begun(message.call, record, message.method, message.parent)
        caller = dispatcher.calls.get(message.call)
        if caller is not None and message.last:
            caller.total = message.first + message.count
        kept = adopt(self._connection, payload, message.buffers)
        event = e.InputsSubmitted(
            message.call,
            message.function,
            message.kind,
            message.first,
            message.count,
            message.last,
            self._connection.name if owned else "",
        )
        dispatcher.happened(event, kept)

    def _open(self, message: m.OpenApp) -> None:
        app = self._dispatcher.apps[message.app] = App(message.app, self._connection, {})
        for record in message.functions:
            self._dispatcher.declare(app, record)
        self._connection.send(m.AppOpened(message.app))

    def _declare(self, message: m.Declare) -> None:
        """Of an app that closes or never was nothing is declared: what follows is refused as it would be later."""
        app, record = self._dispatcher.apps.get(message.app), message.function
        if app is not None and not app.closing and record.id not in app.functions:
            self._dispatcher.declare(app, record)

    def _close(self, name: str) -> None:
        app = self._dispatcher.apps.get(name)
        if app is None:
            self._connection.send(m.AppClosed(name))
            return
        app.closing = True
        for function in app.functions:
            self._dispatcher.happened(e.FunctionRemoved(function))
        self._dispatcher.close_if_empty(app)

    def _collect(self, message: m.Collect) -> None:
        caller = self._dispatcher.calls.get(message.call)
        if caller is None or caller.kind != "spawn":
            error = m.ErrorRecord(
                "missing", "", f"there is no call {message.call}: its app is stopped, or it never was"
            )
            self._connection.send(m.Failed(message.call, 0, 0, error))
            return
        for outcome in self._dispatcher.store.outcomes(message.call):
            self._connection.lend(outcome.kept)
            send_outcome(self._connection, message.call, outcome)
        self._connection.send(m.CallDescribed(message.call, caller.total))  # last: now all there is has been said
        if self._connection not in caller.collectors:
            caller.collectors.append(self._connection)

    def _inquire(self, message: m.Inquire) -> None:
        error = ""
        statistics = self._runtime.plane.statistics(message.function)
        if statistics is None:
            error = f"there is no function {message.function}: its app is stopped, or never ran"
        elif message.update is not None:
            try:
                statistics.settings.merge(message.update)
                self._dispatcher.happened(e.SettingsUpdated(message.function, message.update))
                statistics = self._runtime.plane.statistics(message.function)
            except InvalidError as refused:
                error = str(refused)
        if statistics is None:
            self._connection.send(m.Statistics(message.request, 0, 0, 0, 0, AutoscalerSettings(), "", error))
            return
        self._connection.send(
            m.Statistics(
                message.request,
                statistics.backlog,
                statistics.containers,
                statistics.running,
                statistics.headroom,
                statistics.settings,
                statistics.decision,
                error,
            )
        )

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
        self._dispatcher.happened(e.OwnerLeft(self._connection.name))
        self._objects.client_left(self._connection)
        for name, caller in list(self._dispatcher.calls.items()):
            if self._connection in caller.collectors:
                caller.collectors.remove(self._connection)
            if caller.connection is self._connection and not caller.accepted:
                del self._dispatcher.calls[name]  # the core never knew it
        for app in list(self._dispatcher.apps.values()):
            if app.opener is self._connection:
                self._close(app.id)
        if self._left is not None:
            self._left()


def adopt(connection: Connection, payload: memoryview, buffers: m.Buffers | None) -> Kept:
    """Take over the shared memory that came with a payload, and let the sender close its end."""
    if buffers is None:
        return Kept(payload)
    try:
        block = Block.adopt(buffers)
    except ConnectionError as error:
        raise ProtocolError(str(error)) from None
    connection.send(m.Release(buffers.descriptor))
    return Kept(payload, block)
