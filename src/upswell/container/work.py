"""One range inside a container: what is to run, how far it is, and what of it has not been sent yet.

A runner moves forward in it while another thread may take its tail back. What says how far the runner is are the
outputs, of which it adds one as an input ends; what says how far it may go are the values that are due, which it walks
along as it runs them. Whoever takes the tail back shortens these, and then looks whether the runner has got further
meanwhile; both agree at the end of the range under the lock.
"""

from __future__ import annotations

import threading
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from ..spec import GATHER_SECONDS
from ..wire.ids import GROUP
from ..wire.messages import Assign, ErrorRecord, Holding
from ..wire.payload import Inputs
from .service import Bound

if TYPE_CHECKING:
    from .streams import Stream


class Work:
    """A range that this container holds; positions are those of the call's inputs."""

    # Without these CPython keeps, as there are more than thirty attributes, a dictionary for each object.
    __slots__ = (
        "range call method batch may_deliver base inputs bound start stop due outputs packed sent gathered "
        "gather_seconds processed processed_chunks lock begun ended thread verdict settled_verdict packed_at "
        "measured_at measured_cpu seen mates stream waits lent lending"
    ).split()

    def __init__(self, assign: Assign, inputs: Inputs) -> None:
        self.range = assign.range
        self.call = assign.call
        self.method = assign.method
        self.batch = assign.batch
        self.may_deliver = assign.may_deliver
        self.base = assign.first
        self.inputs = inputs
        self.bound: Bound | None = None  # what runs the inputs, once that was looked up
        self.start = assign.start
        self.stop = assign.stop
        self.due = inputs.values[assign.start - assign.first : assign.stop - assign.first]  # of the inputs to `stop`
        self.outputs: list[Any] = []  # of the inputs that ended; `None` where it was sent, or there is none
        self.packed = assign.start  # the first input whose output is not pickled, if it has one
        self.sent = assign.start  # the first input of which nothing was sent
        self.gathered: list[bytes] = []  # the outputs between the two, pickled
        # Each input of a group is a call of its own, for whose output somebody may wait.
        self.gather_seconds = 0.0 if assign.call.startswith(GROUP) else GATHER_SECONDS
        self.processed = assign.start  # the server is done with the outcomes of those before, whatever becomes of it
        self.processed_chunks = 0  # of what its generator yields, likewise
        self.lock = threading.Lock()  # held to end the range, to move its end, and to send its outputs
        self.begun = False
        self.ended = False
        self.thread = 0
        self.verdict: ErrorRecord | None = None  # why the running input is being ended
        self.settled_verdict = False
        self.packed_at = 0.0  # when outputs were last pickled
        self.measured_at = 0.0  # when some were last sent
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

    @property
    def position(self) -> int:
        """The input that runs, or the next one to."""
        return self.start + len(self.outputs)

    @property
    def unsent(self) -> int:
        """Outputs that were not sent."""
        return self.position - self.sent

    def holding(self) -> Holding:
        """The range as it is told to a server that knows nothing of it."""
        lent = self.lead.lent
        chunks = self.processed_chunks
        return Holding(self.range, self.call, self.base, self.processed, self.stop, self.batch, chunks, lent)

    def begin(self) -> None:
        """The runner starts here and now."""
        self.begun = True
        self.thread = threading.get_ident()
        self.measured_at = self.packed_at = perf_counter()
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
                self.due[:] = self.inputs.values[self.start - self.base : self.stop - self.base]
                if min(end, self._unstarted(is_next)) == self.stop:
                    break
            return self.stop

    def _unstarted(self, is_next: bool) -> int:
        return self.position + 1 if self.begun or is_next else self.position
