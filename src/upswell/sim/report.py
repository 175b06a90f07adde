"""Runs policies over workloads and says how they did: what callers waited, what it cost, how many containers started.

Figures over workloads are geometric means; their intervals are bootstrapped over seeds (Efron, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from time import process_time

from ..core.autoscaler import Policy
from ..core.commands import Command
from ..core.events import Event
from ..core.plane import Plane
from ..spec import Limits
from .rival_plane import RivalPlane
from .rivals import RIVALS
from .workloads import Workload
from .world import Caller, Controller, Machine, World

OURS = "upswell"
LONGEST_RUN_SECONDS = 900.0  # after the last arrival; what a policy keeps warm after that is not counted
SMALLEST_WAIT_SECONDS = 0.05  # added to waits, so that a geometric mean can bear nothing
LONG_WAIT_SECONDS = 1.0
RESAMPLES = 400
MACHINE = Machine()


@dataclass(frozen=True, slots=True)
class Result:
    """One policy on one workload and seed."""

    policy: str
    workload: str
    seed: int
    cost: float  # container-seconds over those of the inputs alone
    mean: float  # seconds from the call to the beginning of an input
    p50: float
    p99: float
    long: float  # share of inputs that waited for more than a second
    starts: int
    peak: int
    microseconds: float  # of CPU per decision
    out_of_memory: int


class Timed:
    """A plane whose CPU time is measured; the world still sees none of it."""

    def __init__(self, plane: Controller) -> None:
        self._plane = plane
        self.deadline = plane.deadline
        self.seconds = 0.0
        self.decisions = 0

    def take(self, event: Event, now: float) -> list[Command]:
        """As the plane does."""
        return self._timed(lambda: self._plane.take(event, now))

    def wake(self, now: float) -> list[Command]:
        """As the plane does."""
        return self._timed(lambda: self._plane.wake(now))

    def _timed(self, decide: Callable[[], list[Command]]) -> list[Command]:
        began = process_time()
        commands = decide()
        self.seconds += process_time() - began
        self.decisions += 1
        return commands


def controller(policy: str, machine: Machine) -> Controller:
    """The plane of a policy by its name: ours, ours without a rule, or a rival's."""
    if policy in RIVALS:
        return RivalPlane(RIVALS[policy])
    without = policy.removeprefix(OURS).removeprefix(" without ")
    rules = Policy(without=frozenset(without.split(", ") if without else ()))
    return Plane(Limits(), cores=machine.cores, memory_available=machine.memory_bytes, policy=rules)


def simulate(policy: str, workload: Workload, seed: int) -> World:
    """Run the workload under the policy until it is over and everything idle has stopped."""
    plane = Timed(controller(policy, MACHINE))
    world = World(plane, MACHINE, Random(seed))
    arrivals = workload.arrivals(Random(f"{workload.name} {seed}"))
    for function in dict.fromkeys(arrival.function for arrival in arrivals):
        world.declare(function, workload.spec, workload.behaviour)
    for number, arrival in enumerate(arrivals):
        caller = Caller(
            f"fc-{number}",
            arrival.function,
            "remote" if len(arrival.services) == 1 else "map",
            arrival.services,
            arrival.at,
        )
        world.at(arrival.at, partial(world.call, caller))
    world.run(max(arrival.at for arrival in arrivals) + LONGEST_RUN_SECONDS)
    return world


def measure(policy: str, workload: Workload, seed: int) -> Result:
    """Simulate, and say how it went."""
    world = simulate(policy, workload, seed)
    waits = sorted(wait for caller in world.callers.values() for wait in caller.waits)
    ideal = sum(sum(caller.services) for caller in world.callers.values()) / workload.concurrency.target_inputs
    assert isinstance(world.plane, Timed)
    return Result(
        policy=policy,
        workload=workload.name,
        seed=seed,
        cost=world.seconds_of_containers() / ideal,
        mean=sum(waits) / len(waits),
        p50=waits[len(waits) // 2],
        p99=waits[int(0.99 * (len(waits) - 1))],
        long=sum(wait > LONG_WAIT_SECONDS for wait in waits) / len(waits),
        starts=world.starts,
        peak=world.peak,
        microseconds=1e6 * world.plane.seconds / world.plane.decisions,
        out_of_memory=world.out_of_memory,
    )


# -- over workloads and seeds ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """One policy over workloads and seeds: geometric means, with the 95 % interval of the first two."""

    policy: str
    cost: float
    cost_interval: tuple[float, float]
    wait: float  # of 0.05 s + mean wait
    wait_interval: tuple[float, float]
    p99: float  # of 0.05 s + p99
    long: float  # arithmetic mean
    starts: float
    peak: float
    microseconds: float


def summarise(policy: str, results: Iterable[Result]) -> Summary:
    """Put the policy's results together."""
    mine = [result for result in results if result.policy == policy]
    cost, cost_interval = _with_interval(mine, lambda result: result.cost)
    wait, wait_interval = _with_interval(mine, lambda result: SMALLEST_WAIT_SECONDS + result.mean)
    return Summary(
        policy=policy,
        cost=cost,
        cost_interval=cost_interval,
        wait=wait,
        wait_interval=wait_interval,
        p99=_geometric(SMALLEST_WAIT_SECONDS + result.p99 for result in mine),
        long=sum(result.long for result in mine) / len(mine),
        starts=_geometric(max(1, result.starts) for result in mine),
        peak=_geometric(result.peak for result in mine),
        microseconds=sum(result.microseconds for result in mine) / len(mine),
    )


def _geometric(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def _with_interval(results: list[Result], value: Callable[[Result], float]) -> tuple[float, tuple[float, float]]:
    """The geometric mean, and its interval when seeds are drawn again with replacement."""
    by_seed: dict[int, list[float]] = {}
    for result in results:
        by_seed.setdefault(result.seed, []).append(math.log(value(result)))
    means = [sum(logs) / len(logs) for logs in by_seed.values()]
    draw = Random(0)
    again = sorted(sum(draw.choices(means, k=len(means))) / len(means) for _ in range(RESAMPLES))
    low, high = again[int(0.025 * RESAMPLES)], again[int(0.975 * RESAMPLES) - 1]
    return math.exp(sum(means) / len(means)), (math.exp(low), math.exp(high))


# -- for people -----------------------------------------------------------------------------------------


def table(summaries: list[Summary]) -> str:
    """The comparison as a table in Markdown."""
    lines = [
        "| policy | cost | 0.05 + mean wait s | 0.05 + p99 s | over 1 s | starts | peak | µs per decision |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in summaries:
        cost, wait = (f"{low:.2f}–{high:.2f}" for low, high in (one.cost_interval, one.wait_interval))
        lines.append(
            f"| {one.policy} | {one.cost:.2f} ({cost}) | {one.wait:.3f} ({wait}) | {one.p99:.2f} | {one.long:.1%} "
            f"| {one.starts:.0f} | {one.peak:.0f} | {one.microseconds:.0f} |"
        )
    return "\n".join(lines)


def details(results: list[Result], workload: str) -> str:
    """How each policy did on one workload, over its seeds."""
    lines = [
        f"{workload:34} {'cost':>7} {'mean s':>8} {'p50 s':>8} {'p99 s':>8} {'over 1 s':>8} {'starts':>7} {'peak':>6}"
    ]
    here = [result for result in results if result.workload == workload]
    for policy in dict.fromkeys(result.policy for result in here):
        mine = [result for result in here if result.policy == policy]

        def mean(value: Callable[[Result], float], mine: list[Result] = mine) -> float:
            return sum(map(value, mine)) / len(mine)

        lines.append(
            f"  {policy:32} {mean(lambda r: r.cost):7.2f} {mean(lambda r: r.mean):8.3f} {mean(lambda r: r.p50):8.3f} "
            f"{mean(lambda r: r.p99):8.3f} {mean(lambda r: r.long):8.1%} {mean(lambda r: r.starts):7.0f} "
            f"{mean(lambda r: r.peak):6.0f}"
        )
    return "\n".join(lines)
