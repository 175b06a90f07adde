"""A container from its first breath to its last: it calls home, serves ranges, and exits.

Its body, all of it but its name, may have been made before it was forked. The main thread runs user code, and the
attendant sees to it that somebody always reads the connection.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from ..sdk import context
from ..spec import FunctionRecord
from ..wire import messages as m
from .attendant import Attendant
from .control import Launch, Name, Seed
from .executor import Executor
from .limits import limit_memory
from .link import Link
from .loader import find_service
from .outbox import as_failure
from .service import Service
from .title import entitle


class Body:
    """What serves the inputs of a function, in whichever container."""

    def __init__(self, link: Link, record: FunctionRecord, service: Service) -> None:
        self.link = link
        self.record = record
        self.service = service
        self.executor = Executor(link, record, service)
        self.attendant = Attendant(link, self.executor, record)


def body_of(record: FunctionRecord, seed: Seed) -> Body | None:
    """The body of all containers of the function, to be forked with; `None` where each must make its own.

    Nothing of the user's runs, and no loop is made: both are a container's alone.
    """
    if record.kind == "class" or record.serialized:
        return None
    try:
        service = find_service(record)
    except BaseException:
        return None  # each will say what is wrong
    return None if service.is_async else Body(Link(seed.rejoin_seconds, seed.shortcut), record, service)


def run_container(seed: Seed, name: Name, failed: BaseException | None, body: Body | None = None) -> NoReturn:
    """Be the container of that name, in a process of its own. `failed` is what importing the user's code raised."""
    body = begin(seed, name, failed, body)
    body.attendant.start()
    body.executor.run(body.attendant.read_until, body.attendant.read_at_once)
    body.service.exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def begin(seed: Seed, name: Name, failed: BaseException | None, body: Body | None) -> Body:
    """Call home, and say that the container is ready; the body that is to serve."""
    show_devices(name.launch)
    if body is not None:
        try:
            _enter(name, body.link, body.record)
        except BaseException as error:
            failed, body = error, None  # it is said once somebody hears it
    if body is not None:
        body.link.report_home(name.launch.address, name.launch.token, m.Ready())
    else:
        body = _loaded(seed, name, failed)
        body.link.send(m.Ready())
    return body


def show_devices(launch: Launch) -> None:
    """Have what is run here see the GPUs of the container only."""
    if launch.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(launch.devices)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # by which they are numbered


def _loaded(seed: Seed, name: Name, failed: BaseException | None) -> Body:
    """The body of a container that asks the server what it is to be."""
    link = Link(seed.rejoin_seconds, seed.shortcut)
    record = link.call_home(name.launch.address, name.launch.token)
    try:
        if failed is not None:
            raise failed
        service = find_service(record)
        _enter(name, link, record)
        service.enter()
    except BaseException as error:
        described, data = as_failure(error)
        link.send(m.StartFailed(described), data)
        os._exit(1)
    return Body(link, record, service)


def _enter(name: Name, link: Link, record: FunctionRecord) -> None:
    """From now on this process is the container of that name."""
    entitle(f"upswell: {record.label}, container {name.launch.container.removeprefix('co-')}")
    limit_memory(record.spec.resources, name.in_group)
    context.enter_container(name.launch.address, name.launch.token, link.authority)
