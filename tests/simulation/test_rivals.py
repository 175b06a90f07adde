"""The rivals follow their published rules, and the comparison gives all policies the same load."""

import pytest

from upswell.sim.report import measure, simulate
from upswell.sim.rivals import RIVALS, Dask, Guide, Keda, Knative, Policy, RayServe, Seen
from upswell.sim.workloads import WORKLOADS, Workload


def follow(policy: Policy, loads: list[int], tick: float) -> list[int]:
    """Return what the policy wants, tick by tick, if every wish is fulfilled at once and nothing is ever idle."""
    seen, wishes = Seen(target=1), []
    for number, load in enumerate(loads):
        seen.waiting, seen.running = max(0, load - seen.ready), min(load, seen.ready)
        wishes.append(policy.desired(seen, number * tick))
        seen.ready = wishes[-1]
        seen.area += load * tick
    return wishes


def test_the_guide_is_read_literally() -> None:
    assert Guide(60.0, buffer=2).desired(Seen(target=10, waiting=15, running=10), 0.0) == 5
    assert Guide(60.0, buffer=2).desired(Seen(target=10), 0.0) == 0


def test_knative_panics_at_once_and_takes_a_minute_to_calm_down() -> None:
    wishes = follow(Knative(), [0] + [10] * 10 + [0] * 120, 2.0)
    assert wishes[4] == 15  # 10 in flight at 70 % utilisation, seen over 6 s
    assert wishes[30] == 15
    assert wishes[-1] == 0


def test_ray_serve_waits_before_it_goes_up_and_longer_before_it_goes_down() -> None:
    wishes = follow(RayServe(10.0, 30.0, 30.0, 600.0), [5] * 120 + [0] * 700, 1.0)
    assert wishes[0] == 1
    assert wishes[20] == 1
    assert wishes[110] == 5
    assert wishes[600] == 5
    assert wishes[-1] == 0


def test_the_hpa_doubles_at_most_and_remembers_for_five_minutes() -> None:
    wishes = follow(Keda(), [100] * 10 + [0] * 60, 15.0)
    assert wishes[:7] == [0, 1, 5, 10, 20, 40, 80]
    assert wishes[20] == 100
    assert wishes[-1] == 0


def test_dask_looks_at_work_in_seconds() -> None:
    policy, seen = Dask(), Seen(target=1, waiting=100, service_seconds=1.0)
    assert policy.desired(seen, 0.0) == 20
    assert policy.desired(Seen(target=1, waiting=3, service_seconds=60.0), 1.0) == 3


@pytest.mark.parametrize("policy", list(RIVALS))
def test_every_rival_serves_everything(policy: str) -> None:
    timer = next(workload for workload in WORKLOADS if workload.name == "timer")
    world = simulate(policy, timer, 1)
    assert sum(len(caller.waits) for caller in world.callers.values()) == 60


def test_a_result_is_that_of_its_seed(workload: Workload = WORKLOADS[3]) -> None:
    def figures(seed: int) -> tuple[float, float, int]:
        result = measure("upswell", workload, seed)
        return result.cost, result.mean, result.starts

    assert figures(1) == figures(1) != figures(2)
