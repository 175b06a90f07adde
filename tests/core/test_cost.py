"""What a step costs depends on what changed and not on what exists: counted in calls of functions, not in seconds."""

import sys
import tracemalloc
from pathlib import Path
from types import FrameType
from typing import Any

import upswell.core
from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.spec import AutoscalerSettings, FunctionSpec, Limits

CORE = str(Path(upswell.core.__file__).parent)


class Counted:
    """A plane, and how many functions the last event called within it."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self.plane = Plane(limits, memory_available=1 << 40)
        self.calls = 0

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        self.calls = 0
        sys.setprofile(self._count)
        try:
            return self.plane.handle(event, now)
        finally:
            sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        # Others may be called meanwhile, by the garbage collector for one.
        self.calls += event in ("call", "c_call") and frame.f_code.co_filename.startswith(CORE)


def submitted(call: str, function: str = "f", count: int = 1, owner: str = "") -> e.InputsSubmitted:
    return e.InputsSubmitted(call, function, "map", 0, count, True, owner)


def started(commands: list[c.Command]) -> list[str]:
    return [command.container for command in commands if isinstance(command, c.Start)]


def granted(commands: list[c.Command]) -> list[c.Grant]:
    return [command for command in commands if isinstance(command, c.Grant)]


def cost_of_a_call(idle_pools: int) -> int:
    counted, total = Counted(), 0
    for number in range(idle_pools):
        counted.plane.handle(e.FunctionDeclared(f"idle {number}", FunctionSpec()), 0.0)
    counted.plane.handle(e.FunctionDeclared("f", FunctionSpec()), 0.0)
    (container,) = started(counted.handle(submitted("a"), 1.0))
    total += counted.calls
    (grant,) = granted(counted.handle(e.ContainerReady(container), 1.1))
    total += counted.calls
    counted.handle(e.ResultsReceived(container, grant.range, 0, 1, 0.1, 0.1), 1.2)
    return total + counted.calls


def test_idle_pools_cost_nothing() -> None:
    assert cost_of_a_call(10_000) == cost_of_a_call(0)


def test_functions_at_rest_want_no_time_and_little_memory() -> None:
    counted, spec = Counted(), FunctionSpec()
    functions = [f"ap-1/function_{number}" for number in range(2_000)]
    tracemalloc.start()
    for function in functions:
        counted.plane.handle(e.FunctionDeclared(function, spec, ephemeral=False, version=1), 0.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counted.plane.deadline() is None
    assert size / len(functions) < 6000  # 3,500 bytes when this was written


def cost_of_a_result(containers: int) -> int:
    counted = Counted()
    spec = FunctionSpec(settings=AutoscalerSettings(min_containers=containers, max_containers=containers))
    ids = started(counted.plane.handle(e.FunctionDeclared("f", spec), 0.0))
    while len(ids) < containers:
        ids += started(counted.plane.handle(e.ContainerReady(ids[len(ids) - 128]), 0.1))
    for container in ids:
        counted.plane.handle(e.ContainerReady(container), 0.2)
    (grant,) = granted(counted.plane.handle(submitted("a"), 1.0))
    counted.handle(e.ResultsReceived(grant.container, grant.range, 0, 1, 0.1, 0.1), 1.1)
    return counted.calls


def test_idle_containers_cost_nothing() -> None:
    assert cost_of_a_result(1000) == cost_of_a_result(10)


def cost_of_leaving(calls: int) -> int:
    counted = Counted()
    counted.plane.handle(e.FunctionDeclared("f", FunctionSpec()), 0.0)
    for number in range(calls):
        counted.plane.handle(submitted(f"fc-{number}", owner="ann"), 0.0)
    counted.handle(e.OwnerLeft("ann"), 1.0)
    return counted.calls


def test_an_owner_with_many_calls_costs_each_of_them_once() -> None:
    assert cost_of_leaving(1000) < 12 * cost_of_leaving(100)


def test_nothing_piles_up_behind_a_long_input() -> None:
    """One input runs for hours while thousands come and go, each in a container of its own."""
    plane = Plane(cores=4.0, memory_available=1 << 40)
    spec = FunctionSpec(timeout=80_000, single_use=True)
    plane.handle(e.FunctionDeclared("f", spec), 0.0)
    (first,) = started(plane.handle(submitted("long"), 0.0))
    plane.handle(e.ContainerReady(first), 0.1)
    for number in range(2000):
        now = 1.0 + number
        (container,) = started(plane.handle(submitted(f"fc-{number}"), now))
        (grant,) = granted(plane.handle(e.ContainerReady(container), now + 0.1))
        plane.handle(e.ResultsReceived(container, grant.range, 0, 1, 0.1, 0.0), now + 0.2)
        plane.handle(e.ContainerExited(container, "exited with status 0"), now + 0.3)
    pool = plane._pools["f"]
    assert len(pool.containers._watch._heap) < 200 and len(plane._agenda._heap) < 200
    assert len(pool.containers.by_id) == 1 and len(plane._containers) == 1 and len(plane._calls) == 1
    assert not pool._sampling._before
