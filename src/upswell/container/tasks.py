"""Asynchronous user code: every range, and every batch, is a task of the one loop in the main thread.

A task is cancelled alone, so its input ends alone. Code that blocks the loop blocks all of them; the executor sees that
an input does not end when it should, and ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from time import perf_counter
from typing import Any

from ..sdk import context
from ..spec import FunctionRecord
from ..wire.messages import ErrorRecord
from .batches import Batch
from .link import PAUSE_SECONDS
from .outbox import PACK_SECONDS, Outbox, as_failure
from .streams import LEND_SECONDS, Closed, Stream
from .work import Work


class Places:
    """How many inputs may be at work on the loop. Used from the loop alone."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a place, in turn."""
        if self._free <= 0:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.give()
                raise
        else:
            self._free -= 1

    def take_now(self) -> None:
        """For code that can't wait: it may be one too many."""
        self._free -= 1

    def give(self) -> None:
        """A place is free."""
        while self._waiting and self._free >= 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Tasks:
    """The tasks of a container, on the loop of its service."""

    def __init__(
        self, record: FunctionRecord, held: dict[int, Work], outbox: Outbox, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._record = record
        self._held = held
        self._outbox = outbox
        self._loop = loop
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the range, for a batch the leading one
        self._places = Places(record.spec.concurrency.max_inputs)
        self._returning: dict[int, asyncio.Lock] = {}  # held by a range that takes its place back

    # -- from the attendant ------------------------------------------------------------------------

    def submit(self, lead: Work) -> None:
        """Run the range, or the batch it leads."""
        self._loop.call_soon_threadsafe(self._start, lead)

    def interrupt(self, lead: Work) -> None:
        """Cancel its task."""
        self._loop.call_soon_threadsafe(self._cancel, lead)

    def at_work(self) -> int | None:
        """The range whose task has the loop at this moment: where the loop does not turn, the one that blocks it."""
        now = asyncio.current_task(self._loop)
        return next((number for number, task in list(self._tasks.items()) if task is now), None)

    def drain(self) -> None:
        """No more ranges come: end `run` once every task has ended."""
        self._loop.call_soon_threadsafe(self._stop)

    def run(self) -> None:
        """Serve in the main thread until drained."""
        self._loop.run_forever()

    # -- tasks -------------------------------------------------------------------------------------

    def _start(self, lead: Work) -> None:
        task = self._tasks[lead.range] = self._loop.create_task(self._run(lead))
        task.add_done_callback(lambda _: self._tasks.pop(lead.range, None))

    def _stop(self) -> None:
        if self._tasks:
            next(iter(self._tasks.values())).add_done_callback(lambda _: self._stop())
        else:
            self._loop.stop()

    def _cancel(self, lead: Work) -> None:
        if lead.range in self._tasks:
            self._tasks[lead.range].cancel()

    async def _run(self, lead: Work) -> None:
        await self._places.take()
        while self._outbox.link.is_full:
            await asyncio.sleep(PAUSE_SECONDS)
        for mate in lead.mates:
            mate.begin()
        context.running.set(
            context.RunningInput(
                lead.call,
                lambda: lead.position,
                lambda: self._suspend(lead),
                lambda: self._resume_now(lead),
                lambda: self._resume(lead),
            )
        )
        assert lead.bound is not None
        try:
            if lead.batch:
                await self._run_batch(lead)
            elif lead.bound.is_generator:
                await self._run_generator(lead)
            else:
                await self._run_inputs(lead)
        finally:
            self._returning.pop(lead.range, None)
            if not lead.lent:
                self._places.give()

    async def _run_inputs(self, work: Work) -> None:
        assert work.bound is not None
        function = work.bound.callable
        while not self._is_over(work):
            try:
                arguments, keywords = work.inputs.arguments(work.position - work.base)
                output = await function(*arguments, **keywords)
                if work.verdict is not None:
                    raise asyncio.CancelledError  # it was told to end, and did not care
                work.outputs.append(output)
                if work.position < work.stop and perf_counter() - work.packed_at > PACK_SECONDS:
                    with work.lock:
                        self._outbox.gather_outputs(work)
            except BaseException as error:  # also a SystemExit, which would end the loop
                self._fail(work, error)

    def _is_over(self, work: Work) -> bool:
        """Whether the range ends here; if so what remains is sent."""
        return work.position >= work.stop and self._outbox.is_over(work)

    def _fail(self, work: Work, error: BaseException) -> None:
        """The running input failed, or was told to end: say so."""
        verdict, work.verdict = work.verdict, None
        record, data = (verdict, b"") if verdict else as_failure(error)
        with work.lock:
            self._outbox.send_failure(work, record, data)

    async def _run_batch(self, lead: Work) -> None:
        batch = Batch(lead, self._record.name, self._outbox)
        try:
            outputs: Any = [] if batch.is_empty else await batch.call()
            if lead.verdict is not None:
                raise asyncio.CancelledError
        except BaseException as error:  # also a SystemExit, which would end the loop
            if lead.verdict is not None:
                batch.ended(lead.verdict)
            else:
                batch.failed(error)
        else:
            batch.returned(outputs)

    async def _run_generator(self, work: Work) -> None:
        assert work.bound is not None
        credit = asyncio.Event()

        def wake() -> None:
            self._loop.call_soon_threadsafe(credit.set)

        stream = work.stream = Stream(work, self._record.name, self._outbox, wake)
        if work.position < work.stop:  # else it was cancelled before it began
            try:
                arguments, keywords = work.inputs.arguments(work.position - work.base)
                async with contextlib.aclosing(work.bound.callable(*arguments, **keywords)) as generator:
                    async for value in generator:
                        if stream.add(value):
                            await self._await_consumer(work, stream, credit)
                stream.end()
            except Closed:
                with work.lock:
                    self._outbox.send_failure(work, ErrorRecord("cancelled", "", "its consumer has left"))
            except BaseException as error:  # also a SystemExit, which would end the loop
                stream.flush()
                self._fail(work, error)
        self._is_over(work)

    async def _await_consumer(self, work: Work, stream: Stream, credit: asyncio.Event) -> None:
        """Wait until the consumer has caught up, in the end without the place."""
        began = perf_counter()
        stream.waiting = True
        lent = False
        try:
            while stream.is_ahead:
                try:
                    await asyncio.wait_for(credit.wait(), None if lent else LEND_SECONDS)
                except TimeoutError:
                    self._suspend(work)
                    lent = True
                credit.clear()
        finally:
            if lent:
                await self._resume(work)
            work.pass_over(perf_counter() - began)
            stream.waiting = False
        if stream.closing:
            raise Closed

    # -- waiting for others ------------------------------------------------------------------------

    def _suspend(self, work: Work) -> None:
        work.waits += 1
        if not work.lent:
            work.lent = True
            self._outbox.suspend(work)
            self._places.give()

    async def _resume(self, work: Work) -> None:
        work.waits -= 1
        async with self._returning.setdefault(work.range, asyncio.Lock()):  # for several waits that end together
            if work.lent and not work.waits:
                await self._places.take()
                work.lent = False
                self._outbox.resume(work)

    def _resume_now(self, work: Work) -> None:
        work.waits -= 1
        if work.lent and not work.waits:
            self._places.take_now()
            work.lent = False
            self._outbox.resume(work)
