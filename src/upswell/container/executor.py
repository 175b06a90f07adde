"""Runs the inputs of ranges in user code and sends what comes of them, input by input, in as few frames as is timely.

Synchronous functions run in runner threads (the first is the main thread, so that signals reach user code), and
asynchronous ones as tasks of one loop. What must not happen here: a result that waits for the next input, an input that
is run twice, or one whose end nobody hears of.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..errors import InputCancellation, SerializationError
from ..sdk import context
from ..spec import FunctionRecord
from ..wire.channel import Channel
from ..wire.messages import Buffers, ErrorRecord, Failure, Message, Results, Resumed, Returned, Suspended
from ..wire.payload import BARE, Packed, PackError, pack, pack_exception
from .limits import memory_in_use
from .work import Work

if TYPE_CHECKING:
    import asyncio

FLUSH_SECONDS = 0.002  # results wait no longer than this for company
LONGEST_STRIDE = 128  # inputs between two looks at the clock
YIELD_SECONDS = 0.5  # user code that was told to stop has this long to do so
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Executor:
    """Runs one function in this container."""

    def __init__(self, channel: Channel, record: FunctionRecord, function: Callable[..., Any], is_async: bool) -> None:
        self.record = record
        self.is_async = is_async
        self.held: dict[int, Work] = {}  # the ranges of this container, by id; the attendant adds, runners remove
        self._channel = channel
        self._function = function
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._places = threading.Semaphore(record.spec.concurrency.max_inputs)
        self._counting = threading.Lock()
        self._runners = 1  # threads that run or wait for ranges: the main thread is one
        self._suspended = 0  # of them, those whose input lends its place
        self._queued = 0  # ranges not taken by a runner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = threading.Lock()  # taken by whoever ends the process, and never released
        self._blocks: dict[int, Packed] = {}  # shared memory of results that the server has not taken over

    # -- from the attendant ------------------------------------------------------------------------

    def submit(self, work: Work) -> None:
        """Run the range when there is a place."""
        self.held[work.range] = work
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._run_as_task, work)
            return
        with self._counting:
            self._queued += 1
            self._see_to_runners()
        self._queue.put(work)

    def _see_to_runners(self) -> None:
        """Start a runner where a range is queued and all runners are busy or wait. Called with `_counting` held."""
        busy = len(self.held) - self._suspended
        idle = self._runners - self._suspended - (busy - self._queued)
        places = self.record.spec.concurrency.max_inputs
        if self._queued and idle <= 0 and self._runners - self._suspended < places:
            self._runners += 1
            threading.Thread(target=self._run_ranges, name=f"runner-{self._runners}", daemon=True).start()

    def drain(self) -> None:
        """No more ranges come: end `run`."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        else:
            self._queue.put(None)

    def release(self, descriptor: int) -> None:
        """The server has taken over a block of shared memory."""
        packed = self._blocks.pop(descriptor, None)
        if packed and packed.block:
            packed.block.close()

    def flush(self) -> bool:
        """Send results that wait although their runner is inside an input; whether there were any."""
        waiting = [work for work in list(self.held.values()) if work.outputs]
        for work in waiting:
            with work.lock:
                self._send_outputs(work)
        return bool(waiting)

    def interrupt(self, work: Work, verdict: ErrorRecord) -> None:
        """End the running input of the range with this verdict: by exception, or with the whole container."""
        if work.verdict is not None:
            return
        work.verdict = verdict
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel_task, work)
            return
        if work.thread == threading.main_thread().ident:
            signal.pthread_kill(work.thread, signal.SIGUSR1)
        else:
            cancellation = ctypes.py_object(InputCancellation)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(work.thread), cancellation)
        timer = threading.Timer(YIELD_SECONDS, self._end_by_verdict, (work,))
        timer.daemon = True
        timer.start()

    # -- runner threads ----------------------------------------------------------------------------

    def run(self) -> None:
        """Serve ranges in the main thread until drained."""
        if self.is_async:
            self._run_loop()
        else:
            signal.signal(signal.SIGUSR1, self._on_interrupt)
            self._run_ranges()

    def _on_interrupt(self, *_: object) -> None:
        me = threading.get_ident()
        if any(work.verdict and work.thread == me and not work.settled_verdict for work in list(self.held.values())):
            raise InputCancellation

    def _run_ranges(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                if threading.current_thread() is not threading.main_thread():
                    self._queue.put(None)
                return
            with self._counting:
                self._queued -= 1
            with self._places:
                self._run_range(work)

    def _run_range(self, work: Work) -> None:
        work.begin()
        token = context.running.set(
            context.RunningInput(
                work.call, lambda: work.announced, lambda: self._suspend(work), lambda: self._resume(work)
            )
        )
        try:
            while not self._run_inputs(work):
                pass
        except InputCancellation:
            self._end_by_verdict(work)
        finally:
            context.running.reset(token)

    def _run_inputs(self, work: Work) -> bool:
        """Run inputs until the range ends (true), or one of them fails (false); the hot loop of every container."""
        function, outputs, inputs, base = self._function, work.outputs, work.inputs, work.base
        values = inputs.values if inputs.shape == BARE else None
        position, stride = work.announced, 1
        look_at = position + 1
        try:
            while True:
                work.announced = position
                if position >= work.stop and self._is_over(work, position):
                    return True
                if values is not None and type(values[position - base]) is not _UNREADABLE:
                    output = function(values[position - base])
                else:
                    arguments, keywords = inputs.arguments(position - base)
                    output = function(*arguments, **keywords)
                outputs.append(output)
                position += 1
                if position >= look_at:
                    passed = perf_counter() - work.measured_at
                    if passed > FLUSH_SECONDS and position < work.stop:
                        work.announced = position
                        with work.lock:
                            self._send_outputs(work)
                        stride = max(1, stride // 2)
                    elif passed < FLUSH_SECONDS / 4:
                        stride = min(LONGEST_STRIDE, 2 * stride)
                    look_at = position + stride
        except InputCancellation:
            raise
        except BaseException as error:
            self._fail(work, error)
            return False

    def _is_over(self, work: Work, position: int) -> bool:
        """Whether the range ends here; if so what remains is sent."""
        with work.lock:
            if position < work.stop:
                return False
            work.ended = True
            self._send_outputs(work)
            self.held.pop(work.range, None)
            return True

    def _fail(self, work: Work, error: BaseException) -> None:
        """The running input failed: say so, and move on to the next."""
        if work.verdict is not None:
            self._end_by_verdict(work)
        record, data = _as_failure(error)
        fatal = False
        if isinstance(error, MemoryError) and self.record.spec.resources.memory_mib:
            limit = self.record.spec.resources.memory_mib
            used = memory_in_use() >> 20
            message = (
                f"out of memory: with {used} MiB in use an allocation would have exceeded the limit of {limit} MiB"
            )
            record, data, fatal = ErrorRecord("memory", record.type, message, record.traceback), b"", True
        with work.lock:
            self._send_outputs(work)
            self._send_failure(work, record, data, fatal)
        if fatal:
            self._end_process()

    # -- sending: all of these with the work's lock held --------------------------------------------

    def _send_outputs(self, work: Work) -> None:
        count = len(work.outputs)
        if not count:
            return
        batch = work.outputs[:count]
        del work.outputs[:count]
        wall, cpu = work.measure()
        while batch:
            try:
                packed = pack(batch)
            except PackError as error:
                if error.index:
                    self._send_results(work, pack(batch[: error.index]), error.index, 0.0, 0.0)
                position = work.sent
                work.sent += 1
                reason = SerializationError(f"the output of input {position} can't be sent: {error}")
                record, data = pack_exception(reason)
                self._send(Failure(work.range, position, 0.0, 0.0, record), data)
                batch = batch[error.index + 1 :]
            else:
                self._send_results(work, packed, len(batch), wall, cpu)
                return

    def _send_results(self, work: Work, packed: Packed, count: int, wall: float, cpu: float) -> None:
        buffers: Buffers | None = packed.buffers
        if buffers is not None:
            self._blocks[buffers.descriptor] = packed
        start, work.sent = work.sent, work.sent + count
        self._send(Results(work.range, start, count, wall, cpu, buffers), packed.data)

    def _send_failure(self, work: Work, record: ErrorRecord, data: bytes, fatal: bool) -> None:
        wall, cpu = work.measure()
        position = work.sent
        work.sent += 1
        work.announced = position + 1
        self._send(Failure(work.range, position, wall, cpu, record, fatal), data)

    def _send(self, message: Message, payload: bytes = b"") -> None:
        try:
            self._channel.send(message, payload)
        except OSError:
            os._exit(1)  # no server: nobody can be told anything any more

    # -- waiting for nested calls ------------------------------------------------------------------

    def _suspend(self, work: Work) -> None:
        with work.lock:
            self._send_outputs(work)
        self._send(Returned(work.range, work.give_back()))
        with self._counting:
            self._suspended += 1
            if self._loop is None:
                self._see_to_runners()  # for what was granted ahead of this moment
        self._send(Suspended(work.range))
        if self._loop is None:
            self._places.release()

    def _resume(self, work: Work) -> None:
        if self._loop is None:
            self._places.acquire()
        with self._counting:
            self._suspended -= 1
        self._send(Resumed(work.range))

    # -- the end -----------------------------------------------------------------------------------

    def _end_by_verdict(self, work: Work) -> None:
        """Synchronous code was told to stop: what it left behind is unknown, so its process ends with it."""
        if work.verdict is None or work.range not in self.held or not self._ending.acquire(blocking=False):
            return
        # The runner may be anywhere, perhaps with the lock: wait a moment for it, not for ever.
        got = work.lock.acquire(timeout=YIELD_SECONDS)
        self._send_outputs(work)
        work.settled_verdict = True
        self._send_failure(work, work.verdict, b"", True)
        if got:
            work.lock.release()
        self._end_process()

    def _end_process(self) -> None:
        for other in list(self.held.values()):
            if other.outputs and other.lock.acquire(timeout=YIELD_SECONDS):
                self._send_outputs(other)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    # -- asynchronous functions --------------------------------------------------------------------

    def _run_loop(self) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        for work in list(self.held.values()):
            self._loop.call_soon(self._run_as_task, work)
        self._loop.run_forever()

    def _run_as_task(self, work: Work) -> None:
        assert self._loop is not None
        if work.range not in self._tasks:
            self._tasks[work.range] = self._loop.create_task(self._run_range_async(work))

    def _cancel_task(self, work: Work) -> None:
        if work.range in self._tasks:
            self._tasks[work.range].cancel()

    async def _run_range_async(self, work: Work) -> None:
        import asyncio

        work.begin()
        context.running.set(
            context.RunningInput(
                work.call, lambda: work.announced, lambda: self._suspend(work), lambda: self._resume(work)
            )
        )
        position = work.announced
        while True:
            work.announced = position
            if position >= work.stop and self._is_over(work, position):
                del self._tasks[work.range]
                return
            try:
                arguments, keywords = work.inputs.arguments(position - work.base)
                work.outputs.append(await self._function(*arguments, **keywords))
                if position + 1 < work.stop and perf_counter() - work.measured_at > FLUSH_SECONDS:
                    with work.lock:
                        self._send_outputs(work)
            except (asyncio.CancelledError, Exception) as error:
                verdict, work.verdict = work.verdict, None
                record, data = (verdict, b"") if verdict else _as_failure(error)
                with work.lock:
                    self._send_outputs(work)
                    self._send_failure(work, record, data, False)
            position += 1


def _as_failure(error: BaseException) -> tuple[ErrorRecord, bytes]:
    return pack_exception(error, own=PACKAGE)


from ..wire.payload import Unreadable as _UNREADABLE  # noqa: E402
