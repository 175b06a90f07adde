"""What leaves a container: outputs, failures and chunks of its ranges, in as few frames as is timely.

Outputs are pickled as they are when they are made, and wait for company only then. Values that can't be pickled fail
alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import NoReturn

from ..errors import SerializationError
from ..home import PACKAGE
from ..sdk import context
from ..wire.messages import (
    ErrorRecord,
    Failure,
    Results,
    Resumed,
    Returned,
    Suspended,
    Yielded,
)
from ..wire.payload import VALUES, Packed, PackError, join, pack, pack_exception
from .link import Link
from .work import Work

PACK_SECONDS = 0.002  # an output is pickled as its input ends, or where inputs are shorter after so long
GATHERED_BYTES = 256 << 10  # of outputs that wait for company
LAST_WORDS_SECONDS = 0.5  # as the process ends, for results of ranges whose runner is just sending some


class Outbox:
    """Sends for all runners of the container. What takes a range is called with the range's lock held."""

    def __init__(self, link: Link, held: dict[int, Work], concurrent: bool) -> None:
        self.link = link
        self._held = held
        self._concurrent = concurrent  # several inputs share the process, and its CPU time

    # -- outputs and failures ----------------------------------------------------------------------

    def gather_outputs(self, work: Work) -> None:
        """Pickle the outputs that wait as they are now, and send them if one has waited for long."""
        self._pack(work)
        work.packed_at = perf_counter()
        if work.packed_at - work.measured_at > work.gather_seconds:
            self._send_gathered(work)

    def send_outputs(self, work: Work) -> None:
        """Send the outputs that wait; one that can't be pickled becomes a failure."""
        self._pack(work)
        self._send_gathered(work)

    def _pack(self, work: Work) -> None:
        start, stop = work.packed - work.start, len(work.outputs)  # its runner may add to them meanwhile
        batch = work.outputs[start:stop]
        work.outputs[start:stop] = [None] * (stop - start)
        while batch:
            try:
                packed = pack(batch)
            except PackError as error:
                if error.index:
                    self._gather(work, pack(batch[: error.index]), error.index)
                self._send_gathered(work)
                position, work.packed = work.packed, work.packed + 1
                work.sent = work.packed
                reason = SerializationError(f"the output of input {position} can't be sent: {error}")
                record, data = pack_exception(reason)
                self.link.send_outcome(work, Failure(work.range, position, 0.0, 0.0, record), Packed(data))
                batch = batch[error.index + 1 :]
            else:
                self._gather(work, packed, len(batch))
                return

    def _gather(self, work: Work, packed: Packed, count: int) -> None:
        """Let these wait for company; large ones travel alone."""
        size = sum(map(len, work.gathered)) + len(packed.data)
        if work.gathered and (packed.block or size > GATHERED_BYTES):
            self._send_gathered(work)
        work.packed += count
        if packed.block:
            self._send_results(work, packed)
        else:
            work.gathered.append(packed.data)
            if size > GATHERED_BYTES:
                self._send_gathered(work)

    def send_failure(self, work: Work, record: ErrorRecord, data: bytes = b"", *, fatal: bool = False) -> None:
        """Send the outputs that wait, and that the next input failed; with `fatal` the process ends now."""
        self.send_outputs(work)
        wall, cpu = self._measure(work, 1)
        position = work.sent
        work.outputs.append(None)
        work.sent = work.packed = position + 1
        self.link.send_outcome(work, Failure(work.range, position, wall, cpu, record, fatal), Packed(data))

    def is_over(self, work: Work) -> bool:
        """Whether the range ends here; if so what remains is sent. Takes the lock itself."""
        with work.lock:
            if work.position < work.stop:
                return False
            self.send_outputs(work)
            self.end(work)
            return True

    def end(self, work: Work) -> None:
        """The range has ended, and everything of it was sent."""
        work.ended = True
        self._held.pop(work.range, None)

    def _send_gathered(self, work: Work) -> None:
        if gathered := work.gathered:
            work.gathered = []
            self._send_results(work, Packed(gathered[0] if len(gathered) == 1 else join(gathered, shape=VALUES)))

    def _send_results(self, work: Work, packed: Packed) -> None:
        """Send the outputs up to the first that is not packed."""
        start, work.sent = work.sent, work.packed
        count = work.sent - start
        wall, cpu = self._measure(work, count)
        self.link.send_outcome(work, Results(work.range, start, count, wall, cpu, packed.buffers), packed)

    def _measure(self, work: Work, count: int) -> tuple[float, float]:
        """What `count` inputs took together. Those of a batch each take as long as all, and a share of the CPU."""
        wall, cpu = work.measure()
        if self._concurrent:
            cpu /= max(1, len(self._held))
        if work.batch:
            inputs = sum(mate.stop - mate.start for mate in work.mates)
            wall, cpu = wall * count, cpu * count / max(1, inputs)
        return wall, cpu

    # -- the rest ----------------------------------------------------------------------------------

    def send_chunks(self, work: Work, first: int, packed: Packed, count: int) -> None:
        """Send what a generator has yielded."""
        self.link.send_outcome(work, Yielded(work.range, first, count, packed.buffers), packed)

    def suspend(self, work: Work) -> None:
        """The running input lends its place: what it was ahead of goes back first. Takes the lock itself."""
        for mate in work.mates:
            with mate.lock:
                self.send_outputs(mate)
            self.give_back(mate)
            self.link.send(Suspended(mate.range))

    def resume(self, work: Work) -> None:
        """The running input has its place back."""
        for mate in work.mates:
            self.link.send(Resumed(mate.range))

    def give_back(self, work: Work) -> None:
        """Give back what has not started of the range. Takes the lock itself."""
        self.link.send(Returned(work.range, work.give_back()))

    def end_process(self, exit_hooks: Callable[[], None] | None = None) -> NoReturn:
        """Send what the other ranges have finished, and end the process at once, or after its exit hooks."""
        for other in list(self._held.values()):
            if other.unsent and other.lock.acquire(timeout=LAST_WORDS_SECONDS):
                self.send_outputs(other)
        if exit_hooks is not None:
            context.running.set(None)
            exit_hooks()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def as_failure(error: BaseException) -> tuple[ErrorRecord, bytes]:
    """An exception of user code as data, without frames of ours."""
    return pack_exception(error, own=PACKAGE)
