"""What running inputs use says how many containers they deserve, before any of them has ended."""

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.autoscaler import PROBE_SECONDS
from upswell.core.plane import Plane
from upswell.spec import FunctionSpec

CORES = 2
WAITS, COMPUTES = 0.0, 1.0  # of a core, by each input
BEGINNING, BEGUN = 0.003, 0.006  # CPU seconds of a container that are not its inputs' doing, and when they are over


def containers_by_look(share: float, inputs: int = 100) -> list[tuple[float, int]]:
    """Inputs of `share` come to an unknown function: moments of looks, from the first input's beginning, and how many
    containers there were after each.
    """
    plane = Plane(cores=float(CORES), memory_available=1 << 40)
    plane.handle(e.FunctionDeclared("f", FunctionSpec()), 0.0)
    commands = plane.handle(e.InputsSubmitted("fc-1", "f", "map", 0, inputs, True, "owner"), 0.0)
    containers = [command.container for command in commands if isinstance(command, c.Start)]
    assert len(containers) == CORES
    for container in containers:
        plane.handle(e.ContainerReady(container), 0.0)
    looks: list[tuple[float, int]] = []
    while len(looks) < 3:
        now = plane.deadline()
        assert now is not None
        commands = plane.wake(now)
        while sample := next((command for command in commands if isinstance(command, c.Sample)), None):
            own = BEGINNING * min(1.0, now / BEGUN)
            used = tuple((container, own + share * now) for container in sample.containers)
            commands = plane.handle(e.UsageSampled("f", used, 10 << 20, float(CORES), 1 << 40), now)
            statistics = plane.statistics("f")
            assert statistics is not None
            looks.append((now, statistics.containers))
    return looks


def test_inputs_that_wait_have_a_container_each_at_the_second_look_whatever_containers_use_to_begin_with() -> None:
    first, second, _ = containers_by_look(WAITS)
    assert first == (PROBE_SECONDS, CORES)
    assert second == (2 * PROBE_SECONDS, 100)


def test_inputs_that_compute_have_no_more_containers_than_cores() -> None:
    assert [containers for _, containers in containers_by_look(COMPUTES)] == [CORES] * 3


def test_later_looks_are_ever_rarer() -> None:
    moments = [moment for moment, _ in containers_by_look(COMPUTES)]
    assert moments == [PROBE_SECONDS, 2 * PROBE_SECONDS, 4 * PROBE_SECONDS]


def test_inputs_that_soon_have_a_container_cause_no_look_however_long_ago_the_last_one_was() -> None:
    plane = Plane(cores=64.0, memory_available=1 << 40)
    plane.handle(e.FunctionDeclared("f", FunctionSpec()), 0.0)
    looks: list[float] = []
    starts = 0

    def until(moment: float, commands: list[c.Command]) -> None:
        """Containers are ready half as long after they were started as a look would be due."""
        nonlocal starts
        ready: list[tuple[float, str]] = []
        now = moment - 1.0
        while True:
            for command in commands:
                if isinstance(command, c.Start):
                    starts += 1
                    ready.append((now + PROBE_SECONDS / 2, command.container))
                elif isinstance(command, c.Sample):
                    looks.append(now)
            deadline = plane.deadline()
            due, container = min(ready, default=(moment, ""))
            if (now := min(due, moment if deadline is None else deadline)) >= moment:
                return
            if now == due:
                ready.remove((due, container))
                commands = plane.handle(e.ContainerReady(container), now)
            else:
                commands = plane.wake(now)

    for second in range(5):
        event = e.InputsSubmitted(f"fc-{second}", "f", "map", 0, 1, True, "owner")
        until(second + 1.0, plane.handle(event, float(second)))
    assert starts == 5
    assert looks == []
