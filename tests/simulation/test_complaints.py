"""What users of other autoscalers complain about, each shown not to happen here."""

from dataclasses import dataclass, replace

import pytest

from upswell.core import events as e
from upswell.sim.faults import Faults
from upswell.sim.process import Behaviour, Process, Work
from upswell.sim.report import Result, measure
from upswell.sim.workloads import WORKLOADS
from upswell.sim.world import World
from upswell.spec import AutoscalerSettings, FunctionSpec, SettingsUpdate

from .scenes import FORKED, made, play, waits


def compare(workload: str, *policies: str) -> list[Result]:
    found = next(one for one in WORKLOADS if one.name == workload)
    return [measure(policy, found, 3) for policy in policies]


def test_no_oscillation() -> None:
    """A steady load of 1,500 inputs starts few containers, at half the cost of keeping them for a minute."""
    ours, guide = compare("steady", "upswell", "the guide, window 60 s")
    assert ours.starts < 100
    assert ours.cost < 0.7 * guide.cost
    assert ours.mean < 0.05


def test_no_explosion_of_starts() -> None:
    ours, guide, knative = compare("map of 2,000 × 50 ms", "upswell", "the guide, window 20 s", "Knative KPA")
    assert ours.starts < guide.starts / 3
    assert ours.starts < knative.starts / 3
    assert ours.mean < guide.mean


@pytest.mark.parametrize(
    "rival", ["Knative KPA", "Ray Serve, default", "Ray Serve, tuned", "KEDA + HPA", "Dask Adaptive"]
)
def test_no_slow_scale_up(rival: str) -> None:
    ours, theirs = compare("on and off", "upswell", rival)
    assert ours.mean < theirs.mean
    assert ours.p99 < theirs.p99


@pytest.mark.parametrize("workload", ["spikes", "forks, bursts of 30 ms", "forks, maps of 100 × 1 s"])
def test_a_burst_costs_less_than_the_guide_read_literally(workload: str) -> None:
    ours, guide = compare(workload, "upswell", "the guide, window 20 s")
    assert ours.cost < guide.cost / 2
    assert ours.mean < guide.mean + 0.3


def test_computing_inputs_are_not_slowed_by_too_many_of_them() -> None:
    ours, guide = compare("computing, 400 × 1 s", "upswell", "the guide, window 5 s")
    assert ours.mean < 0.7 * guide.mean
    assert ours.cost < guide.cost / 10


def test_no_busy_victim() -> None:
    """A long input ends where it began, whatever comes and goes around it; the watch sees every drain."""
    long = made(0.0, 120.0, call="long")
    world = play(long, *(made(float(at), *[0.2] * 30) for at in range(1, 100, 10)))
    assert long.waits[0] < 0.1
    assert world.starts > 60  # there were drains


def test_no_gap_when_the_pool_is_about_to_fall_to_zero() -> None:
    """Calls that come while the last container is being stopped, a moment before and after, are all served."""
    for microseconds in range(-500, 500, 50):
        first = made(0.0, 0.1)
        second = made(0.0, 0.1, call="second")
        play(first, until=50.0)
        window = 2.0
        ended = 0.1 + first.waits[0]
        second = replace(second, made_at=ended + window + microseconds / 1e6)
        play(made(0.0, 0.1), second, settings=AutoscalerSettings(scaledown_window=2))
        assert second.waits[0] < 0.1


def test_a_periodic_caller_finds_its_container_ready() -> None:
    calls = [made(30.0 * number, 1.0, call=f"fc-{number}") for number in range(1, 20)]
    world = play(*calls, behaviour=Behaviour(start_seconds=5.0))
    assert world.starts == 1
    assert max(waits(*calls[1:])) < 0.01


@dataclass(frozen=True)
class Poison(Faults):
    """Whoever runs input 7 dies."""

    calm: bool = False

    def container_starts(self, world: World, process: Process) -> None:
        """Start as usual."""

    def input_begins(self, world: World, process: Process, work: Work, seconds: float) -> None:
        """Run the input, or die of it."""
        if work.position == 7:
            world.after(seconds, process, lambda: world.exit(process, "killed by signal 11 (SIGSEGV)"))
        else:
            process.run(work, seconds)


def test_one_crash_does_not_kill_the_pool() -> None:
    call = made(0.0, *[0.01] * 200)
    play(call, faults=Poison())
    assert call.failed == 1
    assert len(call.waits) == 199
    assert max(call.waits) < 2.0


@dataclass(frozen=True)
class Broken(Faults):
    """No container ever starts."""

    calm: bool = False

    def container_starts(self, world: World, process: Process) -> None:
        """Die at once."""
        world.after(0.001, process, lambda: world.exit(process, "exited with status 1"))


def test_a_crash_loop_backs_off_and_ends() -> None:
    call = made(0.0, *[1.0] * 100)
    world = play(call, faults=Broken())
    assert call.failed == 100
    assert world.starts < 10
    assert world.now >= 2.0  # there were pauses


def test_no_blocking_behind_the_head_of_the_line() -> None:
    """What waits behind an input that turns out to be long moves to others."""
    call = made(0.0, *[0.001] * 50, 30.0, *[0.001] * 500)
    play(call, settings=AutoscalerSettings(max_containers=2))
    assert max(call.waits) < 2.0


def test_a_single_call_does_not_wait_behind_a_map() -> None:
    many = made(0.0, *[0.01] * 5000, call="many")
    single = made(2.0, 0.01, call="single")
    play(many, single, settings=AutoscalerSettings(max_containers=2))
    assert single.waits[0] < 0.1
    assert max(many.waits) > 10


def test_a_new_declaration_does_not_double_the_pool() -> None:
    spec = FunctionSpec(settings=AutoscalerSettings(min_containers=5))
    world = play(settings=spec.settings, until=5.0)
    world.declare("f", spec, FORKED)
    world.run(6.0)
    assert len(world.processes) == 5


def test_no_bill_for_a_forgotten_warm_pool() -> None:
    world = play(settings=AutoscalerSettings(min_containers=20), until=5.0)
    assert len(world.processes) == 20
    world.happened(e.SettingsUpdated("f", SettingsUpdate(min_containers=0)))
    world.run(70.0)
    assert not world.processes


def test_the_scaler_itself_is_fast() -> None:
    """A pool of a thousand costs about as much per decision as one of ten."""
    large = compare("map of 2,000 × 2 s", "upswell")[0]
    assert large.peak > 300
    assert large.microseconds < 2000
