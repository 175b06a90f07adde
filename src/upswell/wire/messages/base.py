"""What every message has, and what both sides of every connection say.

A frame is a message and a payload: opaque bytes that only the two ends of a call read (see `payload.py`). Buffers are
memory that travels beside the payload by reference. Ids are text with a kind prefix; positions count inputs of a call
from 0; spans are half open.

Modules of messages, and of what is in messages, leave annotations as values: the codec reads every one of them at each
start, and text would have to be compiled for that.
"""

from typing import Literal

import msgspec

PROTOCOL = 2  # counted up when the other side would misread what is said; CONTRIBUTING.md has the rule

ErrorKind = Literal[
    "user",
    "cancelled",
    "lost",
    "memory",
    "timeout",
    "start",
    "exhausted",  # a limit: there may be room later
    "full",  # the disk: nothing comes by waiting
    "missing",
    "expired",
    "unreadable",
    "invalid",
    "denied",
]


class Message(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True, gc=False):
    """Base of all messages."""


class Buffers(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One block of shared memory that holds the out-of-band buffers of a payload, one after the other, each aligned.

    It is reached as descriptor `descriptor` of process `process` (`/proc/PROCESS/fd/DESCRIPTOR`); who forwards it opens
    it first, so that the block lives until the last reader has it and never outlives the processes. Over a network it
    comes before the message, as `Piece`s, and `process` is 0.
    """

    process: int
    descriptor: int
    size: int


class ErrorRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A failure as data: readable without unpickling. For kind `user` the payload beside it has the exception."""

    kind: ErrorKind
    type: str  # the exception's qualified name, such as "builtins.ValueError"
    message: str
    traceback: str = ""
    attempts: int = 1

    @property
    def last_line(self) -> str:
        """As Python ends a traceback with it."""
        return f"{self.type.removeprefix('builtins.')}: {self.message}"


class Hello(Message, tag=1, frozen=True):
    """The first frame of every connection. `token` of a container is what the engine gave it.

    A client that may come back over another connection gives its session a name that nobody guesses, the same each
    time, and says how many frames of it it has `received`. A container that is `loaded` knows what it is for.
    """

    protocol: int
    role: Literal["client", "container"]
    token: str
    process: int
    session: str = ""
    received: int = 0
    loaded: bool = False


class Welcome(Message, tag=2, frozen=True):
    """The answer to a good `Hello`; `address` is where others reach the server, such as "unix:@name".

    With `keeps_session`, who comes back goes on. With `resumed` it does now: the server has `received` so many of its
    frames, and both send again what the other lacks. Else the server knows nothing of what was said before. `spools` is
    the directory for a spool of the client's own, where it may have one.
    """

    protocol: int
    process: int
    address: str
    keeps_session: bool = False
    resumed: bool = False
    received: int = 0
    spools: str = ""


class Bye(Message, tag=3, frozen=True):
    """The sender closes this connection, and why. `denied`: because of the token."""

    reason: str
    denied: bool = False


class Release(Message, tag=19, frozen=True):
    """The sender has taken over the block of shared memory `descriptor` of the receiver, which may close it."""

    descriptor: int


class Piece(Message, tag=22, frozen=True):
    """The next bytes (the payload) of the block that the message after them names. Only over networks: `passage.py`."""


class Received(Message, tag=80, frozen=True):
    """The sender has so many frames of the session, counted from its beginning: see `delivery.py`."""

    count: int
