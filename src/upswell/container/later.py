"""What is to be done in a moment, beside whatever runs: in one thread for all of it, and not in one for each.

A thread takes address space, of which a container with `memory=` has little beyond what is its user's, and hundreds of
inputs may be cancelled at once.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic
from typing import TypeVar

About = TypeVar("About")


class Later:
    """Calls in their order. The thread is there while something is to be done, and does one thing after the other."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_running = False

    def call(self, seconds: float, act: Callable[[About], None], about: About) -> None:
        """Have `act(about)` called after so many seconds, or when those before it are over. From any thread."""
        with self._changed:
            heappush(self._calls, (monotonic() + seconds, next(self._numbers), lambda: act(about)))
            if self._is_running:
                self._changed.notify()
            else:
                self._start()

    def _start(self) -> None:
        threading.Thread(target=self._run, name="upswell-later", daemon=True).start()
        self._is_running = True

    def _run(self) -> None:
        try:
            while (act := self._next()) is not None:
                act()
        finally:  # with what came in this moment, or stands behind an act that failed
            with self._changed:
                self._is_running = False
                if self._calls:
                    self._start()

    def _next(self) -> Callable[[], None] | None:
        """What is due next, once it is."""
        with self._changed:
            while self._calls:
                left = self._calls[0][0] - monotonic()
                if left <= 0:
                    return heappop(self._calls)[2]
                self._changed.wait(left)
            return None
