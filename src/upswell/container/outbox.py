"""What leaves a container: outputs, failures and chunks of its ranges, in as few frames as is timely.

Values that can't be pickled fail alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from ..errors import SerializationError
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
from ..wire.payload import Packed, PackError, pack, pack_exception
from .link import Link
from .work import Work

FLUSH_SECONDS = 0.002  # results wait no longer than this for company
LAST_WORDS_SECONDS = 0.5  # as the process ends, for results of ranges whose runner is just sending some
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Outbox:
    """Sends for all runners of the container. What takes a range is called with the range's lock held."""

    def __init__(self, link: Link, held: dict[int, Work], concurrent: bool) -> None:
        self.link = link
        self._held = held
        self._concurrent = concurrent  # several inputs share the process, and its CPU time

    # -- outputs and failures ----------------------------------------------------------------------

    def send_outputs(self, work: Work) -> None:
        """Send the outputs that wait; one that can't be pickled becomes a failure."""
        count = work.unsent
        if not count:
            return
        start = work.sent - work.start
        batch = work.outputs[start : start + count]
        work.outputs[start : start + count] = [None] * count
        wall, cpu = self._measure(work, count)
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
                self.link.send_outcome(work, Failure(work.range, position, 0.0, 0.0, record), Packed(data))
                batch = batch[error.index + 1 :]
            else:
                self._send_results(work, packed, len(batch), wall, cpu)
                return

    def send_failure(self, work: Work, record: ErrorRecord, data: bytes = b"", *, fatal: bool = False) -> None:
        """Send the outputs that wait, and that the next input failed; with `fatal` the process ends now."""
        self.send_outputs(work)
        wall, cpu = self._measure(work, 1)
        position = work.sent
        work.outputs.append(None)
        work.sent += 1
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

    def _send_results(self, work: Work, packed: Packed, count: int, wall: float, cpu: float) -> None:
        start, work.sent = work.sent, work.sent + count
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
