"""What stands between a client that is no neighbour and what it asks for.

Beyond its rights everything is denied. To a container, calls and apps of others are as if they were not there: it gets
the answers that it would get then.
"""

from __future__ import annotations

from ..spec import AutoscalerSettings, app_of, no_call, no_function
from ..wire import messages as m
from .connections import Connection
from .dispatcher import Dispatcher
from .identity import IN_WORDS, may, needed_for


class Guard:
    """Looks at what comes over one connection."""

    def __init__(self, connection: Connection, dispatcher: Dispatcher) -> None:
        self._connection = connection
        self._dispatcher = dispatcher

    def allows(self, message: m.Message) -> bool:
        """Whether the message is within the client's rights; otherwise it is told so."""
        identity = self._connection.identity
        if may(identity, message):
            return True
        who = "code in a container" if identity.kind == "container" else f"a token of scope {identity.kind!r}"
        reason = f"{who} may not {IN_WORDS[needed_for(message)]}"
        self._connection.send(m.Denied(about(message), reason))
        return False

    def reaches(self, message: m.Message) -> bool:
        """Whether what the message names is there for the client; otherwise it is told that it is missing."""
        if self._connection.identity.kind != "container" or self._is_there(message):
            return True
        if (answer := answer_where_missing(message)) is not None:
            self._connection.send(answer)
        if (buffers := getattr(message, "buffers", None)) is not None:
            self._connection.send(m.Release(buffers.descriptor))  # that nobody takes over
        return False

    def _is_there(self, message: m.Message) -> bool:
        """Whether what a container's message names is there for it, as far as somebody else might have it."""
        match message:
            case m.Cancel(call=call) | m.Collect(call=call) | m.Uncollect(call=call) | m.Consumed(call=call):
                return self._has_call(call)
            case m.AttendCall(call=call) | m.DescribeGraph(call=call):
                return self._has_call(call)
            case m.Submit(function=function) | m.Restore(function=function) | m.Inquire(function=function):
                return self._has_app(app_of(function))
            case m.Watch(app=app) | m.Declare(app=app):
                return self._has_app(app)
        return True

    def _has_call(self, call: str) -> bool:
        """Calls of the container's app, and those that the app's containers have made."""
        app = self._connection.identity.app
        caller = self._dispatcher.calls.get(call)
        if caller is not None and app in (caller.app, caller.maker):
            return True
        record = self._dispatcher.store.call(call)
        return record is not None and app in (app_of(record.function), record.maker)

    def _has_app(self, name: str) -> bool:
        """The container's app, those that it has opened, and those that are there for everybody: the deployed ones."""
        app = self._dispatcher.apps.get(name)
        return app is not None and (
            name == self._connection.identity.app or app.opener is self._connection or app.record is not None
        )


def about(message: m.Message) -> str:
    """Under which name the sender waits for an answer."""
    for field in ("request", "call", "app"):
        if name := getattr(message, field, None):
            return str(name)
    return ""


def answer_where_missing(message: m.Message) -> m.Message | None:
    """What is answered where the call or the function that the message names does not exist."""
    match message:
        case m.Collect(call=call):
            return m.Failed(call, 0, 0, m.ErrorRecord("missing", "", no_call(call)))
        case m.DescribeGraph(request=request):
            return m.CallGraph(request, [], missing=True)
        case m.Cancel(request=request) if request:
            return m.Done(request)
        case (
            m.Submit(call=call, first=first, count=count, function=function)
            | m.Restore(call=call, first=first, count=count, function=function)
        ):
            return m.Refused(call, first, count, m.ErrorRecord("missing", "", no_function(function)))
        case m.Inquire():
            return no_statistics(message)
    return None


def no_statistics(message: m.Inquire) -> m.Statistics:
    """What is answered where the function does not exist."""
    missing = m.ErrorRecord("missing", "", no_function(message.function))
    return m.Statistics(message.request, 0, 0, 0, 0, AutoscalerSettings(), error=missing)
