"""Runs the ranges of this container: synchronous code in threads, asynchronous code as tasks of one loop.

Here is what both have in common: which of them a range is for, batches that are still coming together, and how an input
is ended before it has ended itself, by exception or, where that does not help, with the whole process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING

from ..errors import NotFoundError
from ..spec import FunctionRecord
from ..wire.messages import ErrorRecord, Holding
from .batches import Gathering
from .later import Later
from .link import Link
from .outbox import Outbox, as_failure
from .service import Service
from .threads import ReadUntil, Threads
from .work import Work

if TYPE_CHECKING:
    from .tasks import Tasks

YIELD_SECONDS = 0.5  # synchronous code that was told to stop has this long to do so, and a generator to yield
CLEAN_UP_SECONDS = 3.0  # a cancelled task has this long; the server waits longer before it kills the container
CANCELLED = ErrorRecord("cancelled", "", "the call was cancelled")


class Executor:
    """Runs the service of this container."""

    def __init__(self, link: Link, record: FunctionRecord, service: Service) -> None:
        self.held: dict[int, Work] = {}  # the ranges of this container, by id; the attendant adds, runners remove
        self.outbox = Outbox(link, self.held, record.spec.concurrency.max_inputs > 1)
        self._service = service
        self._gathering = Gathering()
        self._threads = Threads(record, self.held, self.outbox, self._give_up, main=not service.is_async)
        self._tasks: Tasks | None = None
        if service.is_async:
            from .tasks import Tasks

            self._tasks = Tasks(record, self.held, self.outbox, service.loop)
        self._later = Later()
        self._ending = threading.Lock()  # taken by whoever ends the process, and never released

    @property
    def main_reads(self) -> bool:
        """Whether the main thread reads the connection while it has nothing to run."""
        return self._threads.main_reads

    def run(self, read_until: ReadUntil, read_at_once: Callable[[], None]) -> None:
        """Serve in the main thread until drained, and nothing runs any more.

        There `read_until` reads the connection while there is no work; `read_at_once` has another thread do so.
        """
        if self._tasks is not None:
            self._tasks.run()
        else:
            self._threads.run(read_until, read_at_once)
        self._threads.join()
        self._ending.acquire()  # who ends the process for another reason does so alone

    # -- from the attendant ------------------------------------------------------------------------

    def submit(self, work: Work, left: int) -> bool:
        """Run the range when there is a place; one of a batch when none of its inputs is `left` to come.

        Whether it, or the batch, is with its runners now.
        """
        self.held[work.range] = work
        try:
            work.bound = self._service.bind(work.method)
        except NotFoundError as error:
            self._refuse(work, error)
            return False
        lead = self._gathering.add(work, left) if work.batch else work
        if lead is None:
            return False
        self._side(lead).submit(lead)
        return True

    def drain(self) -> None:
        """No more ranges come, and what is here is cancelled: end `run`."""
        for number in list(self.held):
            self.cancel(number)
        self._threads.drain()
        if self._tasks is not None:
            self._tasks.drain()

    def flush(self) -> bool:
        """Send results that have waited for long as their runner is inside an input; whether there were any."""
        found, now = False, perf_counter()
        for work in list(self.held.values()):
            if work.unsent and now - work.measured_at > work.gather_seconds:
                found = True
                with work.lock:
                    self.outbox.send_outputs(work)
            elif work.stream is not None:
                found = work.stream.flush() or found
        return found

    def holdings(self, unprocessed: Iterable[Work]) -> list[Holding]:
        """What this container has for a server that knows nothing of it yet, as it was granted. The ranges that are
        `unprocessed` may have ended; those of batches that will not be complete any more are dropped.
        """
        for work in self._gathering.give_up():
            del self.held[work.range]
        works = {work.range: work for work in (*unprocessed, *list(self.held.values()))}
        return [work.holding() for _, work in sorted(works.items()) if work.processed < work.stop]

    def credit(self, number: int, chunks: int, size: int) -> None:
        """The consumer of a generator has taken so much."""
        work = self.held.get(number)
        if work is not None and work.stream is not None:
            work.stream.credit(chunks, size)

    def cancel(self, number: int) -> None:
        """Nobody wants the range any more: drop what has not started, and end what has."""
        work = self.held.get(number)
        if work is None:
            return
        if work.batch:
            self._cancel_in_batch(work)
            return
        self.outbox.give_back(work)
        if not work.begun:
            return
        if work.stream is not None and self._side(work) is self._threads:
            # It is closed where it yields next, which may be soon; otherwise like any other.
            work.stream.close()
            self._later.call(YIELD_SECONDS, self._interrupt_if_held, work)
        else:
            self.interrupt(work, CANCELLED)

    def interrupt(self, work: Work, verdict: ErrorRecord) -> None:
        """End the running input of the range, or the batch it is in, with this verdict."""
        lead = work.lead
        if lead.verdict is not None:
            return
        lead.verdict = verdict
        if not work.batch:
            self.outbox.give_back(work)  # so that nothing begins behind it
        side = self._side(lead)
        side.interrupt(lead)
        self._later.call(YIELD_SECONDS if side is self._threads else CLEAN_UP_SECONDS, self._give_up, lead)

    def _cancel_in_batch(self, work: Work) -> None:
        """The others go on; only a batch that nobody wants at all is ended."""
        if all(mate is work or mate.ended for mate in work.mates) and work.lead.begun:
            self.interrupt(work, CANCELLED)
            return
        with work.lock:
            while not work.ended and work.sent < work.stop:
                self.outbox.send_failure(work, CANCELLED)
            self.outbox.end(work)

    def _interrupt_if_held(self, work: Work) -> None:
        if work.range in self.held:
            self.interrupt(work, CANCELLED)

    def _side(self, lead: Work) -> Threads | Tasks:
        """Who runs it."""
        assert lead.bound is not None
        return self._tasks if self._tasks is not None and lead.bound.is_async else self._threads

    def _refuse(self, work: Work, error: Exception) -> None:
        with work.lock:
            while work.sent < work.stop:
                self.outbox.send_failure(work, *as_failure(error))
            self.outbox.end(work)

    # -- the end -----------------------------------------------------------------------------------

    def _give_up(self, lead: Work) -> None:
        """Code was told to stop: what it left behind is unknown, or it still runs, so its process ends with it."""
        if lead.verdict is None or lead.settled_verdict or not any(mate.range in self.held for mate in lead.mates):
            return
        self._ending.acquire()  # who comes second waits for the end
        blocking = self.held.get(self._tasks.at_work() or 0) if self._tasks is not None else None
        if blocking is not None and blocking.verdict is not None:
            lead = blocking  # it is why the others could not end in time either
        lead.settled_verdict = True
        # Each runner may be anywhere, perhaps with the lock: wait a moment for it, not for ever.
        locked = [mate for mate in lead.mates if mate.lock.acquire(timeout=YIELD_SECONDS)]
        has_ended = all(mate.ended for mate in lead.mates)  # by itself, just now: nobody needs to be told
        for mate in lead.mates:
            if has_ended:
                self.outbox.end(mate)
            else:
                self._fail_fatally(mate, lead.verdict or CANCELLED)
        for mate in locked:
            mate.lock.release()
        if has_ended:
            self._ending.release()
            return
        stopped = threading.get_ident() == lead.thread  # it did as it was told
        self.outbox.end_process(self._service.exit if stopped else None)

    def _fail_fatally(self, work: Work, verdict: ErrorRecord) -> None:
        """Fail the running input, or all of a batch, with what ends the process."""
        if work.stream is not None:
            work.stream.send()
        stop = work.stop if work.batch else work.position + 1
        while not work.ended and work.sent < stop:
            self.outbox.send_failure(work, verdict, fatal=True)
