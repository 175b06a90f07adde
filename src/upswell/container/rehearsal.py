"""Plays a container's life, from its first frame to its last, with a server that is the other end of its connection.

CPython adapts code as it runs, and writes to every object that it touches, the page of which is copied if a fork shares
it. Whoever rehearses has both behind it: the root zygote for every container, and a spare for itself. It must leave
nothing behind: no thread, no descriptor, no handler.
"""

from __future__ import annotations

import os
import signal
import socket

from ..sdk import context
from ..spec import Environment, FunctionRecord, FunctionSpec
from ..wire import messages as m
from ..wire.channel import Channel
from ..wire.payload import BARE, pack
from .control import Launch, Name, Seed
from .link import Link
from .runtime import Body, begin
from .service import Bound, Service

_SEED = Seed(Environment(kind="text", origin="", module="", main=False, sys_path=(), directory="/"))
_RECORD = FunctionRecord(
    id="ap-0/rehearsal", app_name="", name="rehearsal", spec=FunctionSpec(), environment=_SEED.environment
)


def rehearse(times: int = 1) -> None:
    """Play it so many times."""
    handler, server = signal.getsignal(signal.SIGUSR1), context.server
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind("")  # a name that nobody else has
        door.listen(1)
        name = Name(Launch("", "", f"unix:@{door.getsockname()[1:].decode()}"))
        for _ in range(times):
            _play(name, door)
    context.server = server
    if handler is not None:  # not one of C, which Python does not know
        signal.signal(signal.SIGUSR1, handler)


def _play(name: Name, door: socket.socket) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    link = Link(rejoin_seconds=0.0, shortcut=nowhere)
    body = begin(_SEED, name, None, Body(link, _asked(), Service({"": Bound.of(_same)})))
    server = Channel(door.accept()[0])
    server.send(m.Assign(1, "fc-0", 0, 1, 0, 1, may_deliver=True), pack([1], shape=BARE).data)
    server.send(m.Drain("the rehearsal is over"))
    body.executor.run(body.attendant.read_until, body.attendant.read_at_once)
    link.close()
    os.close(nowhere)
    server.close()


def _asked() -> FunctionRecord:
    """What a container hears that asks what it is to be."""
    ours, theirs = socket.socketpair()
    server, link = Channel(ours), Link(rejoin_seconds=0.0)
    server.send(m.Load(_RECORD))
    record = link.meet(Channel(theirs))
    assert record is not None
    link.close()
    server.close()
    return record


def _same(value: object) -> object:
    return value
