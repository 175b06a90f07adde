"""From frames about inputs to Python values and exceptions."""

from __future__ import annotations

from typing import Any

from ..wire import messages as m
from ..wire.payload import Unreadable, unpack, unpack_exception
from .client import Client
from .submission import failure


def values_of(client: Client, message: m.Outputs, payload: memoryview) -> list[Any]:
    """The outputs in the frame; one that can't be loaded here raises where it is."""
    try:
        values = unpack(payload, message.buffers)
    finally:
        if message.buffers is not None:
            client.send(m.Release(message.buffers.descriptor))
    for value in values:
        if type(value) is Unreadable:
            raise value.error
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
