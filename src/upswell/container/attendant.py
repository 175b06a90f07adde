"""Reads the container's connection and looks after what runs: in whichever thread has time for it.

The main thread, while it has nothing to run, reads for itself, so a range that comes is run without waking another
thread. While user code runs somebody must read all the same, or nothing could be taken back and no time limit held: a
thread of the attendant's own looks now and then whether the main thread is still at what it was at, and if so reads in
its stead, until there is something for it again. Of a container with several runners that thread reads always.
"""

from __future__ import annotations

import _thread
import math
import os
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic, perf_counter

from ..errors import ConnectionError
from ..spec import GATHER_SECONDS, FunctionRecord
from ..wire import messages as m
from ..wire.payload import Inputs, unpack_inputs
from ..wire.turns import Turns
from .executor import Executor
from .link import Link
from .work import Work

FLUSH_SECONDS = 0.005  # chunks, and the results of a group, are looked after this often
QUIET_LOOKS = 4  # ... the latter until so many looks found nothing
LATEST_SECONDS = 1.5 * GATHER_SECONDS  # results that a runner has not sent by then are sent while its input runs
LONGEST_LOOK_SECONDS, SHORTEST_LOOK_SECONDS = 1.0, 0.005


class Attendant:
    """Handles what the server says, in one thread at a time: the one whose turn it is."""

    def __init__(self, link: Link, executor: Executor, record: FunctionRecord) -> None:
        self._link = link
        self._executor = executor
        self._timeout = record.spec.timeout
        self._places = record.spec.concurrency.max_inputs
        self._segments: dict[tuple[str, int], Inputs] = {}  # decoded once, until forgotten
        self._quiet = 0
        self._looked_at = 0.0  # the last time that time limits were looked after
        self._turns = Turns()

    def start(self) -> None:
        """Begin to look after the main thread, in another one."""
        # Not a `threading.Thread`: making one, and waiting until it has begun, is a tenth of a container's start.
        _thread.start_new_thread(self._attend, ())

    def read_until(self, has_work: Callable[[], bool]) -> None:
        """For the main thread: serve the connection until there is work, unless the other thread is just doing so."""
        self._turns.pass_by(self._read_while_idle, has_work)

    def _read_while_idle(self, has_work: Callable[[], bool]) -> bool:
        while not has_work():
            self._read()
        return True

    def read_at_once(self) -> None:
        """Have the other thread read without the end of its nap: the main thread is about to wait for a nested call."""
        self._turns.want()

    # -- the thread of its own ---------------------------------------------------------------------

    def _attend(self) -> None:
        """Serve until the process ends; nothing would go on without this thread."""
        try:
            while True:
                self._turns.take(self._main_passes)
                handed_over = False
                while not (handed_over and self._executor.main_reads):
                    handed_over = self._read()
                self._turns.give()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)

    def _main_passes(self) -> bool:
        return self._executor.main_reads

    # -- reading, in whichever thread --------------------------------------------------------------

    def _read(self) -> bool:
        """Handle what comes next, and look after what runs when it is time; whether a runner got something to run."""
        handed_over = False
        patience = self._patience_ms()
        if self._link.is_lost:
            self._link.rejoin(self._holdings)
        elif patience is None or self._link.wait(patience):
            for message, payload in self._link.receive():
                handed_over = self._handle(message, payload) or handed_over
        if self._executor.held and (now := monotonic()) - self._looked_at >= SHORTEST_LOOK_SECONDS:
            self._looked_at = now
            self._quiet = 0 if self._executor.flush() else self._quiet + 1
            self._enforce_timeout(now)
        return handed_over

    def _holdings(self, unprocessed: Iterable[Work]) -> list[m.Holding]:
        """For another server, which sends anew what it grants."""
        self._segments.clear()
        return self._executor.holdings(unprocessed)

    def _patience_ms(self) -> float | None:
        held = list(self._executor.held.values())
        if not held:
            return None
        patience = min(LONGEST_LOOK_SECONDS, self._timeout / 20, *map(self._flush_in, held))
        return 1000 * max(patience, SHORTEST_LOOK_SECONDS)

    def _flush_in(self, work: Work) -> float:
        """In how many seconds to see whether outputs of the range wait for an input that takes long."""
        if work.stream is not None:
            return math.inf if work.stream.waiting else FLUSH_SECONDS
        if work.stop - work.sent <= 1:
            return math.inf
        if not work.gather_seconds and self._quiet < QUIET_LOOKS:
            return FLUSH_SECONDS
        return LATEST_SECONDS - (perf_counter() - work.measured_at if work.unsent else 0.0)

    def _handle(self, message: m.Message, payload: memoryview) -> bool:
        """Do what the server says; whether a runner has something to run because of it."""
        match message:
            case m.Assign():
                segment = (message.call, message.first)
                inputs = None if len(payload) else self._segments.get(segment)
                if inputs is None:
                    try:
                        inputs = unpack_inputs(payload, message.buffers, message.count)
                    except ConnectionError:  # the server took their shared memory with it: this range was never here
                        self._link.lose()
                        return False
                if not message.is_whole:
                    self._segments[segment] = inputs
                self._quiet = 0
                return self._executor.submit(Work(message, inputs), message.left)
            case m.TakeBack(range=number):
                self._give_back(number, is_next=number in islice(self._executor.held, self._places))
            case m.CancelRange(range=number):
                self._executor.cancel(number)
            case m.Credit(range=number, chunks=chunks, bytes=size):
                self._executor.credit(number, chunks, size)
            case m.Forget():
                self._segments.pop((message.call, message.first), None)
            case m.Release():
                self._link.release(message.descriptor)
            case m.Processed(count=count):
                self._link.processed(count)
            case m.Drain():
                self._link.may_return = False
                self._executor.drain()
            case m.Bye():
                os._exit(1)  # it is not wanted
        return False

    def _give_back(self, number: int, *, is_next: bool = False) -> None:
        work = self._executor.held.get(number)
        stop = work.give_back(is_next=is_next) if work is not None else 1 << 62
        self._link.send(m.Returned(number, stop))

    def _enforce_timeout(self, now: float) -> None:
        for work in list(self._executor.held.values()):
            if not work.begun or work.seen[0] != work.position:
                work.seen = (work.position if work.begun else work.position - 1, now)
            elif work.stream is not None and work.stream.waiting:
                pass  # what it waits for its consumer is added to `seen` when that is over
            elif now - work.seen[1] >= self._timeout and work.lead.verdict is None:
                words = f"the input ran longer than timeout={self._timeout:g} s"
                self._executor.interrupt(work, m.ErrorRecord("timeout", "", words))
