"""A container from its first breath to its last: it calls home, loads its function, serves ranges, and exits.

The main thread runs user code. The attendant thread reads the connection, so that work can be taken back and time
limits hold while user code is busy. When the server is gone the process ends at once: nobody waits for it any more.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from itertools import islice
from time import monotonic, perf_counter
from typing import NoReturn

from ..errors import ConnectionError
from ..sdk import context
from ..spec import FunctionRecord
from ..wire import messages as m
from ..wire.channel import Channel, dial
from ..wire.payload import Inputs, pack_exception, unpack_inputs
from .executor import Executor
from .limits import limit_memory
from .loader import find_service
from .outbox import PACKAGE
from .work import Work

FLUSH_MS = 5  # results of a range with several inputs are looked after this often
QUIET_LOOKS = 4  # ... until so many looks found nothing
LONGEST_LOOK_SECONDS, SHORTEST_LOOK_SECONDS = 1.0, 0.01


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
    threading.Thread(target=Attendant(channel, executor, record).attend, name="attendant", daemon=True).start()
    executor.run()
    service.exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class Attendant:
    """Reads the connection and looks after what runs."""

    def __init__(self, channel: Channel, executor: Executor, record: FunctionRecord) -> None:
        self._channel = channel
        self._executor = executor
        self._timeout = record.spec.timeout
        self._places = record.spec.concurrency.max_inputs
        self._segments: dict[tuple[str, int], Inputs] = {}  # decoded once, until forgotten
        self._quiet = 0
        self._looked_at = 0.0  # the last time that time limits were looked after

    def attend(self) -> None:
        """Serve until the connection ends, and the process with it; nothing would go on without this thread."""
        try:
            self._attend()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)

    def _attend(self) -> None:
        poller = select.poll()
        poller.register(self._channel.fileno(), select.POLLIN)
        while True:
            if poller.poll(self._patience_ms()):
                frames = self._channel.receive()
                if not frames:
                    return
                for message, payload in frames:
                    self._handle(message, payload)
            else:
                self._quiet = 0 if self._executor.flush() else self._quiet + 1
            if self._executor.held and (now := monotonic()) - self._looked_at >= SHORTEST_LOOK_SECONDS:
                self._looked_at = now
                self._enforce_timeout(now)

    def _patience_ms(self) -> float | None:
        held = list(self._executor.held.values())
        if not held:
            return None
        if self._quiet < QUIET_LOOKS and any(work.stop - work.sent > 1 for work in held):
            return FLUSH_MS
        if any(work.stream is not None and not work.stream.waiting for work in held):
            return FLUSH_MS
        return 1000 * min(LONGEST_LOOK_SECONDS, max(SHORTEST_LOOK_SECONDS, self._timeout / 20))

    def _handle(self, message: m.Message, payload: memoryview) -> None:
        match message:
            case m.Assign():
                segment = (message.call, message.first)
                inputs = None if len(payload) else self._segments.get(segment)
                if inputs is None:
                    inputs = unpack_inputs(payload, message.buffers, message.count)
                if not message.is_whole:
                    self._segments[segment] = inputs
                self._quiet = 0
                self._executor.submit(Work(message, inputs), message.left)
            case m.TakeBack(range=number):
                self._give_back(number, is_next=number in islice(self._executor.held, self._places))
            case m.CancelRange(range=number):
                self._executor.cancel(number)
            case m.Credit(range=number, chunks=chunks, bytes=size):
                self._executor.credit(number, chunks, size)
            case m.Forget():
                self._segments.pop((message.call, message.first), None)
            case m.Release():
                self._executor.outbox.release(message.descriptor)
            case m.Drain():
                self._executor.drain()

    def _give_back(self, number: int, *, is_next: bool = False) -> None:
        work = self._executor.held.get(number)
        stop = work.give_back(is_next=is_next) if work is not None else 1 << 62
        self._channel.send(m.Returned(number, stop))

    def _enforce_timeout(self, now: float) -> None:
        for work in list(self._executor.held.values()):
            if not work.begun or work.seen[0] != work.announced:
                work.seen = (work.announced if work.begun else work.announced - 1, now)
            elif work.stream is not None and work.stream.waiting:
                pass  # what it waits for its consumer is added to `seen` when that is over
            elif now - work.seen[1] >= self._timeout and work.lead.verdict is None:
                words = f"the input ran longer than timeout={self._timeout:g} s"
                self._executor.interrupt(work, m.ErrorRecord("timeout", "", words))
