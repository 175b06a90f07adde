"""A container from its first breath to its last: it calls home, loads its function, serves ranges, and exits.

The main thread runs user code, and the attendant sees to it that somebody always reads the connection. When the server
is gone the process ends at once: nobody waits for it any more.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter
from typing import NoReturn

from ..errors import ConnectionError
from ..sdk import context
from ..wire import messages as m
from ..wire.channel import dial
from ..wire.payload import pack_exception
from .attendant import Attendant
from .executor import Executor
from .limits import limit_memory
from .loader import find_service
from .outbox import PACKAGE


def run_container(address: str, token: str, failed: BaseException | None, *, in_group: bool = False) -> NoReturn:
    """Be a container, in a process of its own. `failed` is what importing the user's code raised; `in_group`, that the
    kernel counts its memory and that of what it starts.
    """
    began = perf_counter()
    try:
        channel = dial(address)
        channel.send(m.Hello(m.PROTOCOL, "container", token, os.getpid()))
        frames = channel.receive()
    except (ConnectionError, OSError):
        os._exit(1)
    if not frames or not isinstance(frames[0][0], m.Load):
        os._exit(1)
    record = frames[0][0].function
    try:
        if failed is not None:
            raise failed
        service = find_service(record)
        limit_memory(record.spec.resources, in_group)
        context.enter_container(address, token)
        service.enter()
    except BaseException as error:
        described, data = pack_exception(error, own=PACKAGE)
        channel.send(m.StartFailed(described), data)
        os._exit(1)
    executor = Executor(channel, record, service)
    channel.send(m.Ready(perf_counter() - began))
    attendant = Attendant(channel, executor, record)
    attendant.start()
    executor.run(attendant.read_until, attendant.read_at_once)
    service.exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
