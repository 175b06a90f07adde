"""What a peer may say: every rule about the content of a message, in this one place.

The codec has held each frame to its limits and each message to its schema. Here its values are held to what the core
and the dispatcher rely on, before either sees them. What breaks a rule is a `ProtocolError` and ends that connection;
what is merely late, such as the result of a range that was taken back, passes, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec import MAP_WINDOW, MAX_CODE_FILES
from ..wire import messages as m
from ..wire.codec import ProtocolError
from ..wire.ids import MAX_ID_CHARACTERS, SPOOL, is_id

if TYPE_CHECKING:
    from .connections import Connection
    from .dispatcher import Dispatcher
    from .model import Caller

MAX_TEXT_CHARACTERS = 1 << 20  # of a message or a traceback, which travel on inside other messages
MAX_POSITION = 1 << 48  # of an input in its call
MAX_SEGMENT_INPUTS = 1 << 20
MAX_FUNCTIONS = 10_000  # of one app
MAX_RANGES = 100_000  # that one container holds
MAX_DESCRIPTOR = 1 << 31
MAX_NUMBER = 1 << 62  # that a peer has given to a request, a range or a batch
MAX_SECONDS = 1e9
MOST_AHEAD = 2 * MAP_WINDOW  # inputs of a map that wait for outcomes of those before them
MAX_BUFFER_BYTES = 1 << 40


def check_client(message: m.Message, connection: Connection, dispatcher: Dispatcher) -> None:
    """Raise `ProtocolError` where a client may not say this, or not now."""
    match message:
        case m.Submit():
            _check_submit(message, connection, dispatcher)
        case m.Restore():
            _check_restore(message, connection, dispatcher)
        case m.EndInputs():
            _check_end(message, connection, dispatcher)
        case m.OpenApp():
            _check_open(message, dispatcher)
        case m.Declare(app=name, function=record):
            _check_id("app", name)
            _check_id("function", record.id)
            derived = record.id.startswith(f"{name}/{record.name}@")
            _require(derived and "/" not in record.label, f"{record.id} is no pool of {name}/{record.name}")
            _require(len(record.described) <= MAX_ID_CHARACTERS, f"the description of {record.id} is too long")
            if app := dispatcher.apps.get(name):
                _require(len(app.functions) < MAX_FUNCTIONS, f"an app has at most {MAX_FUNCTIONS:,} pools")
        case m.AttendApp(app=name):
            _check_id("app", name)
        case m.CloseApp(app=name):
            _check_id("app", name)
            if app := dispatcher.apps.get(name):
                _require(app.opener is connection, f"the app {name} belongs to another connection")
        case m.Collect(call=call, first=first, stop=stop):
            _check_id("call", call)
            _check_whole("first", first, 0, MAX_POSITION)
            _check_whole("stop", stop, -1, MAX_POSITION)
        case m.Cancel(call=name, request=request, position=position):
            _check_id("call", name)
            _check_whole("request", request)
            _check_whole("position", position, -1, MAX_POSITION)
        case m.AttendCall(call=call):
            _check_id("call", call)
            if caller := dispatcher.calls.get(call):
                _require(_may_go_on(caller, connection), f"the call {call} belongs to another connection")
        case m.Uncollect(call=name) | m.Watch(app=name):
            _check_id("call or app", name)
        case m.Consumed(call=call, chunks=chunks, bytes=size):
            _check_id("call", call)
            _check_whole("chunks", chunks)
            _check_whole("bytes", size)
        case m.LookAt(spool=name):
            is_spool = is_id(name) and name.startswith(SPOOL) and name.removeprefix(SPOOL).isalnum()
            _require(is_spool, f"{name[:40]!r} is no spool")
        case m.BackUp(path=path):
            _require(path.startswith("/") and path.isprintable(), f"{path[:80]!r} is no absolute path")
        case m.DescribeGraph(request=request, call=call, position=position):
            _check_id("request", request)
            _check_id("call", call)
            _check_whole("position", position, -1, MAX_POSITION)
        case m.UseObject(request=request, object=name, operation=operation):
            _check_whole("request", request)
            _require(len(name) <= MAX_ID_CHARACTERS, f"{name[:40]!r} is no object id")
            spans = (getattr(operation, field, None) for field in ("wait", "lifetime"))
            _check_seconds(*(span for span in spans if span is not None))
        case m.Inquire(request=request, function=function):
            _check_whole("request", request)
            _check_id("function", function)
        case _:
            _check_administration(message)


def _check_administration(message: m.Message) -> None:
    """What may be said of deployed apps, and asked of what is here."""
    match message:
        case m.OfferFiles(request=request, digests=digests):
            _check_whole("request", request)
            _require(len(digests) <= MAX_CODE_FILES, f"a tree of code has at most {MAX_CODE_FILES:,} files")
        case m.Deploy():
            _check_whole("request", message.request)
            _check_id("app", message.app)
            _require("/" not in message.app, f"the app id {message.app!r} has a slash")
            _require(len(message.functions) <= MAX_FUNCTIONS, f"an app has at most {MAX_FUNCTIONS:,} functions")
            _require(len(message.files) <= MAX_CODE_FILES, f"a tree of code has at most {MAX_CODE_FILES:,} files")
            _require(len(message.tag) <= m.MAX_TAG_CHARACTERS, f"a tag has at most {m.MAX_TAG_CHARACTERS} characters")
            for record in message.functions:
                _check_id("function", record.id)
            labels = {record.label for record in message.functions}
            _require(len(labels) == len(message.functions), "a function is there twice")
            _require(all(record.label == record.name for record in message.functions), "a function is another's pool")
        case m.Rollback(request=request, name=name, version=version):
            _check_whole("request", request)
            _check_id("app", name)
            _check_whole("version", version, 0, m.MAX_VERSION)
        case m.StopApp(request=request, name=name):
            _check_whole("request", request)
            _check_id("app", name)
        case m.Resolve(request=request, app=app, name=name, version=version):
            _check_whole("request", request)
            _check_id("app", app)
            _require(len(name) <= MAX_ID_CHARACTERS, f"{name[:40]!r} is no function")
            _check_whole("version", version, 0, m.MAX_VERSION)
        case m.List(request=request, limit=limit, subject=subject):
            _check_whole("request", request)
            _check_whole("limit", limit, 0, m.MAX_ROWS)
            if isinstance(subject, m.ListCalls):
                _check_whole("position", subject.position, -1, MAX_POSITION)
        case m.StopContainer(request=request, container=container):
            _check_whole("request", request)
            _check_id("container", container)
        case m.ReadLogs(request=request, app=app, container=container, lines=lines):
            _check_whole("request", request)
            _check_whole("lines", lines, 0, m.MAX_LOG_LINES)
            _check_id("app or container", app or container)


def check_container(message: m.Message, connection: Connection) -> None:
    """Raise `ProtocolError` where a container may not say this."""
    match message:
        case m.Results():
            _check_whole("range", message.range)
            _check_inputs(message.start, message.count)
            _check_seconds(message.seconds, message.cpu_seconds)
            if message.buffers is not None:
                _check_buffers(message.buffers, connection)
        case m.Yielded():
            _check_whole("range", message.range)
            _check_inputs(message.first, message.count)
            if message.buffers is not None:
                _check_buffers(message.buffers, connection)
        case m.Failure():
            _check_whole("range", message.range)
            _check_whole("position", message.position, 0, MAX_POSITION)
            _check_seconds(message.seconds, message.cpu_seconds)
            _check_error(message.error)
        case m.Returned(range=number, stop=stop):
            _check_whole("range", number)
            _check_whole("stop", stop)
        case m.Suspended(range=number) | m.Resumed(range=number):
            _check_whole("range", number)
        case m.Rejoin(ranges=ranges):
            _require(len(ranges) <= MAX_RANGES, f"a container holds at most {MAX_RANGES:,} ranges, not {len(ranges):,}")
            for held in ranges:
                _check_id("call", held.call)
                _check_whole("range", held.range)
                _check_whole("first", held.first, 0, MAX_POSITION)
                _check_whole("next", held.next, held.first, MAX_POSITION)
                _check_whole("stop", held.stop, held.next + 1, MAX_POSITION)
                _check_whole("batch", held.batch)
                _check_whole("chunks", held.chunks)
        case m.StartFailed(error=error):
            _check_error(error)


def _check_submit(message: m.Submit, connection: Connection, dispatcher: Dispatcher) -> None:
    if (caller := dispatcher.calls.get(message.call)) is not None:
        _check_more(message, caller, connection)
    else:
        _check_id("call", message.call)
        _check_id("function", message.function)
        _require(len(message.method) <= MAX_ID_CHARACTERS, f"{message.method[:40]!r} is no method")
    if message.count or not _may_be_empty(message, caller):
        _check_inputs(message.first, message.count)
    if message.buffers is not None:
        _check_buffers(message.buffers, connection)


def _may_be_empty(message: m.Submit, caller: Caller | None) -> bool:
    """Whether a segment without inputs is all of a call, which then has none."""
    return message.kind == "spawn" and message.last and not message.first and (caller is None or not caller.total)


def _check_more(message: m.Submit, caller: Caller, connection: Connection) -> None:
    """A further segment must go on where the call is, under the names that were checked with the first."""
    reason, stop = "", message.first + message.count
    if not _may_go_on(caller, connection):
        reason = "belongs to another connection"
    elif message.kind != caller.kind or message.function != caller.function or message.method != caller.method:
        reason = f"is a {caller.kind} of {caller.function}, not a {message.kind} of {message.function}"
    elif message.first < caller.offered and not caller.kept:  # else the client may not have heard that it is accepted
        reason = f"has its input {message.first} already"
    elif caller.window.waiting >= MOST_AHEAD:
        reason = f"has {caller.window.waiting:,} inputs ahead of those that are in flight, and may not have more"
    elif stop > caller.total >= 0 and caller.connection is not None:  # else it may be from before that was said
        reason = f"ended with {caller.total} inputs"
    if reason:
        raise ProtocolError(f"the call {message.call} {reason}")


def _check_end(message: m.EndInputs, connection: Connection, dispatcher: Dispatcher) -> None:
    """All inputs that were offered count."""
    call, total = message.call, message.total
    _check_id("call", call)
    _check_whole("total", total, 0, MAX_POSITION)
    if caller := dispatcher.calls.get(call):
        _require(_may_go_on(caller, connection), f"the call {call} belongs to another connection")
        least = caller.offered
        _require(total >= least, f"the call {call} has {least} inputs already, not {total}")
        _require(not caller.window.ahead or total == least, f"the call {call} has {least} inputs, not {total}")
        if caller.connection is not None:  # else it may have ended while its program was away, which is told so
            _require(caller.total in (-1, total), f"the call {call} ended with {caller.total} inputs, not {total}")


def _may_go_on(caller: Caller, connection: Connection) -> bool:
    """Whether the call is this connection's: its own, or one that outlives its client and whose connection is gone."""
    if caller.connection is connection:
        return True
    return caller.kept and (caller.connection is None or not caller.connection.is_open)


def _check_restore(message: m.Restore, connection: Connection, dispatcher: Dispatcher) -> None:
    """A segment must follow those before it, and what is unsettled of it lie within it."""
    call, stop = message.call, message.first + message.count
    _check_id("call", call)
    _check_id("function", message.function)
    _require(len(message.method) <= MAX_ID_CHARACTERS, f"{message.method[:40]!r} is no method")
    _check_whole("submitted", message.submitted, 1, MAX_POSITION)
    _check_whole("first", message.first, 0, message.submitted)
    _check_whole("count", message.count, 0, MAX_SEGMENT_INPUTS)
    _check_whole("segments left", message.left, 0, MAP_WINDOW)
    if message.buffers is not None:
        _check_buffers(message.buffers, connection)
    _require(stop <= message.submitted, f"the call {call} has {message.submitted} inputs, and none up to {stop}")
    _require(message.total in (-1, message.submitted), f"the call {call} has {message.submitted} inputs")
    _require(bool(message.count) or not message.left, f"a segment of {call} without inputs")
    position, unsettled = message.first, 0
    for start, end in message.unsettled:
        _require(position <= start < end <= stop, f"{start} to {end} is no part of the segment, or out of order")
        position, unsettled = end, unsettled + end - start
    _require(bool(unsettled) == bool(message.count), f"a segment of {call} with nothing to do")
    caller = dispatcher.calls.get(call)
    if caller is not None and caller.arriving is not None:
        _require(caller.connection is connection, f"the call {call} belongs to another connection")
        same = (caller.function, caller.method, caller.accepted, caller.total)
        said = (message.function, message.method, message.submitted, message.total)
        _require(same == said, f"the call {call} is another one than before")
        before = caller.arriving[-1] if caller.arriving else None
        _require(before is None or message.first >= before.first + before.count, f"segments of {call} out of order")
        unsettled += sum(end - start for segment in caller.arriving for start, end in segment.unsettled)
    _require(unsettled <= MAP_WINDOW, f"the map {call} has more than {MAP_WINDOW:,} inputs on their way")


def _check_open(message: m.OpenApp, dispatcher: Dispatcher) -> None:
    app = message.app
    _check_id("app", app)
    _require("/" not in app, f"the app id {app!r} has a slash")
    _require(len(message.name) <= MAX_ID_CHARACTERS, f"the name {message.name[:40]!r} … is too long")
    _require(app not in dispatcher.apps, f"the app {app} is open already")
    _require(len(message.functions) <= MAX_FUNCTIONS, f"an app has at most {MAX_FUNCTIONS:,} functions")
    seen = set()
    for record in message.functions:
        _check_id("function", record.id)
        _require(record.id == f"{app}/{record.name}", f"the function {record.id} does not belong to the app {app}")
        _require(record.id not in seen, f"the function {record.id} is declared twice")
        seen.add(record.id)


def _check_error(error: m.ErrorRecord) -> None:
    _require(
        max(len(error.type), len(error.message), len(error.traceback)) <= MAX_TEXT_CHARACTERS,
        f"a text of an error has more than {MAX_TEXT_CHARACTERS:,} characters",
    )


def _check_buffers(buffers: m.Buffers, connection: Connection) -> None:
    """The block must be the peer's own, or it could have us open any other process's."""
    process = connection.peer_process()
    _require(buffers.process == process, f"shared memory of process {buffers.process} from process {process}")
    _check_whole("descriptor", buffers.descriptor, 0, MAX_DESCRIPTOR)
    _check_whole("size of shared memory", buffers.size, 0, MAX_BUFFER_BYTES)


def _check_inputs(first: int, count: int) -> None:
    """Some inputs of a call, or values of a generator: `first .. first + count`."""
    if not (0 <= first <= MAX_POSITION and 1 <= count <= MAX_SEGMENT_INPUTS):
        raise ProtocolError(
            f"the first input must be from 0 to {MAX_POSITION:,} and their count from 1 to {MAX_SEGMENT_INPUTS:,}, "
            f"not {first:,} and {count:,}"
        )


def _check_id(what: str, value: str) -> None:
    if not is_id(value):
        raise ProtocolError(f"{value[:40]!r} is no {what} id")


def _check_whole(what: str, value: int, least: int = 0, most: int = MAX_NUMBER) -> None:
    if not least <= value <= most:
        raise ProtocolError(f"{what} must be from {least} to {most:,}, not {value:,}")


def _check_seconds(*values: float) -> None:
    for value in values:
        if not 0 <= value <= MAX_SECONDS:  # nor is NaN
            raise ProtocolError(f"{value} is no span of seconds")


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ProtocolError(reason)
