"""The policy: what a pool holds and what it has learned → how many containers it should have, and why.

No metric windows: upswell owns the queue and sees every event, so it decides on every event. What it measures instead
is what other autoscalers guess: how long a start takes, how long an input takes, and how much CPU it uses as it runs.

The rule for a backlog of W seconds of work. With n containers it takes W / n, plus the time to start them, which is
about n times the cost of one start, since starts share the processors: n = sqrt(W / cost) is the best n, and clearing
the backlog within T = sqrt(W * cost) the aim. No aim below a small multiple of the time a start takes can be met, so T
is at least that. Inputs longer than T deserve a container each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..spec import AutoscalerSettings

PROBE_SECONDS = 0.010  # after this, a running input's use of CPU says whether it computes or waits
START_COST_SECONDS = 0.001  # what one more start adds to the wait of all, on a machine with two cores
LEAST_AIM_SECONDS = 0.010
STARTS_AT_ONCE = 128  # more in parallel only slow each other
LEAST_CPU_SHARE = 0.02  # below this, processors are no limit
PATIENCE_SECONDS = 2.0  # a surplus container idles this long at least ...
PATIENCE_STARTS = 10  # ... or as long as this many starts take: idling as long as a start costs is 2-competitive
MEMORY_GUESS_BYTES = 12 << 20  # of a container that was not measured yet
BACKOFF_FIRST_SECONDS, BACKOFF_LAST_SECONDS = 1.0, 60.0
DECAY = 0.9  # weight of the past, for each measured result


@dataclass(slots=True)
class Estimates:
    """What a pool has learned. `None` and 0 mean that nothing was measured yet."""

    service_seconds: float | None = None
    startup_seconds: float = 0.005
    cpu_share: float | None = None
    memory_bytes: int = MEMORY_GUESS_BYTES
    finished: int = 0  # inputs that service_seconds rests on
    _weight: float = 0.0
    _sum: float = 0.0

    def learn_service(self, inputs: int, seconds: float) -> None:
        """`inputs` took `seconds` together. The past fades by inputs and by time, so that a change shows in either."""
        fade = DECAY ** min(inputs, 50)
        self._weight = self._weight * fade + inputs
        self._sum = self._sum * fade + seconds
        self.service_seconds = self._sum / self._weight
        self.finished += inputs

    def learn_startup(self, seconds: float) -> None:
        self.startup_seconds += 0.3 * (seconds - self.startup_seconds)

    def learn_cpu(self, share: float, running: int, cores: float) -> None:
        """`share` of a core was used by each of `running` inputs.

        Where the processors are full a share says less than the input would use, so it may then only raise it.
        """
        if self.cpu_share is None:
            self.cpu_share = share
        elif running <= cores or running * share < 0.7 * cores:
            self.cpu_share += 0.3 * (share - self.cpu_share)
        else:
            self.cpu_share = max(self.cpu_share, share)


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool holds now."""

    waiting: int  # inputs not started, those granted ahead included
    running: int
    ready: int  # containers, idle or not
    starting: int
    running_seconds: float  # how long ago the last input finished, or the first one began
    target_inputs: int
    cores: float
    memory_available: int  # bytes, less what containers started since the last measurement will take
    node_room: int | None  # containers of the pool that the node holds by what they reserve; None: no limit


@dataclass(frozen=True, slots=True)
class Decision:
    """How many containers there should be (starting ones count), by which rule, in a user's words."""

    containers: int
    rule: str
    words: str


def patience_seconds(estimates: Estimates, settings: AutoscalerSettings, last: bool) -> float:
    """How long a surplus container idles before it is drained; the last one has the whole window."""
    window = settings.window_seconds
    return window if last else min(window, max(PATIENCE_SECONDS, PATIENCE_STARTS * estimates.startup_seconds))


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failed starts in a row."""
    return min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** max(0, failures - 1))


def decide(load: Load, estimates: Estimates, settings: AutoscalerSettings) -> Decision:
    """The number of containers the pool deserves now."""
    if load.waiting + load.running:
        wanted = _within_processors(_for_load(load, estimates), load, estimates)
        wanted = _within_settings(wanted, settings)
    else:
        wanted = Decision(settings.floor, "idle", f"no input waits or runs; min_containers is {settings.floor}")
    return _within_machine(wanted, load, estimates)


def _within_settings(wanted: Decision, settings: AutoscalerSettings) -> Decision:
    """What the user has set comes before what the load deserves."""
    if settings.buffer:
        more = f"{wanted.words}, and buffer_containers={settings.buffer}"
        wanted = Decision(wanted.containers + settings.buffer, wanted.rule, more)
    if wanted.containers < settings.floor:
        return Decision(settings.floor, "min_containers", f"{wanted.words}; min_containers is {settings.floor}")
    if settings.ceiling is not None and wanted.containers > settings.ceiling:
        return Decision(settings.ceiling, "max_containers", f"{wanted.words}; max_containers is {settings.ceiling}")
    return wanted


def _for_load(load: Load, estimates: Estimates) -> Decision:
    """What the queue and the running inputs deserve, before any limit."""
    one_each = math.ceil((load.waiting + load.running) / load.target_inputs)
    counts = f"{load.waiting} waiting and {load.running} running"
    service = estimates.service_seconds
    if service is None:
        if not load.running or estimates.cpu_share is None:
            probe = min(one_each, max(1, math.ceil(load.cores)))
            return Decision(probe, "probe", f"{counts}; nothing is known yet, so it begins with {probe}")
        return Decision(one_each, "long inputs", f"{counts}; none has finished yet, so one place for each")
    # Long inputs are invisible in the mean of finished ones: let the age of the running ones count.
    service = max(service, min(load.running_seconds, 10 * service + 1.0) if load.running else 0.0)
    aim = max(LEAST_AIM_SECONDS, 2 * estimates.startup_seconds, math.sqrt(load.waiting * service * START_COST_SECONDS))
    if service >= aim:
        return Decision(one_each, "long inputs", f"{counts}, {_span(service)} each; one place for each")
    for_backlog = load.waiting * service / aim
    wanted = min(one_each, math.ceil((for_backlog + load.running) / load.target_inputs))
    return Decision(max(1, wanted), "backlog", f"{counts}, {_span(service)} each; cleared within {_span(aim)}")


def _within_processors(wanted: Decision, load: Load, estimates: Estimates) -> Decision:
    """Inputs that use the processors deserve no more containers than keep them busy."""
    share = estimates.cpu_share
    if share is None or share < LEAST_CPU_SHARE:
        return wanted
    # A container that takes several inputs at once shares one interpreter among them.
    useful = max(1, round(load.cores / min(share * load.target_inputs, max(1.0, share))))
    if wanted.containers <= useful:
        return wanted
    return Decision(
        useful,
        "processors",
        f"{wanted.words}; each uses {share:.0%} of a core, so {load.cores:g} cores keep {useful} busy",
    )


def _within_machine(wanted: Decision, load: Load, estimates: Estimates) -> Decision:
    """No container is started that the machine has no memory for, or no room by what containers reserve."""
    present = load.ready + load.starting
    possible = present + max(0, load.memory_available) // max(1, estimates.memory_bytes)
    if wanted.containers > possible and wanted.containers > present:
        fits = max(possible, present, 1)
        wanted = Decision(
            fits, "memory", f"{wanted.words}; memory for {fits} at {estimates.memory_bytes / 2**20:.0f} MiB each"
        )
    if load.node_room is not None and wanted.containers > load.node_room:
        fits = max(load.node_room, min(present, wanted.containers))
        wanted = Decision(fits, "resources", f"{wanted.words}; the machine has room for {fits} by their cpu and memory")
    return wanted


def _span(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
