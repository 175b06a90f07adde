"""How fast the inputs of a map leave: how many make up its next segment, and how many may be under way.

The first input leaves at once, later ones in ever larger segments of up to half the window, so that there is work while
the consumer has its turn. Where messages take longer than the work, as the time that a segment takes shows, the map is
brisk: a segment is the whole window then, and one more goes ahead. Large inputs make all of that smaller. Pure: moments
are arguments.
"""

from __future__ import annotations

from ..spec import MAP_WINDOW

SEGMENTS = (1, 8, 64, MAP_WINDOW // 2)  # inputs in the first, second … and every later segment
SEGMENT_BYTES = 256 << 10
WINDOW_BYTES = 64 << 20  # of inputs between iterator and consumer
BRISK_SECONDS = 0.005  # half a window that is through sooner, from iterator to consumer, was mostly on its way


class Pace:
    """That of one map. What is under way was pulled from its iterator, and its output is not consumed."""

    def __init__(self) -> None:
        self._segments = 0  # that were packed
        self._largest = MAP_WINDOW  # inputs that have SEGMENT_BYTES
        self._window = MAP_WINDOW  # inputs that may be under way
        self._was_full = False  # the window, once
        self._timed = 0  # inputs up to the end of the segment that is timed; 0: none is
        self._timed_at = 0.0  # when that was sent
        self._is_brisk = False  # as the last segment that was timed has shown

    @property
    def segment(self) -> int:
        """Inputs that the next segment has, where there are as many."""
        size = MAP_WINDOW if self._is_brisk else SEGMENTS[min(self._segments, len(SEGMENTS) - 1)]
        return min(size, self._largest)

    def room(self, under_way: int, *, may_go_ahead: bool) -> int:
        """How many inputs may be pulled while so many are under way."""
        ahead = self.segment if self._is_brisk and may_go_ahead else 0
        return self._window + ahead - under_way

    def is_enough(self, room: int) -> bool:
        """Whether a segment may leave: the window is filled to the brim at first, and refilled by whole segments."""
        self._was_full = self._was_full or room <= 0
        return room >= (min(self.segment, self._window) if self._was_full else 1)

    def packed(self, inputs: int, size: int) -> None:
        """A segment of so many inputs has so many bytes."""
        self._segments += 1
        self._largest = max(1, SEGMENT_BYTES * inputs // size)
        self._window = max(4, min(MAP_WINDOW, WINDOW_BYTES * inputs // size))

    def look(self, submitted: int, consumed: int, now: float) -> None:
        """See whether the segment that is timed is through, and time the next, where much is under way.

        The next ends with what is under way by now: all of that had to wait for the one before.
        """
        if self._timed and consumed >= self._timed:
            self._is_brisk = now - self._timed_at < BRISK_SECONDS
            self._timed = 0
        if not self._timed and submitted - consumed >= SEGMENTS[-1]:
            self._timed, self._timed_at = submitted, now
