"""One range inside a container: what is to run, how far it is, and what of it has not been sent yet.

A runner thread moves forward in it while the attendant thread may take its tail back. The runner announces an input
before it looks whether it may run it, and the attendant moves the end before it looks which input was announced, so one
of the two always sees the other; both agree at the end of the range under the lock.
"""

from __future__ import annotations

import threading
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from ..wire.messages import Assign, ErrorRecord, Holding
from ..wire.payload import Inputs
from .service import Bound

if TYPE_CHECKING:
    from .streams import Stream


class Work:
    """A range that this container holds; positions are those of the call's inputs."""

    def __init__(self, assign: Assign, inputs: Inputs) -> None:
        self.range = assign.range
        self.call = assign.call
        self.method = assign.method
        self.batch = assign.batch
        self.base = assign.first
        self.inputs = inputs
        self.bound: Bound | None = None  # what runs the inputs, once that was looked up
        self.start = assign.start
        self.announced = assign.start  # the input that runs, or the next one to
        self.stop = assign.stop
        self.outputs: list[Any] = []  # of inputs that ended and were not sent
        self.sent = assign.start  # the position of the first of `outputs`
        self.processed = assign.start  # the server is done with the outcomes of those before, whatever becomes of it
        self.processed_chunks = 0  # of what its generator yields, likewise
        self.lock = threading.Lock()  # held to end the range, to move its end, and to send its outputs
        self.begun = False
        self.ended = False
        self.thread = 0
        self.verdict: ErrorRecord | None = None  # why the running input is being ended
        self.settled_verdict = False
        self.measured_at = 0.0
        self.measured_cpu = 0.0
        self.seen = (assign.start - 1, 0.0)  # the attendant's last look: input, and since when
        self.mates: list[Work] = [self]  # the ranges of its batch, all with the same list; the first leads
        self.stream: Stream | None = None  # what its generator yields
        self.waits = 0  # nested calls that its input waits for, several at once where it gathers them
        self.lent = False  # it has given its place away while it waits
        self.lending = threading.Lock()  # held to lend the place, and to take it back

    @property
    def lead(self) -> Work:
        """Which of the batch's ranges stands for all: the verdict and the thread are there. Without a batch, this."""
        return self.mates[0]

    def holding(self) -> Holding:
        """The range as it is told to a server that knows nothing of it."""
        lent = self.lead.lent
        chunks = self.processed_chunks
        return Holding(self.range, self.call, self.base, self.processed, self.stop, self.batch, chunks, lent)

    def begin(self) -> None:
        """The runner starts here and now."""
        self.begun = True
        self.thread = threading.get_ident()
        self.measured_at = perf_counter()
        self.measured_cpu = process_time()

    def measure(self) -> tuple[float, float]:
        """Wall and CPU seconds since this was last asked."""
        wall, cpu = perf_counter(), process_time()
        passed = wall - self.measured_at, cpu - self.measured_cpu
        self.measured_at, self.measured_cpu = wall, cpu
        return passed

    def pass_over(self, seconds: float) -> None:
        """For so long it waited for its consumer, which counts neither against its time limit nor as its work."""
        self.measured_at += seconds
        self.seen = (self.seen[0], self.seen[1] + seconds)

    def give_back(self, *, is_next: bool = False) -> int:
        """Move the end before everything that has not started; returns the new end. A batch runs as a whole.

        Where the range `is_next`, a place is free for its first input, which counts as started: were that given away
        too, a large input could go from container to container without ever being run.
        """
        if self.batch:
            return self.stop
        with self.lock:
            end = self.stop
            while not self.ended:
                self.stop = min(end, self._unstarted(is_next))
                if min(end, self._unstarted(is_next)) == self.stop:
                    break
            return self.stop

    def _unstarted(self, is_next: bool) -> int:
        return self.announced + 1 if self.begun or is_next else self.announced
