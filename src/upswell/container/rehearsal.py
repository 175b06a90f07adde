"""Plays a container's life, from its first frame to its last, with a server that is the other end of a socket pair.

CPython adapts code as it runs, and writes to every object that it touches, the page of which is copied if a fork shares
it. Whoever rehearses has both behind it: the root zygote for every container, and a spare for itself. It must leave
nothing behind: no thread, no descriptor, no handler.
"""

from __future__ import annotations

import signal
import socket

from ..spec import Environment, FunctionRecord, FunctionSpec
from ..wire import messages as m
from ..wire.channel import Channel
from ..wire.payload import BARE, pack
from .attendant import Attendant
from .executor import Executor
from .link import Link
from .service import Bound, Service

_RECORD = FunctionRecord(
    id="ap-0/rehearsal",
    app_name="",
    name="rehearsal",
    spec=FunctionSpec(),
    environment=Environment(kind="text", origin="", module="", main=False, sys_path=(), directory="/"),
)


def rehearse(times: int = 1) -> None:
    """Play it so many times."""
    handler = signal.getsignal(signal.SIGUSR1)
    for _ in range(times):
        ours, theirs = socket.socketpair()
        server, channel = Channel(ours), Channel(theirs)
        server.send(m.Load(_RECORD))
        link = Link("", "", rejoin_seconds=0.0)
        record = link.meet(channel)
        assert record is not None
        executor = Executor(link, record, Service({"": Bound.of(_same)}))
        link.send(m.Ready(0.0))
        server.send(m.Assign(1, "fc-0", 0, 1, 0, 1), pack([1], shape=BARE).data)
        server.send(m.Drain("the rehearsal is over"))
        attendant = Attendant(link, executor, record)
        executor.run(attendant.read_until, attendant.read_at_once)
        link.close()
        server.close()
    if handler is not None:  # not one of C, which Python does not know
        signal.signal(signal.SIGUSR1, handler)


def _same(value: object) -> object:
    return value
