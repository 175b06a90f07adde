"""What running inputs use of the machine, measured before any of them has ended: when to ask, and what to learn.

The first look comes a few milliseconds after inputs began to wait: what a container uses to begin with is its own
doing, and no input's, and where another one starts in time there is no need to look. Later ones come ever more rarely,
and only while inputs wait, since only then does it matter.
"""

from __future__ import annotations

from itertools import islice

from . import autoscaler
from .agenda import NEVER
from .autoscaler import Estimates
from .commands import Command, Sample
from .events import UsageSampled
from .model import Container

CONTAINERS_SAMPLED = 16
LONGEST_SAMPLE_INTERVAL_SECONDS = 1.0


class Sampling:
    """The samples of one pool."""

    def __init__(self, function: str) -> None:
        self.starts = 0  # containers started since the last sample, whose memory it has not seen
        self._function = function
        self._is_at_rest = True  # nothing waits
        self._due_at = -NEVER
        self._interval = 0.0  # from that look to the one after it
        self._before: dict[str, tuple[float, float]] = {}  # container → moment and CPU seconds of its last sample

    def ask(self, containers: dict[str, Container], now: float, out: list[Command]) -> float:
        """While inputs wait: ask for a sample when one is due; the moment of the next."""
        if self._is_at_rest:
            self._is_at_rest = False
            if now - self._due_at > 2 * LONGEST_SAMPLE_INTERVAL_SECONDS:
                self._interval = autoscaler.PROBE_SECONDS
            self._due_at = max(self._due_at, now + autoscaler.PROBE_SECONDS)
        elif now >= self._due_at:
            busy = (name for name, container in containers.items() if container.running)
            out.append(Sample(self._function, tuple(islice(busy, CONTAINERS_SAMPLED))))
            self._due_at = now + self._interval
            self._interval = min(2 * self._interval, LONGEST_SAMPLE_INTERVAL_SECONDS)
        return self._due_at

    def rest(self) -> None:
        """Nothing waits, or nothing runs."""
        self._is_at_rest = True

    def learn(
        self,
        event: UsageSampled,
        containers: dict[str, Container],
        running: int,
        cores: float,
        estimates: Estimates,
        now: float,
    ) -> None:
        """Take the answer; `running` inputs of the pool shared `cores` meanwhile."""
        self.starts = 0
        if event.memory_bytes:
            estimates.memory_bytes = event.memory_bytes
        shares = []
        for name, seconds in event.cpu_seconds:
            before = self._before.get(name)
            if before and now - before[0] >= autoscaler.PROBE_SECONDS / 2:
                inputs = max(1, containers[name].running) if name in containers else 1
                shares.append((seconds - before[1]) / (now - before[0]) / inputs)
            if name in containers and (before is None or estimates.finished):
                self._before[name] = (now, seconds)
        if not shares:
            return
        share = sum(shares) / len(shares)
        if estimates.finished:
            estimates.learn_cpu(share, running, cores)
        else:
            estimates.cpu_share = share

    def forget(self, container: str) -> None:
        """It is gone."""
        self._before.pop(container, None)
