"""Synchronous user code: runner threads, as many at work as the container has places. The first is the main thread, so
that signals reach user code, unless the container runs a loop there.

What must not happen here: a result that waits for the next input, an input that is run twice, or one whose end nobody
hears of.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from functools import partial
from itertools import islice
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from ..errors import InputCancellation
from ..sdk import context
from ..spec import FunctionRecord
from ..wire.messages import ErrorRecord
from ..wire.payload import Inputs
from . import signals
from .batches import Batch
from .limits import memory_in_use
from .outbox import PACK_SECONDS, Outbox, as_failure
from .streams import LEND_SECONDS, Closed, Stream
from .work import Work

ReadUntil = Callable[[Callable[[], bool]], None]  # reads the connection until there is work

LONGEST_STRIDE = 128  # inputs between two looks at the clock
SENDING_SECONDS = 0.5  # longer than this nobody waits for a runner that sends


class Threads:
    """The runner threads of a container."""

    def __init__(
        self, record: FunctionRecord, held: dict[int, Work], outbox: Outbox, give_up: Callable[[Work], None], main: bool
    ) -> None:
        self._record = record
        self._held = held
        self._outbox = outbox
        self._give_up = give_up  # ends the process where the range's verdict is still to be carried out
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._most = record.spec.concurrency.max_inputs
        self._main = main  # whether the main thread is the first of the runners
        self._places: SimpleQueue[None] = SimpleQueue()  # one for each that is free; a semaphore takes far longer
        for _ in range(self._most):
            self._places.put(None)
        self._counting = threading.Lock()
        self._runners = int(main)
        self._idle = int(main)  # of the runners, those that wait for work, or are about to
        self._suspended = 0  # of the runners, those whose input lends its place
        self._threads: list[threading.Thread] = []  # the runners, less the main thread
        self._queued = 0  # ranges and batches not taken by a runner
        self._read_at_once: Callable[[], None] | None = None  # for when the main thread waits for a nested call

    @property
    def main_reads(self) -> bool:
        """Whether the main thread is the only runner: then it reads the connection while it has nothing to run."""
        return self._main and self._most == 1 and not self._threads

    def submit(self, lead: Work) -> None:
        """Run the range, or the batch it leads, when there is a place."""
        with self._counting:
            self._queued += 1
            self._see_to_runners()
        self._queue.put(lead)

    def run(self, read_until: ReadUntil, read_at_once: Callable[[], None]) -> None:
        """Serve in the main thread until drained."""
        signals.handle(signal.SIGUSR1, self._on_signal)
        self._read_at_once = read_at_once
        self._serve(read_until)

    def drain(self) -> None:
        """No more ranges come: end `run`."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait, once drained, until nothing runs here: every input ends by itself, or with the process."""
        for thread in self._threads:
            thread.join()

    def interrupt(self, lead: Work) -> None:
        """Raise `InputCancellation` in the code that runs for it, and not while its runner sends what it has."""
        got = lead.lock.acquire(timeout=SENDING_SECONDS)
        with self._outbox.link.sending:
            if lead.ended:
                pass
            elif lead.thread == threading.main_thread().ident:
                signal.pthread_kill(lead.thread, signal.SIGUSR1)
            else:
                cancellation = ctypes.py_object(InputCancellation)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(lead.thread), cancellation)
        if got:
            lead.lock.release()

    # -- runners -----------------------------------------------------------------------------------

    def _see_to_runners(self) -> None:
        """Start a runner where more is queued than runners wait for. Called with `_counting` held."""
        if self._queued > self._idle and self._runners - self._suspended < self._most:
            self._runners += 1
            self._idle += 1
            thread = threading.Thread(target=self._serve, name=f"runner-{self._runners}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, read_until: ReadUntil | None = None) -> None:
        while (lead := self._next(read_until)) is not None:
            with self._counting:
                self._queued -= 1
                self._idle -= 1
            self._places.get()
            try:
                self._run(lead)
            finally:
                self._places.put(None)
            with self._counting:
                self._idle += 1
        self._queue.put(None)  # for the others

    def _next(self, read_until: ReadUntil | None) -> Work | None:
        if read_until is not None and self.main_reads:
            read_until(lambda: not self._queue.empty())
        return self._queue.get()

    def _on_signal(self, *_: object) -> None:
        me = threading.get_ident()
        for work in list(self._held.values()):
            lead = work.lead
            if lead.verdict and lead.thread == me and not lead.settled_verdict:
                raise InputCancellation

    def _run(self, lead: Work) -> None:
        running = context.RunningInput(
            lead.call, lambda: lead.position, lambda: self._suspend(lead), lambda: self._resume(lead)
        )
        self._outbox.link.await_room()
        token = context.running.set(running)
        try:
            for mate in lead.mates:
                mate.begin()
            if lead.batch:
                self._run_batch(lead)
            elif lead.bound is not None and lead.bound.is_generator:
                self._run_generator(lead)
            else:
                while not self._run_inputs(lead):
                    pass
        except InputCancellation:
            self._give_up(lead)
        finally:
            context.running.reset(token)

    # -- ranges of single inputs -------------------------------------------------------------------

    def _run_inputs(self, work: Work) -> bool:
        """Run inputs until the range ends (true), or one of them fails (false); the hot loop of every container."""
        assert work.bound is not None
        function, outputs = work.bound.callable, work.outputs
        if not work.inputs.are_arguments:
            function = partial(_call_with, work.inputs, function)
        due, stride = islice(work.due, len(outputs), None), 1
        try:
            while work.position < work.stop or not self._outbox.is_over(work):
                before = len(outputs)
                for value in islice(due, stride):
                    outputs.append(function(value))
                if len(outputs) == before:  # the end was moved to here and away again: the iterator is over for good
                    due = islice(work.due, before, None)
                stride = self._look_at_clock(work, stride)
            return True
        except InputCancellation:
            raise
        except BaseException as error:
            self._fail(work, error)
            return False

    def _look_at_clock(self, work: Work, stride: int) -> int:
        """See to the outputs when it is time; how many inputs to run until the next look."""
        passed = perf_counter() - work.packed_at
        if passed > PACK_SECONDS and work.position < work.stop:
            with work.lock:
                self._outbox.gather_outputs(work)
            return max(1, stride // 2)
        return min(LONGEST_STRIDE, 2 * stride) if passed < PACK_SECONDS / 4 else stride

    def _fail(self, work: Work, error: BaseException) -> None:
        """The running input failed: say so."""
        if work.verdict is not None:
            self._give_up(work)
        record, data = as_failure(error)
        fatal = isinstance(error, MemoryError) and self._record.spec.resources.memory_mib > 0
        if fatal:
            limit = self._record.spec.resources.memory_mib
            used = memory_in_use() >> 20
            message = (
                f"out of memory: with {used} MiB in use an allocation would have exceeded the limit of {limit} MiB"
            )
            record, data = ErrorRecord("memory", record.type, message, record.traceback), b""
        with work.lock:
            self._outbox.send_failure(work, record, data, fatal=fatal)
        if fatal:
            self._outbox.end_process()

    # -- batches and generators --------------------------------------------------------------------

    def _run_batch(self, lead: Work) -> None:
        batch = Batch(lead, self._record.name, self._outbox)
        try:
            batch.returned([] if batch.is_empty else batch.call())
        except InputCancellation:
            raise
        except BaseException as error:
            if lead.verdict is not None:
                self._give_up(lead)
            batch.failed(error)

    def _run_generator(self, work: Work) -> None:
        assert work.bound is not None
        credit = threading.Event()
        stream = work.stream = Stream(work, self._record.name, self._outbox, credit.set)
        if work.position < work.stop:  # else it was cancelled before it began
            try:
                arguments, keywords = work.inputs.arguments(work.position - work.base)
                generator = work.bound.callable(*arguments, **keywords)
                try:
                    for value in generator:
                        if stream.add(value):
                            self._await_consumer(work, stream, credit)
                finally:
                    if hasattr(generator, "close"):
                        generator.close()
                stream.end()
            except InputCancellation:
                raise
            except Closed:
                with work.lock:
                    self._outbox.send_failure(work, ErrorRecord("cancelled", "", "its consumer has left"))
            except BaseException as error:
                stream.flush()
                self._fail(work, error)
        self._outbox.is_over(work)

    def _await_consumer(self, work: Work, stream: Stream, credit: threading.Event) -> None:
        """Wait until the consumer has caught up, in the end without the place."""
        began = perf_counter()
        stream.waiting = True
        lent = False
        while stream.is_ahead:
            if not credit.wait(None if lent else LEND_SECONDS):
                self._suspend(work)
                lent = True
            credit.clear()
        if lent:
            self._resume(work)
        work.pass_over(perf_counter() - began)
        stream.waiting = False
        if stream.closing:
            raise Closed

    # -- waiting for others ------------------------------------------------------------------------

    def _suspend(self, work: Work) -> None:
        with work.lending:
            work.waits += 1
            if work.lent:
                return
            work.lent = True
            self._outbox.suspend(work)
            with self._counting:
                self._suspended += 1
                self._see_to_runners()  # for what was granted ahead of this moment
            self._places.put(None)
            if self._read_at_once is not None:
                self._read_at_once()

    def _resume(self, work: Work) -> None:
        with work.lending:
            work.waits -= 1
            if work.waits or not work.lent:
                return
            self._places.get()
            with self._counting:
                self._suspended -= 1
            work.lent = False
            self._outbox.resume(work)


def _call_with(inputs: Inputs, function: Callable[..., Any], value: Any) -> Any:
    """Run an input with the arguments that its value stands for."""
    arguments, keywords = inputs.arguments_of(value)
    return function(*arguments, **keywords)
