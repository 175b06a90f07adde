"""A container from its first breath to its last: it calls home, loads its function, serves ranges, and exits.

The main thread runs user code, and the attendant sees to it that somebody always reads the connection.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter
from typing import NoReturn

from ..sdk import context
from ..wire import messages as m
from ..wire.payload import pack_exception
from .attendant import Attendant
from .control import Seed
from .executor import Executor
from .limits import limit_memory
from .link import Link
from .loader import find_service
from .outbox import PACKAGE


def run_container(seed: Seed, token: str, failed: BaseException | None, *, in_group: bool = False) -> NoReturn:
    """Be a container, in a process of its own. `failed` is what importing the user's code raised; `in_group`, that the
    kernel counts its memory and that of what it starts.
    """
    began = perf_counter()
    link = Link(seed.address, token, seed.rejoin_seconds)
    record = link.call_home()
    try:
        if failed is not None:
            raise failed
        service = find_service(record)
        limit_memory(record.spec.resources, in_group)
        context.enter_container(seed.address, token, os.environ.get("UPSWELL_CA", ""))
        service.enter()
    except BaseException as error:
        described, data = pack_exception(error, own=PACKAGE)
        link.send(m.StartFailed(described), data)
        os._exit(1)
    executor = Executor(link, record, service)
    link.send(m.Ready(perf_counter() - began))
    attendant = Attendant(link, executor, record)
    attendant.start()
    executor.run(attendant.read_until, attendant.read_at_once)
    service.exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
