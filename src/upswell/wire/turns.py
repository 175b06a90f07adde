"""Which of two threads reads a connection: one that passes by, or a steady one.

Who waits for what comes over a connection reads best for itself: no other thread has to be woken to read it, and then
to wake it in turn. But somebody must read while it does something else, too. So the steady thread naps, and reads when
nobody has come by meanwhile; one that naps in vain for long sleeps until it is woken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

NAP_SECONDS = 0.005  # nobody comes by for so long before the steady thread reads
NAPS = 4  # at whose ends somebody else was found reading; then the steady thread sleeps until it is woken

About = TypeVar("About")


class Turns:
    """The right to read, which one thread has at a time."""

    def __init__(self) -> None:
        self._reading = threading.RLock()  # as it knows by whom it is held
        self._passing: dict[int, None] = {}  # threads that want to read in passing, of which one does
        self._turn = 0  # how often somebody has begun or ended to read in passing
        self._bed = threading.Lock()  # free for the moment in which the steady thread is woken
        self._bed.acquire()
        self._sleeps = False  # until it is woken, and not only for a nap
        self._wanted = False  # by somebody who does not wait for the end of a nap
        self.is_open = True  # the steady thread does not read just now: who needs it to calls `want`

    # -- who passes by -----------------------------------------------------------------------------

    def pass_by(self, read: Callable[[About], bool], about: About) -> bool:
        """Call `read(about)` with the right to read; false at once where another thread has it.

        An exception that comes from outside, such as Ctrl-C, leaves all of this as it should be, whenever it comes: the
        interpreter lets it in after a call, and so not between the beginning of a `finally` and what that calls first.
        """
        has_read, me = False, threading.get_ident()
        self._turn += 1
        try:
            try:
                self._passing[me] = None  # before, so that a signal handler is not without it
                has_read = self._reading.acquire(blocking=False) and read(about)
            finally:
                try:
                    self._reading.release()
                except RuntimeError:
                    pass  # another thread has it
        finally:
            self._turn += 1
            if self._sleeps:
                try:
                    self._bed.release()
                except RuntimeError:
                    pass  # it is being woken already
        self._passing.pop(me, None)
        return has_read

    def is_passing(self) -> bool:
        """Whether this thread reads in passing, and has not left that to the steady thread meanwhile."""
        return threading.get_ident() in self._passing

    def want(self) -> None:
        """Have the steady thread read as soon as nobody else does, without the end of its nap.

        In a signal handler, that is also instead of the thread that the signal has interrupted as it read in passing.
        """
        self._wanted = True
        if self.is_passing():
            del self._passing[threading.get_ident()]
            try:
                self._reading.release()
            except RuntimeError:
                pass  # it was about to
        try:
            self._bed.release()
        except RuntimeError:
            pass  # it is being woken already

    # -- the steady thread -------------------------------------------------------------------------

    def take(self, others_pass: Callable[[], bool]) -> None:
        """Return with the right to read once it is wanted, or nobody has come by for a nap, or nobody can."""
        turn, naps = self._turn, 0
        while others_pass() and not self._wanted:
            self._sleep(turn, NAP_SECONDS if naps < NAPS else -1)
            if self._turn != turn:
                turn, naps = self._turn, 0
            elif self._reading.acquire(blocking=False):
                break
            else:
                naps += 1  # somebody else reads
        else:
            self._reading.acquire()
        self.is_open = self._wanted = False

    def give(self) -> None:
        """Let others read."""
        self.is_open = True
        self._reading.release()

    def _sleep(self, turn: int, seconds: float) -> None:
        """Until woken, or for so long (-1: as long as it takes); not at all where somebody has come by meanwhile."""
        self._sleeps = seconds < 0
        if self._turn == turn:  # looked at after `_sleeps` is set, as who passes by looks after it has set `_turn`
            self._bed.acquire(timeout=seconds)
        self._sleeps = False
