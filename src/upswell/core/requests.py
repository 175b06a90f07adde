"""What reaches Dicts and Queues, and what comes of it: the events and commands of `objects.py`.

Values are known here by a handle and a size; who makes the events chooses handles, from 1 on, each once.
"""

from __future__ import annotations

import msgspec

from ..operations import AnyOperation, Problem


class Value(msgspec.Struct, frozen=True, gc=False):
    """Bytes that somebody else keeps."""

    handle: int
    size: int


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A client wants something of an object ("" where the operation needs none). It is answered once, now or later."""

    client: str
    request: int
    object: str
    operation: AnyOperation
    values: tuple[Value, ...] = ()


class Withdrawn(msgspec.Struct, frozen=True, gc=False):
    """The client does not wait for the answer any more; it is an empty one, if it was not given yet."""

    client: str
    request: int


class ClientLeft(msgspec.Struct, frozen=True, gc=False):
    """The connection is gone: its requests are withdrawn and its ephemeral objects end."""

    client: str


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Tell the client. `values` are handles, 0 where there is none, `texts` names or ids; see the operation."""

    client: str
    request: int
    values: tuple[int, ...] = ()
    keys: tuple[bytes, ...] = ()
    texts: tuple[str, ...] = ()
    count: int = 0
    problem: Problem = ""
    reason: str = ""


class Forget(msgspec.Struct, frozen=True, gc=False):
    """Nobody can ask for these values any more. `size` bytes are free with them, those of keys included."""

    values: tuple[int, ...]
    size: int


Event = Asked | Withdrawn | ClientLeft
Command = Answer | Forget


def forget(values: tuple[Value, ...], keys: tuple[bytes, ...] = ()) -> Forget:
    """The command to forget these."""
    size = sum(value.size for value in values) + sum(map(len, keys))
    return Forget(tuple(value.handle for value in values), size)
