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
from .control import Name, Seed
from .executor import Executor
from .limits import limit_memory
from .link import Link
from .loader import find_service
from .outbox import PACKAGE


def run_container(seed: Seed, name: Name, failed: BaseException | None) -> NoReturn:
    """Be the container of that name, in a process of its own. `failed` is what importing the user's code raised."""
    began = perf_counter()
    launch = name.launch
    link = Link(launch.address, launch.token, seed.rejoin_seconds)
    record = link.call_home()
    try:
        if failed is not None:
            raise failed
        service = find_service(record)
        limit_memory(record.spec.resources, name.in_group)
        context.enter_container(launch.address, launch.token, os.environ.get("UPSWELL_CA", ""))
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
