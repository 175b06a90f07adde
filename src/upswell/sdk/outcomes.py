"""From frames about inputs to Python values and exceptions."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import DeserializationError
from ..wire import messages as m
from ..wire.buffers import BlockGone
from ..wire.payload import Packed, Unreadable, may_be_unreadable, unpack, unpack_exception
from .client import failure
from .inbox import Inbox, Restarted


class Failure(NamedTuple):
    """What some inputs in a row ended with."""

    error: BaseException
    inputs: int


Outcome = list[Any] | Failure


async def outcome_of(inbox: Inbox, submit: m.Submit, packed: Packed) -> Any:
    """Submit a call of one input; its output, or its exception, raised."""
    inbox.submit(submit, packed)
    while True:
        message, payload = (await inbox.receive())[0]
        match message:
            case m.Outputs():
                if (values := values_of(inbox, message, payload)) is not None:
                    return values[0]
            case m.Failed() | m.Refused():
                raise raisable(error_of(message.error, payload))
            case Restarted():
                inbox.submit(submit, packed)


def outcomes_of(inbox: Inbox, message: m.Outputs | m.Failed, payload: memoryview) -> list[tuple[int, Outcome]]:
    """What became of the inputs that the frame is about, by position; an output that can't be loaded fails alone.

    Nothing where the outputs went with the server that sent them: there will be others, or the connection is lost.
    """
    if isinstance(message, m.Failed):
        return [(message.first, Failure(error_of(message.error, payload), message.count))]
    if (values := _unpacked(inbox, message, payload)) is None:
        return []
    if not may_be_unreadable(payload) or Unreadable not in map(type, values):
        return [(message.first, values)]
    return [
        (position, Failure(_unreadable(position, value), 1) if type(value) is Unreadable else [value])
        for position, value in enumerate(values, message.first)
    ]


def values_of(inbox: Inbox, message: m.Outputs | m.Chunks, payload: memoryview) -> list[Any] | None:
    """The outputs in the frame, `None` where they went with the server that sent them.

    Raises the `DeserializationError` of one that can't be loaded here.
    """
    if (values := _unpacked(inbox, message, payload)) is None:
        return None
    if may_be_unreadable(payload):
        for position, value in enumerate(values, message.first):
            if type(value) is Unreadable:
                raise _unreadable(position, value)
    return values


def error_of(record: m.ErrorRecord, payload: bytes | memoryview) -> BaseException:
    """The exception that an input failed with."""
    if record.kind in ("user", "unreadable"):
        return unpack_exception(record, payload)
    if record.kind == "start" and record.type:
        error = unpack_exception(record, payload)
        error.add_note("This happened as a container started, before any input ran.")
        return error
    return failure(record)


def raisable(error: BaseException) -> BaseException:
    """What is raised here for an exception of user code: itself, but for one that would end a loop here in silence."""
    if not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    raised = RuntimeError(f"the function raised {error!r}, which would only end a loop here")
    raised.__cause__ = error
    return raised


def _unpacked(inbox: Inbox, message: m.Outputs | m.Chunks, payload: memoryview) -> list[Any] | None:
    try:
        return unpack(payload, message.buffers)
    except BlockGone:
        return None
    finally:
        if message.buffers is not None:
            inbox.send(m.Release(message.buffers.descriptor))


def _unreadable(position: int, value: Unreadable) -> DeserializationError:
    return DeserializationError(f"the output of input {position} arrived, but {value.error}")
