"""The simulated world obeys its physics: cores are shared, and an interpreter does one thing at a time."""

import pytest

from upswell.sim.process import Behaviour
from upswell.sim.processors import Processors
from upswell.sim.world import Machine
from upswell.spec import AutoscalerSettings, Concurrency

from .scenes import made, play


def test_cores_are_shared_in_equal_parts() -> None:
    processors = Processors(2.0)
    ended: list[tuple[str, float]] = []
    now = 0.0
    for name, seconds in (("short", 1.0), ("long", 2.0), ("longer", 3.0)):
        processors.compute(seconds, lambda name=name: ended.append((name, now)), 0.0)  # type: ignore[misc]
    while (now := processors.due()) != float("inf"):
        processors.finish(now)()
    # Three on two cores get two thirds each until 1.5 s; then two have a core each.
    assert [name for name, _ in ended] == ["short", "long", "longer"]
    assert [moment for _, moment in ended] == pytest.approx([1.5, 2.5, 3.5])


def test_who_leaves_makes_room() -> None:
    processors = Processors(1.0)
    left = processors.compute(5.0, lambda: None, 0.0)
    processors.compute(1.0, lambda: None, 0.0)
    assert processors.due() == pytest.approx(2.0)
    processors.abandon(left, 1.0)
    assert processors.due() == pytest.approx(1.5)


def test_one_interpreter_computes_one_input_at_a_time() -> None:
    calls = [made(float(number) / 1000, 1.0, call=f"fc-{number}") for number in range(4)]
    one = AutoscalerSettings(max_containers=1)
    computing = Behaviour(start_seconds=0.0, start_compute=0.001, compute=1.0)
    world = play(*calls, behaviour=computing, settings=one, concurrency=Concurrency(max_inputs=4), until=10.0)
    assert world.starts == 1
    assert max(wait for call in calls for wait in call.waits) == pytest.approx(3.0, abs=0.1)


def test_starts_that_compute_slow_each_other() -> None:
    slow = Behaviour(start_seconds=0.0, start_compute=0.5)
    four = AutoscalerSettings(min_containers=4)
    world = play(behaviour=slow, settings=four, machine=Machine(cores=1.0), until=1.9)
    assert not any(process.serves for process in world.processes.values())
    world.run(2.1)
    assert all(process.serves for process in world.processes.values())
