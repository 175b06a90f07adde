"""What a deploy changes of a function that is known, and what stays as it is."""

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.spec import AutoscalerSettings, Concurrency, FunctionSpec, Retries, SettingsUpdate, Strategy

from .player import of

PLAIN = FunctionSpec()


def declared(version: int, spec: FunctionSpec = PLAIN, strategy: Strategy = "rolling") -> e.FunctionDeclared:
    return e.FunctionDeclared("f", spec, False, version, strategy)


def running(inputs: int = 1, spec: FunctionSpec = PLAIN) -> tuple[Plane, list[c.Grant]]:
    """A plane whose containers run one input each of call `a`, of version 1."""
    plane = Plane(cores=8.0, memory_available=1 << 40)
    plane.handle(declared(1, spec), 0.0)
    answer = plane.handle(e.InputsSubmitted("a", "f", "map", 0, inputs, True), 0.0)
    grants = []
    for start in of(answer, c.Start):
        grants += of(plane.handle(e.ContainerReady(start.container), 0.1), c.Grant)
    assert len(grants) == inputs
    return plane, grants


def test_what_was_laid_over_the_settings_is_gone() -> None:
    plane, _ = running()
    plane.handle(e.SettingsUpdated("f", SettingsUpdate(min_containers=3)), 0.2)
    plane.handle(declared(2, FunctionSpec(settings=AutoscalerSettings(max_containers=4))), 0.3)
    known = plane.statistics("f")
    assert known is not None and (known.settings.floor, known.settings.ceiling) == (0, 4)


def test_calls_statistics_and_estimates_go_on() -> None:
    plane, grants = running(2)
    plane.handle(e.ResultsReceived(grants[0].container, grants[0].range, 0, 1, 0.1, 0.0), 0.2)
    learned = plane._pools["f"].estimates
    plane.handle(declared(2), 0.3)
    assert plane._pools["f"].estimates is learned and learned.finished == 1
    answer = plane.handle(e.ResultsReceived(grants[1].container, grants[1].range, 1, 1, 0.1, 0.0), 0.4)
    assert c.Deliver("a", 1, 1) in answer and c.FinishCall("a") in answer
    known = plane.statistics("f")
    assert known is not None and known.succeeded == 2


def test_the_same_version_outdates_nobody() -> None:
    plane, grants = running()
    answer = plane.handle(declared(1, FunctionSpec(settings=AutoscalerSettings(min_containers=1))), 0.2)
    assert not of(answer, c.Start) and not of(answer, c.Retire)
    plane.handle(e.ResultsReceived(grants[0].container, grants[0].range, 0, 1, 0.1, 0.0), 0.3)
    again = plane.handle(e.InputsSubmitted("b", "f", "remote", 0, 1, True), 0.4)
    assert [grant.container for grant in of(again, c.Grant)] == [grants[0].container]


def test_retries_are_those_of_the_present_version() -> None:
    plane, (grant,) = running(spec=FunctionSpec(retries=Retries(max_retries=3)))
    plane.handle(declared(2, FunctionSpec()), 0.2)
    answer = plane.handle(e.FailureReceived(grant.container, grant.range, 0, 0.1, 0.0, "user"), 0.3)
    assert [(fail.kind, fail.attempts) for fail in of(answer, c.Fail)] == [("user", 1)]


def test_a_container_keeps_the_timeout_it_was_started_with() -> None:
    plane, (grant,) = running(spec=FunctionSpec(timeout=10))
    plane.handle(declared(2, FunctionSpec(timeout=3000)), 0.2)
    killed: list[c.Command] = []
    while (moment := plane.deadline()) is not None and moment < 100:
        killed += of(plane.wake(moment), c.Kill)
    assert grant.container in [kill.container for kill in of(killed, c.Kill)]


def test_what_runs_in_those_that_retire_is_running() -> None:
    plane, grants = running()
    answer = plane.handle(declared(2, FunctionSpec(), "recreate"), 0.2)
    assert [command.container for command in of(answer, c.Retire)] == [grants[0].container]
    known = plane.statistics("f")
    assert known is not None and (known.running, known.containers) == (1, 0)
    ended = plane.handle(e.ResultsReceived(grants[0].container, grants[0].range, 0, 1, 0.1, 0.0), 0.3)
    assert [drain.container for drain in of(ended, c.Drain)] == [grants[0].container]


def test_the_version_that_is_being_rolled_out_can_be_wanted_at_once() -> None:
    plane, grants = running()
    assert not of(plane.handle(declared(2), 0.2), c.Retire)
    answer = plane.handle(declared(2, FunctionSpec(), "recreate"), 0.3)
    assert [command.container for command in of(answer, c.Retire)] == [grants[0].container]


def test_of_a_batch_that_runs_in_one_that_retires_nothing_is_taken_back() -> None:
    plane = Plane(memory_available=1 << 40)
    plane.handle(declared(1, FunctionSpec(concurrency=Concurrency(batch_size=4))), 0.0)
    plane.handle(e.InputsSubmitted("a", "f", "map", 0, 4, True), 0.0)
    (name,) = plane._containers
    (grant,) = of(plane.handle(e.ContainerReady(name), 0.1), c.Grant)
    answer = plane.handle(declared(2, FunctionSpec(), "recreate"), 0.2)
    assert of(answer, c.Retire) and not of(answer, c.TakeBack)
    ended = plane.handle(e.ResultsReceived(name, grant.range, 0, 4, 0.1, 0.0), 0.3)
    assert c.Drain(name, "version 2 replaces version 1") in ended


def test_a_start_of_an_earlier_version_that_fails_is_not_held_against_the_new_one() -> None:
    plane = Plane(memory_available=1 << 40)
    plane.handle(declared(1), 0.0)
    (first,) = of(plane.handle(e.InputsSubmitted("a", "f", "map", 0, 1, True), 0.0), c.Start)
    answer = plane.handle(declared(2), 0.1)
    assert [kill.container for kill in of(answer, c.Kill)] == [first.container] and len(of(answer, c.Start)) == 1
    plane.handle(e.StartFailed(first.container, "ImportError"), 0.1)
    plane.handle(e.ContainerExited(first.container, "exited with status 1"), 0.1)
    second = of(answer, c.Start)[0].container
    assert of(plane.handle(e.ContainerReady(second), 0.2), c.Grant)


def test_enough_of_the_new_version_replace_the_old_though_one_of_them_could_not_start() -> None:
    plane, grants = running()
    old = grants[0].container
    starts = of(plane.handle(declared(2, FunctionSpec(settings=AutoscalerSettings(min_containers=2))), 0.2), c.Start)
    assert len(starts) == 2, "one of two that are needed is there, and one more is to take its place"
    plane.handle(e.ContainerReady(starts[0].container), 0.3)
    assert not of(plane.handle(e.StartFailed(starts[1].container, "no"), 0.4), c.Retire)
    answer = plane.handle(e.ContainerExited(starts[1].container, "exited with status 1"), 0.5)
    answer += plane.handle(e.ResultsReceived(old, grants[0].range, 0, 1, 0.1, 0.0), 0.6)
    assert not of(answer, c.Drain), "two are needed"
    answer = plane.handle(e.SettingsUpdated("f", SettingsUpdate(min_containers=1)), 0.7)
    assert [command.container for command in of(answer, c.Drain)] == [old]


def test_while_the_new_version_can_not_start_the_old_ones_stay_though_fewer_are_needed() -> None:
    plane, grants = running(2)
    (start,) = of(plane.handle(declared(2, FunctionSpec(settings=AutoscalerSettings(min_containers=2))), 0.2), c.Start)
    plane.handle(e.StartFailed(start.container, "no"), 0.3)
    plane.handle(e.ContainerExited(start.container, "exited with status 1"), 0.4)
    for grant in grants:
        plane.handle(e.ResultsReceived(grant.container, grant.range, grant.start, 1, 0.1, 0.0), 0.5)
    answer = plane.handle(e.SettingsUpdated("f", SettingsUpdate(min_containers=1)), 0.6)
    assert not of(answer, c.Drain) and not of(answer, c.Retire)
