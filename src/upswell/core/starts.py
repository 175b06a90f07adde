"""What became of a pool's starts: how many failed in a row, when the next may be tried, and when to stop hoping."""

from __future__ import annotations

from . import autoscaler
from .agenda import NEVER

STARTS_BEFORE_FAILING = 3  # failed starts in a row before the pending calls of an ephemeral app fail


class Starts:
    """The failed starts of one pool since the last one that worked."""

    def __init__(self) -> None:
        self.have_worked = False  # a container was ready once
        self.failures = 0  # in a row; starts that were under way together count once
        self.blocked_until = 0.0  # no start before this
        self.complaint = ""  # what the last container that could not load user code said
        self.trouble = ""  # why the last start failed; "" while `failures` is 0
        self.are_told = False  # somebody was told that none works
        self._failed_at = -NEVER

    def worked(self) -> None:
        """A container is ready."""
        self.have_worked = True
        self.failures, self.blocked_until, self.complaint, self.trouble = 0, 0.0, "", ""
        self.are_told = False

    def failed(self, started_at: float, reason: str, now: float) -> None:
        """A container that was started at `started_at` is gone before it did anything."""
        self.trouble = self.complaint or reason
        if started_at > self._failed_at:
            self.failures += 1
            self._failed_at = now
        self.blocked_until = now + autoscaler.backoff_seconds(self.failures)

    def are_hopeless(self) -> bool:
        """Whether nobody should wait for the next one."""
        return self.failures >= STARTS_BEFORE_FAILING
