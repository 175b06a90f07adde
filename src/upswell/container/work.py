"""One range inside a container: what is to run, how far it is, and what of it has not been sent yet.

A runner thread moves forward in it while the attendant thread may take its tail back. The runner announces an input
before it looks whether it may run it, and the attendant moves the end before it looks which input was announced, so one
of the two always sees the other; both agree at the end of the range under the lock.
"""

from __future__ import annotations

import threading
from time import perf_counter, process_time
from typing import Any

from ..wire.messages import Assign, ErrorRecord
from ..wire.payload import Inputs


class Work:
    """A range that this container holds; positions are those of the call's inputs."""

    def __init__(self, assign: Assign, inputs: Inputs) -> None:
        self.range = assign.range
        self.call = assign.call
        self.base = assign.first
        self.inputs = inputs
        self.announced = assign.start  # the input that runs, or the next one to
        self.stop = assign.stop
        self.outputs: list[Any] = []  # of inputs that ended and were not sent
        self.sent = assign.start  # the position of the first of `outputs`
        self.lock = threading.Lock()  # held to end the range, to move its end, and to send its outputs
        self.begun = False
        self.ended = False
        self.thread = 0
        self.verdict: ErrorRecord | None = None  # why the running input is being ended
        self.settled_verdict = False
        self.measured_at = 0.0
        self.measured_cpu = 0.0
        self.seen = (assign.start - 1, 0.0)  # the attendant's last look: input, and since when

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

    def give_back(self, *, is_next: bool = False) -> int:
        """Move the end before everything that has not started; returns the new end.

        Where the range `is_next`, a place is free for its first input, which counts as started: were that given away
        too, a large input could go from container to container without ever being run.
        """
        with self.lock:
            end = self.stop
            while not self.ended:
                self.stop = min(end, self._unstarted(is_next))
                if min(end, self._unstarted(is_next)) == self.stop:
                    break
            return self.stop

    def _unstarted(self, is_next: bool) -> int:
        return self.announced + 1 if self.begun or is_next else self.announced
