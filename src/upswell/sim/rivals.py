"""Other autoscalers, from their published rules, as functions of what they would see; pure, like ours.

All of them scale the same kind of pool, whose containers pull from one queue (`rival_plane.py`). Several push requests
to replicas in reality, which costs them more than is shown here, and none is made to stop a busy container.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Seen:
    """What a policy may look at. Container counts include those that start."""

    target: int  # inputs per container
    waiting: int = 0
    running: int = 0
    ready: int = 0
    starting: int = 0
    service_seconds: float | None = None  # mean of finished inputs
    area: float = 0.0  # ∫ (waiting + running) dt since the beginning

    @property
    def load(self) -> int:
        return self.waiting + self.running

    @property
    def containers(self) -> int:
        return self.ready + self.starting


class Policy:
    """How many containers, decided at every event or every `tick_seconds`; the idle stop after `idle_seconds`."""

    tick_seconds = 0.0
    idle_seconds = 0.0
    at_once_from_zero = True  # a ticking policy is asked when the first input comes to an empty pool

    def desired(self, seen: Seen, now: float) -> int:
        """The number of containers there should be."""
        raise NotImplementedError


@dataclass(slots=True)
class Averages:
    """Means over the past, from the samples of ∫ load dt that a ticking policy takes."""

    samples: deque[tuple[float, float]] = field(default_factory=lambda: deque([(0.0, 0.0)]))

    def sample(self, area: float, now: float, longest: float) -> None:
        """Remember the integral at a tick."""
        self.samples.append((now, area))
        while len(self.samples) > 2 and self.samples[1][0] <= now - longest:
            self.samples.popleft()

    def mean(self, window: float) -> float:
        """The mean load over the window that ends with the last sample."""
        last_at, last = self.samples[-1]
        began_at, began = next(sample for sample in self.samples if sample[0] >= last_at - window)
        return (last - began) / (last_at - began_at) if last_at > began_at else 0.0


class Guide(Policy):
    """Modal's scaling guide read literally: `ceil((queued + running) / target_inputs) + buffer`, and an idle window.

    Keeping containers for 600 s makes it AWS Lambda's rule: one container a request, kept warm for minutes.
    """

    def __init__(self, window: float, buffer: int = 0) -> None:
        self.idle_seconds = window
        self.buffer = buffer

    def desired(self, seen: Seen, now: float) -> int:
        return math.ceil(seen.load / seen.target) + self.buffer if seen.load else 0


class Fixed(Policy):
    """A pool of fixed size."""

    def __init__(self, containers: int) -> None:
        self.containers = containers

    def desired(self, seen: Seen, now: float) -> int:
        return self.containers


class Knative(Policy):
    """Knative's KPA with its defaults: 60 s stable and 6 s panic window, 2 s tick, 70 % utilisation, panic at 200 %."""

    tick_seconds = 2.0
    stable, panic, utilisation, panic_at, grace = 60.0, 6.0, 0.7, 2.0, 30.0

    def __init__(self) -> None:
        self._averages = Averages()
        self._panics_until = -math.inf
        self._most = 0
        self._busy_at = 0.0

    def desired(self, seen: Seen, now: float) -> int:
        self._averages.sample(seen.area, now, self.stable)
        per_container = self.utilisation * seen.target
        stable = math.ceil(self._averages.mean(self.stable) / per_container)
        panic = math.ceil(self._averages.mean(self.panic) / per_container)
        if seen.load:
            self._busy_at = now
        if panic >= self.panic_at * max(1, seen.ready):
            self._panics_until = now + self.stable
        if now < self._panics_until:
            self._most = max(self._most, panic, seen.containers)
            return self._most
        self._most = 0
        wanted = max(stable, seen.ready // 2)  # max-scale-down-rate is 2
        if not seen.containers and seen.waiting:
            return max(1, wanted)  # the activator asks at once
        return wanted if wanted or now - self._busy_at > self.grace + self.stable else 1


class RayServe(Policy):
    """Ray Serve: mean ongoing and queued requests over a look-back, acted on once it was so for a delay."""

    tick_seconds = 1.0

    def __init__(self, interval: float, look_back: float, up_delay: float, down_delay: float) -> None:
        self._interval, self._look_back = interval, look_back
        self._up_delay, self._down_delay = up_delay, down_delay
        self._averages = Averages()
        self._pushed_at = -math.inf
        self._wanted = 0
        self._since: tuple[int, float] = (0, 0.0)  # direction, and since when

    def desired(self, seen: Seen, now: float) -> int:
        if now >= self._pushed_at + self._interval:
            self._pushed_at = now
            self._averages.sample(seen.area, now, self._look_back)
            self._wanted = math.ceil(self._averages.mean(self._look_back) / seen.target)
        present = seen.containers
        if not present and seen.waiting:
            return max(1, self._wanted)  # from zero it does not wait
        direction = (self._wanted > present) - (self._wanted < present)
        if direction != self._since[0]:
            self._since = (direction, now)
        delay = self._up_delay if direction > 0 else self._down_delay
        return self._wanted if now - self._since[1] >= delay else present


class Keda(Policy):
    """KEDA on a queue's length with the Kubernetes HPA: 30 s polling from zero, 15 s sync, 300 s stabilisation down."""

    tick_seconds = 15.0
    at_once_from_zero = False
    stabilisation, cooldown, tolerance = 300.0, 300.0, 0.1

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque()
        self._busy_at = -math.inf
        self._ticks = 0

    def desired(self, seen: Seen, now: float) -> int:
        self._ticks += 1
        if seen.load:
            self._busy_at = now
        present = seen.containers
        if not present:
            return 1 if seen.load and self._ticks % 2 == 0 else 0
        wanted = math.ceil(seen.load / seen.target)
        if abs(wanted / present - 1.0) <= self.tolerance:
            wanted = present
        wanted = min(wanted, max(2 * present, present + 4))
        self._recent.append((now, wanted))
        while self._recent[0][0] < now - self.stabilisation:
            self._recent.popleft()
        wanted = max(count for _, count in self._recent)
        return max(1, wanted) if now - self._busy_at < self.cooldown else wanted


class Dask(Policy):
    """Dask's Adaptive: work in sight over a target of 5 s, looked at each second, closed after 3 such looks."""

    tick_seconds = 1.0
    target_duration, wait_count, unknown_seconds = 5.0, 3, 0.5

    def __init__(self) -> None:
        self._below = 0

    def desired(self, seen: Seen, now: float) -> int:
        occupancy = seen.load * (seen.service_seconds or self.unknown_seconds)
        wanted = min(math.ceil(occupancy / self.target_duration), math.ceil(seen.load / seen.target))
        self._below = self._below + 1 if wanted < seen.containers else 0
        return seen.containers if 0 < self._below < self.wait_count else wanted


class Beta9(Policy):
    """beta9's queue-depth autoscaler: tasks over tasks per container each second, containers kept warm for 10 s."""

    tick_seconds = 1.0
    idle_seconds = 10.0

    def desired(self, seen: Seen, now: float) -> int:
        return math.ceil(seen.load / seen.target)


RIVALS: dict[str, Callable[[], Policy]] = {
    "Knative KPA": Knative,
    "Ray Serve, default": lambda: RayServe(interval=10.0, look_back=30.0, up_delay=30.0, down_delay=600.0),
    "Ray Serve, tuned": lambda: RayServe(interval=1.0, look_back=2.0, up_delay=0.0, down_delay=10.0),
    "KEDA + HPA": Keda,
    "Dask Adaptive": Dask,
    "beta9": Beta9,
    "Lambda-like, keep 600 s": lambda: Guide(600.0),
    "fixed pool of 8": lambda: Fixed(8),
    "fixed pool of 40": lambda: Fixed(40),
    "the guide, window 60 s": lambda: Guide(60.0),
    "the guide, window 20 s": lambda: Guide(20.0),
    "the guide, window 5 s": lambda: Guide(5.0),
}
