"""The policy: what a pool holds and what it has learned → how many containers it should have, and why.

No metric windows: upswell owns the queue and sees every event, so it decides on every event. What it measures instead
is what other autoscalers guess: how long a start takes, how long an input takes, and how much CPU it uses as it runs.

The rule for a backlog of W seconds of work. With n containers it takes W / n, plus the time to start them, which is
about n times the cost of one start, since starts share the processors: n = sqrt(W / cost) is the best n, and clearing
the backlog within T = sqrt(W * cost) the aim. No aim below the time a start takes can be met, so T is at least that.
Inputs longer than T deserve a container each. Before any is started, what present and starting containers will have
served by then is taken off (look-ahead).
"""

from __future__ import annotations

import math

import msgspec

from ..spec import GATHER_SECONDS, AutoscalerSettings
from .agenda import NEVER

PROBE_SECONDS = 0.008  # a container's own beginnings take this long; as long again shows whether inputs compute
LEAST_START_COST_SECONDS = 0.001  # what one more fork adds to the wait of all, on a machine with two cores
LEAST_AIM_SECONDS = 0.010
STARTS_AT_ONCE = 128  # more in parallel only slow each other
LOOK_AHEAD = 0.5  # this share of what busy containers end on average while another starts is relied upon
HEADROOM = 2.0  # times the square root of the offered load: square-root staffing (Halfin and Whitt, 1981)
ARRIVALS_SECONDS = 10.0  # the rate of calls is an average over about this long
LONGER_THAN_AGE = 10.0  # while none has finished, inputs are taken to last this many times as long as they have run
LEAST_CPU_SHARE = 0.02  # below this, processors are no limit
PATIENCE_SECONDS = 0.5  # a surplus container idles this long at least ...
PATIENCE_STARTS = 7  # ... or as long as this many starts take: idling as long as a start costs is 2-competitive
MEMORY_GUESS_BYTES = 12 << 20  # of a container that was not measured yet
BACKOFF_FIRST_SECONDS, BACKOFF_LAST_SECONDS = 1.0, 60.0
SHORTEST_INPUT_SECONDS = 1e-9  # clocks may say that inputs took no time at all
DECAY = 0.9  # weight of the past, for each measured result

LIMITS = frozenset({"processors", "max_containers", "memory", "resources"})  # rules that longer inputs don't change
RULES = ("probe", "backlog", "look-ahead", "headroom", "processors", "memory", "patience")


class Policy(msgspec.Struct, frozen=True):
    """Which rules are in force: all of them, but where the simulator asks what a rule is worth."""

    without: frozenset[str] = frozenset()


ALL_RULES = Policy()


class Estimates(msgspec.Struct):
    """What a pool has learned. `None` and 0 mean that nothing was measured yet."""

    service_seconds: float | None = None
    startup_seconds: float = 0.005  # of a container that starts alone
    start_cost_seconds: float = LEAST_START_COST_SECONDS  # what each further start adds when many start together
    cpu_share: float | None = None
    memory_bytes: int = MEMORY_GUESS_BYTES
    finished: int = 0  # inputs that service_seconds rests on
    started: int = 0  # containers that startup_seconds rests on
    _weight: float = 0.0
    _sum: float = 0.0
    _calls: float = 0.0  # calls a second, as of `_calls_at`
    _calls_at: float = 0.0

    def learn_service(self, inputs: int, seconds: float) -> None:
        """`inputs` took `seconds` together. The past fades by inputs and by time, so that a change shows in either."""
        fade = DECAY ** min(inputs, 50)
        self._weight = self._weight * fade + inputs
        self._sum = self._sum * fade + max(seconds, inputs * SHORTEST_INPUT_SECONDS)
        self.service_seconds = self._sum / self._weight
        self.finished += inputs

    def learn_startup(self, seconds: float, others: int) -> None:
        """A container was ready after so long; `others` were starting at some time meanwhile, and slowed it."""
        if self.started and others:
            cost = min((seconds - self.startup_seconds) / others, self.startup_seconds)
            cost = max(LEAST_START_COST_SECONDS, cost)
            self.start_cost_seconds += min(1.0, others / 50) * (cost - self.start_cost_seconds)
        alone = max(seconds - others * self.start_cost_seconds, seconds / (1 + others))
        # Less than expected is certain to be possible, more may be the others' doing after all. The first may have
        # waited for the imports of its environment: how long a start takes without them says the second.
        if alone < self.startup_seconds:
            weight = 1.0 if self.started < 2 else 0.3
        else:
            weight = 0.1 if self.started else 1.0
        self.startup_seconds += weight * (alone - self.startup_seconds)
        self.started += 1

    def learn_call(self, now: float) -> None:
        """A call came. A map is one call, however many inputs it has: those are its backlog."""
        self._calls = self.calls_per_second(now) + 1 / ARRIVALS_SECONDS
        self._calls_at = now

    def calls_per_second(self, now: float) -> float:
        """The recent rate of calls."""
        return self._calls * math.exp((self._calls_at - now) / ARRIVALS_SECONDS)

    def learn_cpu(self, share: float, running: int, cores: float, seconds: float = GATHER_SECONDS) -> None:
        """Each of `running` inputs has used `share` of a core, in so many seconds: the fewer, the less it says.

        Where the processors are full inputs get less than they would use, so there a share may only raise the estimate.
        """
        trust = min(1.0, seconds / GATHER_SECONDS)
        if self.cpu_share is None:
            self.cpu_share = share
        elif running <= cores or running * share < 0.7 * cores:
            self.cpu_share += 0.3 * trust * (share - self.cpu_share)
        else:
            self.cpu_share += trust * max(0.0, share - self.cpu_share)


class Rollout(msgspec.Struct, frozen=True, gc=False):
    """A new version is to replace what is there of earlier ones."""

    version: int
    outdated: int  # ready containers of other versions
    trouble: str  # why the last container of the new version could not start; "" where it could, or none has tried
    hopeless: bool  # it was tried often enough
    spare: int  # 1 where one container more than needed is there already; the load does not count it


class Load(msgspec.Struct, frozen=True, gc=False):
    """What a pool holds now."""

    waiting: int  # inputs not started, those granted ahead included
    running: int
    ready: int  # containers, idle or not
    starting: int
    running_seconds: float  # how long ago the last input finished, or the first one began
    starting_seconds: float  # how long ago the last container became ready, or the first of those starting began to
    calls_per_second: float
    target_inputs: int
    cores: float
    memory_available: int  # bytes, less what containers started since the last measurement will take
    node_room: int | None  # containers of the pool that the node holds by what they reserve; None: no limit
    rollout: Rollout | None = None  # None: no container is outdated


class Decision(msgspec.Struct, frozen=True, gc=False):
    """How many containers there should be (starting ones count), by which rule, in a user's words."""

    containers: int
    rule: str
    words: str
    spare: int = 0  # of them, those that are needed only while a new version replaces an earlier one

    def at_most(self, containers: int, rule: str, why: str) -> Decision:
        """The same under a limit that is lower."""
        spare = max(0, self.spare - (self.containers - containers))
        return Decision(containers, rule, f"{self.words}; {why}", spare)


def patience_seconds(
    estimates: Estimates, settings: AutoscalerSettings, last: bool, policy: Policy = ALL_RULES
) -> float:
    """How long a surplus container idles before it is drained; the last one has the whole window."""
    window = settings.window_seconds
    if last or "patience" in policy.without:
        return window
    return min(window, max(PATIENCE_SECONDS, PATIENCE_STARTS * estimates.startup_seconds))


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failed starts in a row."""
    return min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** max(0, failures - 1))


def decide(load: Load, estimates: Estimates, settings: AutoscalerSettings, policy: Policy = ALL_RULES) -> Decision:
    """The number of containers the pool deserves now."""
    if load.waiting + load.running:
        wanted = _for_load(load, estimates, policy)
        if "headroom" not in policy.without:
            wanted = _with_headroom(wanted, load, estimates)
        if "processors" not in policy.without:
            wanted = _within_processors(wanted, load, estimates)
        wanted = _within_settings(wanted, settings)
    else:
        wanted = at_rest(settings)
    if load.rollout:
        wanted = _with_rollout(wanted, load.rollout, settings)
    return wanted if "memory" in policy.without else _within_machine(wanted, load, estimates)


def reconsider_seconds(load: Load, decided: Decision, estimates: Estimates) -> float:
    """After how long to decide anew though nothing happens: what runs is older by then, and expected to be longer.

    That can change something only for inputs that wait and will have no place, and only while age still counts. A place
    then comes, counted from when what runs began, at most a quarter later than if the decision were made all the time.
    """
    known, age = estimates.service_seconds, load.running_seconds
    if known is None or not load.waiting or not load.running or decided.rule in LIMITS:
        return NEVER
    places = (decided.containers - decided.spare) * load.target_inputs
    if places >= load.waiting + load.running or age - GATHER_SECONDS >= _longest_seconds(known):
        return NEVER
    return max(GATHER_SECONDS + known - age, (age + estimates.startup_seconds) / 4)


def at_rest(settings: AutoscalerSettings) -> Decision:
    """The number where no input waits or runs, before any limit."""
    return Decision(settings.floor, "idle", f"no input waits or runs; min_containers is {settings.floor}")


def _for_load(load: Load, estimates: Estimates, policy: Policy) -> Decision:
    """What the queue and the running inputs deserve, before any limit."""
    counts = f"{load.waiting} waiting and {load.running} running"
    one_each = math.ceil((load.waiting + load.running) / load.target_inputs)
    if not load.waiting:
        return Decision(one_each, "running", f"{counts}; nothing waits")
    service, words = _service_seconds(load, estimates)
    if service is None and "probe" not in policy.without:
        probe = min(one_each, max(1, math.ceil(load.cores)))
        return Decision(probe, "probe", f"{counts}; nothing is known yet, so it begins with {probe}")
    if service is None:
        return Decision(one_each, "long inputs", f"{counts}; nothing is known yet, so one place for each")
    # A start that takes longer than any before says so before it is over.
    startup = max(estimates.startup_seconds, load.starting_seconds)
    aim = max(LEAST_AIM_SECONDS, startup, math.sqrt(load.waiting * service * estimates.start_cost_seconds))
    words = f"{counts}, {words}"
    if service >= aim or "backlog" in policy.without:
        rule, goal, aim = "long inputs", "one place for each", 0.0
    else:
        rule, goal = "backlog", f"cleared within {_span(aim)}"
    present, served = load.ready + load.starting, _served_meanwhile(load, service, startup, aim)
    if "look-ahead" in policy.without:
        present, served = math.ceil(load.running / load.target_inputs), 0.0
    left = load.waiting - served
    if left <= 0:
        wanted = min(one_each, present)
        return Decision(wanted, "look-ahead", f"{words}; {present} containers will be faster than another could start")
    places = left * (service / aim if aim else 1.0)
    wanted = min(one_each, present + math.ceil(places / load.target_inputs))
    return Decision(wanted, rule, f"{words}; {goal}")


def _service_seconds(load: Load, estimates: Estimates) -> tuple[float | None, str]:
    """How long an input takes, and in words. Long ones are invisible in the mean of the finished, so age counts too."""
    age = load.running_seconds if load.running else 0.0
    if estimates.service_seconds is not None:
        known = max(estimates.service_seconds, 1e-6)
        age -= GATHER_SECONDS  # inputs that have ended may not have been heard of
        service = max(known, min(age, _longest_seconds(known)))
        return service, f"{_span(service)} each"
    if not age or estimates.cpu_share is None:
        return None, ""
    return max(1e-6, LONGER_THAN_AGE * age), f"none of them finished within {_span(age)}"


def _longest_seconds(known: float) -> float:
    """What inputs that take `known` on average are taken for at most, however old those that run are."""
    return 10 * known + 1.0


def _served_meanwhile(load: Load, service: float, startup: float, aim: float) -> float:
    """How many waiting inputs need no further container, less the calls that will have come meanwhile.

    `aim` is when the backlog should be gone, or 0 where each input deserves a place of its own: then only what ends
    before a start is over spares one.
    """
    horizon = startup + aim
    free = max(0, load.ready * load.target_inputs - load.running)
    ending = LOOK_AHEAD * (load.running + free) * horizon / service
    starting = load.starting * load.target_inputs * max(1.0, aim / service)
    return free + ending + starting - load.calls_per_second * horizon


def _with_headroom(wanted: Decision, load: Load, estimates: Estimates) -> Decision:
    """Where a start takes longer than an input, the containers for a chance crowd must be there before it comes."""
    service = estimates.service_seconds
    if service is None:
        return wanted
    offered = load.calls_per_second * service
    # The share of the running inputs that have made way for others when a start is over; of long ones hardly any.
    turnover = min(1.0, estimates.startup_seconds / service)
    busy = load.running + turnover * (offered - load.running)
    staffed = math.floor((busy + HEADROOM * turnover * math.sqrt(offered)) / load.target_inputs)
    if wanted.containers >= staffed:
        return wanted
    calls = f"{load.calls_per_second:.2g} calls a second keep {offered:.2g} busy on average"
    return Decision(staffed, "headroom", f"{wanted.words}; {calls}, and {staffed} are ready for most crowds")


def _within_settings(wanted: Decision, settings: AutoscalerSettings) -> Decision:
    """What the user has set comes before what the load deserves."""
    if settings.buffer:
        more = f"{wanted.words}, and buffer_containers={settings.buffer}"
        wanted = Decision(wanted.containers + settings.buffer, wanted.rule, more)
    if wanted.containers < settings.floor:
        return Decision(settings.floor, "min_containers", f"{wanted.words}; min_containers is {settings.floor}")
    return _within_maximum(wanted, settings)


def _within_maximum(wanted: Decision, settings: AutoscalerSettings) -> Decision:
    if settings.ceiling is not None and wanted.containers > settings.ceiling:
        return wanted.at_most(settings.ceiling, "max_containers", f"max_containers is {settings.ceiling}")
    return wanted


def _with_rollout(wanted: Decision, rollout: Rollout, settings: AutoscalerSettings) -> Decision:
    """While containers are outdated one more than needed, and the last of them stays until another one is ready."""
    count, version = rollout.outdated, rollout.version
    others = "1 container of an earlier version" if count == 1 else f"{count} containers of earlier versions"
    trouble = f"version {version} could not start ({rollout.trouble}), and {others} must do"
    if rollout.hopeless:
        return Decision(wanted.containers, wanted.rule, f"{wanted.words}; the roll-out has stopped: {trouble}")
    under_way = f"a roll-out is under way: version {version} replaces {others}, one by one"
    words = f"{wanted.words}; {f'the roll-out waits: {trouble}' if rollout.trouble else under_way}"
    replaced = max(wanted.containers, 1) + 1
    return _within_maximum(Decision(replaced, "roll-out", words, spare=replaced - wanted.containers), settings)


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
    present = load.ready + load.starting + (load.rollout.spare if load.rollout else 0)
    if wanted.containers <= present:
        return wanted
    possible = present + max(0, load.memory_available) // max(1, estimates.memory_bytes)
    if wanted.containers > possible:
        fits = max(possible, 1)
        wanted = wanted.at_most(fits, "memory", f"memory for {fits} at {estimates.memory_bytes / 2**20:.0f} MiB each")
    if load.node_room is not None and wanted.containers > load.node_room:
        fits = max(load.node_room, present)
        wanted = wanted.at_most(fits, "resources", f"the machine has room for {fits} by what they reserve")
    return wanted


def _span(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
