"""Who speaks over a connection, and what each may ask for: the one table of rights.

A right is looked up before anything that a message names, so that a refusal says nothing about what exists.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..wire import messages as m
from ..wire.codec import ProtocolError

Kind = Literal["stranger", "neighbour", "client", "read", "container"]
Right = Literal["look", "survey", "use", "deploy", "own"]


class Identity(msgspec.Struct, frozen=True):
    """Who it is, as the server has made sure: by the kernel (a neighbour), or by a token."""

    kind: Kind
    token: str = ""  # the id of the token, or of the container whose it is
    app: str = ""  # the id of a container's app


STRANGER = Identity("stranger")
NEIGHBOUR = Identity("neighbour")  # the same user on the same machine

RIGHTS: dict[Kind, frozenset[Right]] = {
    "stranger": frozenset(),
    "neighbour": frozenset(("look", "survey", "use", "deploy", "own")),
    "client": frozenset(("look", "survey", "use", "deploy")),
    "read": frozenset(("look", "survey")),
    "container": frozenset(("look", "use")),
}

# What each is the right to, for whoever does not have it.
IN_WORDS: dict[Right, str] = {
    "look": "look at anything",
    "survey": "look at all that is here",
    "use": "call functions, or change anything",
    "deploy": "deploy, run or stop apps",
    "own": "do what is for the own user of the server",
}

# Every message that a client sends, and what it takes.
NEEDED: dict[type[m.Message], Right] = {
    **dict.fromkeys((m.Bye, m.Watch, m.Inquire, m.Resolve, m.DescribeGraph), "look"),
    **dict.fromkeys((m.Collect, m.Uncollect), "look"),
    **dict.fromkeys((m.OpenApp, m.CloseApp, m.Declare, m.Submit, m.Restore, m.EndInputs, m.Cancel, m.Consumed), "use"),
    **dict.fromkeys((m.AttendCall, m.UseObject, m.Withdraw, m.Piece), "use"),
    # Of all that is here: no container's business.
    **dict.fromkeys((m.DescribeServer, m.List, m.ReadLogs, m.Unfollow), "survey"),
    **dict.fromkeys((m.OfferFiles, m.PutFile, m.Deploy, m.AttendApp, m.Rollback, m.StopApp, m.StopContainer), "deploy"),
    **dict.fromkeys((m.BackUp, m.LookAt), "own"),
}


def may(identity: Identity, message: m.Message) -> bool:
    """Whether the message is within the rights of who sends it; `ProtocolError` for one that no client sends."""
    return needed_for(message) in RIGHTS[identity.kind]


def needed_for(message: m.Message) -> Right:
    """The right that the message takes; `ProtocolError` for one that no client sends."""
    needed = NEEDED.get(type(message))
    if needed is None:
        raise ProtocolError(f"a client does not send {type(message).__name__}")
    if isinstance(message, m.Inquire) and message.update is not None:
        return "use"
    return needed
