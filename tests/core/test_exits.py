"""How long containers may take to exit, and who gets what they leave, told as events and commands."""

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.spec import CANCEL_GRACE_SECONDS, EXIT_GRACE_SECONDS, AutoscalerSettings, FunctionSpec, SettingsUpdate

FLOOR_OF_ONE = FunctionSpec(settings=AutoscalerSettings(min_containers=1))


def plane_with_one_container(spec: FunctionSpec = FLOOR_OF_ONE) -> tuple[Plane, str]:
    plane = Plane()
    started = [one for one in plane.handle(e.FunctionDeclared("f", spec), 0.0) if isinstance(one, c.Start)]
    assert len(started) == 1
    return plane, started[0].container


def submit(plane: Plane, call: str, now: float) -> list[c.Command]:
    return plane.handle(e.InputsSubmitted(call, "f", "remote", 0, 1, True), now)


def test_an_idle_container_is_asked_to_exit_and_killed_when_its_hooks_take_too_long() -> None:
    plane, name = plane_with_one_container()
    plane.handle(e.ContainerReady(name), 1.0)
    assert plane.handle(e.FunctionRemoved("f"), 100.0) == [c.Drain(name, "its app is stopped")]
    assert plane.deadline() == 100.0 + EXIT_GRACE_SECONDS
    assert plane.wake(100.0 + EXIT_GRACE_SECONDS) == [c.Kill(name, f"it did not exit within {EXIT_GRACE_SECONDS:g} s")]
    plane.handle(e.ContainerExited(name, "killed"), 131.0)
    assert plane.deadline() is None


def test_a_busy_one_has_a_moment_to_let_go_and_then_as_long_for_its_hooks() -> None:
    plane, name = plane_with_one_container()
    plane.handle(e.ContainerReady(name), 1.0)
    (grant,) = [one for one in submit(plane, "fc-1", 2.0) if isinstance(one, c.Grant)]
    removed = plane.handle(e.FunctionRemoved("f"), 3.0)
    assert [one for one in removed if isinstance(one, c.Drain | c.Kill)] == [c.Drain(name, "its app is stopped")]
    assert plane.deadline() == 3.0 + CANCEL_GRACE_SECONDS
    answer = plane.handle(e.FailureReceived(name, grant.range, 0, 1.0, 0.0, "cancelled", fatal=True), 4.0)
    assert [one.kind for one in answer if isinstance(one, c.Fail)] == ["cancelled"]
    assert plane.wake(3.0 + CANCEL_GRACE_SECONDS) == []
    assert plane.deadline() == 4.0 + EXIT_GRACE_SECONDS
    plane.handle(e.ContainerExited(name, "exited"), 5.0)
    assert plane.deadline() is None


def test_one_that_does_not_let_go_is_killed() -> None:
    plane, name = plane_with_one_container()
    plane.handle(e.ContainerReady(name), 1.0)
    submit(plane, "fc-1", 2.0)
    plane.handle(e.FunctionRemoved("f"), 3.0)
    assert [type(one) for one in plane.wake(3.0 + CANCEL_GRACE_SECONDS)] == [c.Kill]
    ended = plane.handle(e.ContainerExited(name, "killed"), 6.0)
    assert [one.kind for one in ended if isinstance(one, c.Fail)] == ["cancelled"]


def test_settings_are_set_reset_or_kept() -> None:
    plane, _ = plane_with_one_container()
    plane.handle(e.SettingsUpdated("f", SettingsUpdate(max_containers=4, buffer_containers=2)), 1.0)
    plane.handle(e.SettingsUpdated("f", SettingsUpdate(buffer_containers=None)), 2.0)
    now = plane.statistics("f")
    assert now is not None
    assert now.settings == AutoscalerSettings(min_containers=1, max_containers=4)


def test_memory_that_becomes_free_is_for_whoever_waits_for_it() -> None:
    plane = Plane(memory_available=1 << 40)
    plane.handle(e.FunctionDeclared("big", FunctionSpec(settings=AutoscalerSettings(min_containers=3))), 0.0)
    plane.handle(e.UsageSampled("big", (), 64 << 20, 2.0, 0), 0.1)  # the machine is full
    small = FunctionSpec(settings=AutoscalerSettings(min_containers=2))
    assert len([one for one in plane.handle(e.FunctionDeclared("f", small), 0.2) if isinstance(one, c.Start)]) == 1
    removed = plane.handle(e.FunctionRemoved("big"), 0.3)
    freed = plane.handle(
        e.ContainerExited(next(one.container for one in removed if isinstance(one, c.Kill)), "killed"), 1.0
    )
    assert [one.function for one in freed if isinstance(one, c.Start)] == ["f"]
