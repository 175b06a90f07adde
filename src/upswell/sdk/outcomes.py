"""From frames about inputs to Python values and exceptions."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import DeserializationError
from ..wire import messages as m
from ..wire.payload import Unreadable, unpack, unpack_exception
from .client import Client, failure


class Failure(NamedTuple):
    """What some inputs in a row ended with."""

    error: BaseException
    inputs: int


Outcome = list[Any] | Failure


def outcomes_of(client: Client, message: m.Outputs | m.Failed, payload: memoryview) -> list[tuple[int, Outcome]]:
    """What became of the inputs that the frame is about, by position; an output that can't be loaded fails alone."""
    if isinstance(message, m.Failed):
        return [(message.first, Failure(error_of(message.error, payload), message.count))]
    values = _unpacked(client, message, payload)
    if Unreadable not in map(type, values):
        return [(message.first, values)]
    return [
        (position, Failure(_unreadable(position, value), 1) if type(value) is Unreadable else [value])
        for position, value in enumerate(values, message.first)
    ]


def values_of(client: Client, message: m.Outputs | m.Chunks, payload: memoryview) -> list[Any]:
    """The outputs in the frame; raises the `DeserializationError` of one that can't be loaded here."""
    values = _unpacked(client, message, payload)
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


def _unpacked(client: Client, message: m.Outputs | m.Chunks, payload: memoryview) -> list[Any]:
    try:
        return unpack(payload, message.buffers)
    finally:
        if message.buffers is not None:
            client.send(m.Release(message.buffers.descriptor))


def _unreadable(position: int, value: Unreadable) -> DeserializationError:
    return DeserializationError(f"the output of input {position} arrived, but {value.error}")
