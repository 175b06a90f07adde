"""Performs what the core commands: frames to containers and clients, payloads in and out of the store, engine calls.

Payloads are opaque here. What a command refers to as "just came" is what `arrived` says.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from .. import store as s
from ..core import commands as c
from ..core import events as e
from ..engine import CapacityChanged, ContainerDelayed, ContainerOutput, Engine, Reported
from ..spec import FunctionRecord, Strategy, app_of, label_of
from ..store import Kept, Outcome, Store
from ..wire import messages as m
from .connections import Connection
from .graph import CallGraph
from .ledger import Ledger
from .model import App, Caller, Served
from .runtime import Runtime

if TYPE_CHECKING:
    from .logs import Logs

log = logging.getLogger("upswell.server")

NOTHING = Kept(b"")
DELIVERED = Kept(b"")  # in place of outputs that the client has already
ATTACHED = ("remote", "map")
KINDS_THAT_CARRY = ("user", "unreadable", "timeout", "memory")


class Dispatcher:
    """The hands of the core."""

    def __init__(self, runtime: Runtime, engine: Engine, store: Store, ledger: Ledger, logs: Logs | None) -> None:
        self.apps: dict[str, App] = {}
        self.functions: dict[str, FunctionRecord] = {}
        self.calls: dict[str, Caller] = {}
        self.refused: dict[str, Caller] = {}  # of these, those of which no input is taken yet
        self.containers: dict[str, Served] = {}
        self.store = store
        self.ledger = ledger
        self.logs = logs
        self.graph = CallGraph()
        self.stopping = False
        self.delivers_to: Connection | None = None  # whose client has outputs from containers: see `wire/shortcut.py`
        self._runtime = runtime
        self._engine = engine
        self._arrived = NOTHING  # what the event being handled came with
        self._error: m.ErrorRecord | None = None
        self._start_errors: dict[str, tuple[m.ErrorRecord, Kept]] = {}  # function → its last failed start
        self.call_ended: Callable[[str, Caller], None] = lambda call, caller: None  # told of each that was kept
        self.call_restored: Callable[[e.CallRestored], None] = self.happened  # told of each whose client is back
        self.map_has_room: Callable[[Caller], object] = lambda caller: None  # told where something waits for that
        self.permit: Callable[[str], int] = lambda function: 0  # to spawn the function by a spool
        self.leaving: Callable[[], None] = lambda: None  # told before a function is no more

    def happened(self, event: e.Event, arrived: Kept | None = None, error: m.ErrorRecord | None = None) -> None:
        """An event, with the payload or the error it came with."""
        self._arrived, self._error = arrived or NOTHING, error
        self._runtime.happened(event)
        if self._arrived is not NOTHING:
            self._take().close()  # nobody wanted it

    def _take(self) -> Kept:
        """What just came; from now on the caller's to close."""
        arrived, self._arrived = self._arrived, NOTHING
        return arrived

    def declare(self, app: App, record: FunctionRecord, strategy: Strategy = "rolling") -> None:
        """The function exists from now on, or is another version of itself; containers of it may soon be wanted."""
        app.functions[record.id] = self.functions[record.id] = record
        self._engine.prepare(record)
        ephemeral = app.record is None
        self.happened(e.FunctionDeclared(record.id, record.standing_spec, ephemeral, record.version, strategy))

    def remove(self, app: App, function: str, reason: str) -> None:
        """The function is no part of the app any more."""
        self.leaving()
        app.functions.pop(function, None)
        self.functions.pop(function, None)
        self.happened(e.FunctionRemoved(function, reason))

    def forget(self, call: str) -> None:
        """Nobody will hear of the call any more."""
        self.refused.pop(call, None)
        if caller := self.calls.pop(call, None):
            caller.window.close()

    def start_failed(self, served: Served, error: m.ErrorRecord, payload: memoryview) -> None:
        """A container could not load its function."""
        self._start_errors[served.record.id] = (error, Kept(payload))
        words = f"could not start: {error.last_line}\n{error.traceback}"
        self.say(words, function=served.record.id, container=served.id)
        served.explained = True
        self.happened(e.StartFailed(served.id, error.last_line))

    def ends_with_its_input(self, served: Served, error: m.ErrorRecord) -> None:
        """A container ends itself with an input that was stopped, as nobody knows what that has left behind."""
        self.say(f"ends with its input: {error.message}", function=served.record.id, container=served.id)
        served.explained = True

    def rejoined(self, served: Served, ranges: Sequence[m.Holding]) -> None:
        """A container of an earlier server is about to be the core's again, with these ranges."""
        self.containers[served.id] = served
        if app := self.apps.get(app_of(served.record.id)):
            app.containers += 1
        for held in ranges:
            caller = self.calls.get(held.call)
            if caller is not None and caller.kind == "generator":
                caller.holder = (served.id, held.range)

    # -- commands ----------------------------------------------------------------------------------

    def perform(self, command: c.Command) -> None:
        """Do what the core says. What is said of every call comes first."""
        match command:
            case c.Grant():
                self._grant(command)
            case c.Deliver(call=call, start=start, count=count):
                self._settle(call, Outcome(start, count, self._take()))
            case c.ForgetSegment(call=call, first=first, containers=holders):
                self._forget(call, first, holders)
            case c.FinishCall(call=call):
                self._finish(call)
            case c.Accept(call=call, first=first, count=count):
                self._accept(call, first, count)
            case c.Forward(call=call, first=first, count=count):
                self._forward(call, first, count)
            case c.Fail():
                self._fail(command)
            case c.Refuse():
                self._refuse(command)
            case c.Invite(call=call):
                if caller := self.calls.get(call):
                    caller.tell(m.Invited(call))
            case c.Start():
                self._start(command)
            case c.Drain(container=container, reason=reason):
                self._tell(container, m.Drain(reason))
            case c.Kill(container=container, reason=reason):
                self._kill(container, reason)
            case c.TakeBack(container=container, range=number):
                self._tell(container, m.TakeBack(number))
            case c.CancelRange(container=container, range=number):
                self._tell(container, m.CancelRange(number))
            case c.RememberAttempts(call=call, position=position, failures=failures, losses=losses):
                if self._is_kept(call):
                    self.ledger.decided(s.PutAttempts(call, position, failures, losses), may_linger=True)
            case c.Complain(function=function, reason=reason):
                self._complain(function, reason)

    def _complain(self, function: str, reason: str) -> None:
        """Something keeps the function from what it must have: who uses it hears of it, and who looks at the log."""
        self._warn(function, reason)
        app = self.apps.get(app_of(function))
        callers = [caller for caller in self.calls.values() if caller.function == function]
        users = {user for caller in callers for user in (caller.connection, *caller.collectors)}
        users.add(app.opener if app is not None else None)
        for connection in users:
            if connection is not None:
                connection.send(m.Log(app_of(function), label_of(function), "", 0, f"{reason}\n"))
        self.say(reason, function=function)

    def _kill(self, container: str, reason: str) -> None:
        if (served := self.containers.get(container)) is not None:
            served.explained = True
            self.say(f"was killed: {reason}", function=served.record.id, container=container)
        self._engine.kill(container)

    def _tell(self, container: str, message: m.Message) -> None:
        served = self.containers.get(container)
        if served is not None and served.connection is not None:
            served.connection.send(message)

    def _start(self, command: c.Start) -> None:
        if self.stopping:
            return
        container, function = command.container, command.function
        record = self.functions[function]
        if record.spec.resources.gpus != command.gpus:
            resources = replace(record.spec.resources, gpus=command.gpus)
            record = replace(record, spec=replace(record.spec, resources=resources))
        token = f"{container}.{os.urandom(16).hex()}"
        self.containers[container] = Served(container, token, record, record.version)
        if app := self.apps.get(app_of(function)):
            app.containers += 1
        self._engine.start(container, token, record, record.version)

    def _grant(self, command: c.Grant) -> None:
        if self.stopping:
            return
        served = self.containers[command.container]
        kept = self.store.inputs(command.call, command.first)
        segment = (command.call, command.first)
        known = segment in served.segments
        caller = self.calls.get(command.call)
        assign = m.Assign(
            command.range,
            command.call,
            command.first,
            command.count,
            command.start,
            command.stop,
            None if known else kept.buffers,
            caller.method if caller else "",
            command.batch,
            command.left,
            caller is not None and caller.kind in ATTACHED and caller.connection is self.delivers_to is not None,
        )
        if not assign.is_whole:
            served.segments.add(segment)
        if caller is not None and caller.kind == "generator":
            caller.holder = (command.container, command.range)
        if served.connection is not None:
            served.connection.send(assign, b"" if known else kept.payload)
        self.graph.granted(command.call, command.start, command.stop, command.container)

    def _forget(self, call: str, first: int, holders: tuple[str, ...]) -> None:
        if self._is_kept(call):
            self.ledger.decided(s.DropInputs(call, first), may_linger=True)
        else:
            self.store.drop_inputs(call, first)
        for holder in holders:
            served = self.containers.get(holder)
            if served is not None and (call, first) in served.segments:
                served.segments.discard((call, first))
                self._tell(holder, m.Forget(call, first))

    def _accept(self, call: str, first: int, count: int) -> None:
        caller = self.calls[call]
        if not caller.kept:  # else it is in the store already
            self.store.put_inputs(call, first, self._take())
        self.graph.submitted(call, first, count)
        caller.accepted = first + count
        caller.window.in_flight += count
        if self.refused:
            self.refused.pop(call, None)
        if caller.kind == "spawn":
            permit = self.permit(caller.function) if caller.kept else 0  # which is asked for each: it may end with this
            caller.tell(m.Accepted(call, first, count, permit if caller.total == 1 else 0))

    def _refuse(self, command: c.Refuse) -> None:
        kind: m.ErrorKind = "missing" if command.missing else "exhausted"
        error = m.ErrorRecord(kind, "", command.reason)
        if (caller := self.calls.get(command.call)) is None:
            return
        refused = m.Refused(command.call, command.first, command.count, error)
        if caller.kept:
            caller.refusals += 1
            self.ledger.decided(s.WithdrawInputs(command.call, command.first), lambda: caller.tell(refused))
        else:
            caller.tell(refused)
        if not command.first and not caller.accepted:
            if command.missing or caller.kind == "remote":
                self.forget(command.call)
            else:
                self.refused[command.call] = caller

    # -- outcomes ----------------------------------------------------------------------------------

    def _fail(self, command: c.Fail) -> None:
        kept = Kept(b"")
        error = m.ErrorRecord(command.kind, "", command.reason, "", command.attempts)
        caller = self.calls.get(command.call)
        if command.kind in KINDS_THAT_CARRY and self._error is not None:
            came = self._error
            error = m.ErrorRecord(command.kind, came.type, came.message, came.traceback, command.attempts)
            kept = Kept(self._arrived.payload)
        elif command.kind == "start" and caller is not None and caller.function in self._start_errors:
            came, kept = self._start_errors[caller.function]
            error = m.ErrorRecord("start", came.type, came.message, came.traceback, command.attempts)
        self._settle(command.call, Outcome(command.start, command.count, kept, error))

    def _settle(self, call: str, outcome: Outcome) -> None:
        caller = self.calls.get(call)
        if caller is None:
            outcome.kept.close()
        elif caller.kept:
            nobody_waits = not any(connection.is_open for connection in caller.collectors)
            show = partial(self._show, call, caller, outcome)
            self.ledger.decided(s.PutOutcome(call, outcome), show, may_linger=nobody_waits)
        elif caller.kind == "spawn":
            self.store.put_outcome(call, outcome)
            _share(call, caller, outcome)
        elif outcome.kept is DELIVERED:
            self._left(caller, outcome.count)
        elif caller.connection is not None and caller.connection.is_open:
            send_outcome(caller.connection, call, outcome)
            self._left(caller, outcome.count)
        else:
            outcome.kept.close()
        self.graph.settled(call, outcome.first, outcome.count, outcome.error.kind if outcome.error else None)

    def _left(self, caller: Caller, count: int) -> None:
        """So many outcomes are on their way to who waits for them."""
        caller.window.in_flight -= count
        if caller.window.ahead:
            self.map_has_room(caller)

    def _show(self, call: str, caller: Caller, outcome: Outcome) -> None:
        """The outcome is kept: whoever collects the call may see it."""
        _share(call, caller, outcome)
        outcome.kept.close()

    def _forward(self, call: str, first: int, count: int) -> None:
        caller = self.calls.get(call)
        connection = caller.connection if caller is not None else None
        if connection is not None and connection.is_open:
            kept = self._take()
            connection.lend(kept)
            connection.send(m.Chunks(call, first, count, kept.buffers), kept.payload)

    def consumed(self, call: str, chunks: int, size: int) -> None:
        """The consumer of a generator's call has taken so many chunks and bytes: let the generator go on."""
        caller = self.calls.get(call)
        if caller is not None and caller.holder is not None:
            container, number = caller.holder
            self._tell(container, m.Credit(number, chunks, size))

    def _finish(self, call: str) -> None:
        caller = self.calls.get(call)
        if caller is None:
            return
        if caller.kept:
            ended = partial(self.ended, call, caller)
            self.ledger.decided(s.FinishCall(call, self.ledger.now()), ended, may_linger=True)
        elif caller.kind != "spawn":
            del self.calls[call]
            self._left(caller, caller.window.in_flight)

    def ended(self, call: str, caller: Caller) -> None:
        """The call has ended, and that is kept."""
        del self.calls[call]
        self.call_ended(call, caller)

    def _is_kept(self, call: str) -> bool:
        return (caller := self.calls.get(call)) is not None and caller.kept

    # -- engine reports ------------------------------------------------------------------------------

    def report(self, report: Reported) -> None:
        """What the engine says of a container, or of its nodes."""
        if isinstance(report, CapacityChanged):
            self.happened(e.NodesChanged(self._engine.capacity()))
            return
        served = self.containers.get(report.container)
        if served is None:
            return
        if isinstance(report, ContainerDelayed):
            self._warn(served.record.id, report.reason)
            report = ContainerOutput(report.container, 2, f"{report.reason}\n")
        if isinstance(report, ContainerOutput):
            self._wrote(served, report)
            return
        served.exit = report
        if served.connection is None:
            self.container_gone(served)
        else:
            served.connection.outlive()

    def _wrote(self, served: Served, output: ContainerOutput) -> None:
        app = self.apps.get(app_of(served.record.id))
        if app is not None and app.opener is not None:
            container = served.id.removeprefix("co-")
            app.opener.send(m.Log(app.id, served.record.label, container, output.stream, output.text))
        if app is not None and app.record is not None and self.logs is not None:
            stream: m.LogStream = "stdout" if output.stream == 1 else "stderr"
            self.logs.keep(app.id, served.record.label, served.id, stream, output.text)

    def _warn(self, function: str, reason: str) -> None:
        """Whoever looks after the server may want to know; that of a program has no log but the program's terminal."""
        if self.logs is not None:
            log.warning("%s: %s", function, reason)

    def say(self, words: str, *, app: str = "", function: str = "", container: str = "") -> None:
        """A line of the server's own in the log of the app, or of the function's, if that is kept."""
        known = self.apps.get(app or app_of(function))
        if known is not None and known.record is not None and self.logs is not None:
            self.logs.keep(known.id, label_of(function), container, "server", words.rstrip("\n") + "\n")

    def container_gone(self, served: Served) -> None:
        """Its process is gone and its connection read to the end, or the latter alone: then the process must end."""
        served.connection = None
        if served.exit is None:
            self._engine.kill(served.id)
            return
        del self.containers[served.id]
        if self.stopping:
            return  # what it had is the next life's to try, and nobody is to blame
        if served.exit.status and not served.explained:
            words = "ran out of memory" if served.exit.out_of_memory else "ended by itself"
            self.say(f"{words}: {served.exit.reason}", function=served.record.id, container=served.id)
        self.happened(e.ContainerExited(served.id, served.exit.reason, served.exit.out_of_memory))
        if app := self.apps.get(app_of(served.record.id)):
            app.containers -= 1
            self.close_if_empty(app)

    def retire(self) -> None:
        """Have all containers end, and none begin: what they have not done is left to the next life of the server."""
        self.stopping = True
        for served in list(self.containers.values()):
            if served.connection is None:
                self._engine.kill(served.id)
            else:
                served.connection.send(m.Drain("the server stops"))

    def close_if_empty(self, app: App) -> None:
        """A closing app whose containers are gone is closed."""
        if app.closing and not app.containers and app.id in self.apps:
            del self.apps[app.id]
            if app.opener is not None:
                app.opener.send(m.AppClosed(app.id))
            for function in app.functions:
                self.functions.pop(function, None)
            for call in [name for name, caller in self.calls.items() if caller.app == app.id and not caller.kept]:
                self.forget(call)
                self.store.drop_call(call)


def _share(call: str, caller: Caller, outcome: Outcome) -> None:
    """Send it to whoever collects the call."""
    caller.collectors = [connection for connection in caller.collectors if connection.is_open]
    for connection in caller.collectors:
        send_outcome(connection, call, replace(outcome, kept=outcome.kept.share()))


def send_outcome(connection: Connection, call: str, outcome: Outcome) -> None:
    """Send what became of some inputs of a call. The outcome is the connection's from now on."""
    kept = outcome.kept
    connection.lend(kept)
    if outcome.error is not None:
        connection.send(m.Failed(call, outcome.first, outcome.count, outcome.error), kept.payload)
    else:
        connection.send(m.Outputs(call, outcome.first, outcome.count, kept.buffers), kept.payload)
