"""What the core makes of events that come late, twice, or from nowhere: nothing, or a refusal that says why."""

import pytest

from upswell.capacity import Capacity, Size
from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import AT_LEISURE_SECONDS, Plane
from upswell.spec import DEFAULT_SCALEDOWN_SECONDS, AutoscalerSettings, FunctionSpec, Gpu, Limits, Resources


def submitted(call: str, function: str = "f", count: int = 1) -> e.InputsSubmitted:
    return e.InputsSubmitted(call, function, "map", 0, count, True, "ann")


def running(inputs: int = 3) -> tuple[Plane, str, int]:
    """A plane whose only container runs the first of the inputs of call `a`."""
    plane = Plane(cores=1.0)
    plane.handle(e.FunctionDeclared("f", FunctionSpec()), 0.0)
    (start,) = [made for made in plane.handle(submitted("a", count=inputs), 0.0) if isinstance(made, c.Start)]
    answer = plane.handle(e.ContainerReady(start.container), 0.1)
    (grant,) = [made for made in answer if isinstance(made, c.Grant)]
    return plane, start.container, grant.range


def grants(commands: list[c.Command]) -> list[c.Grant]:
    return [made for made in commands if isinstance(made, c.Grant)]


def test_events_about_nobody_change_nothing() -> None:
    plane, container, number = running()
    before = plane.statistics("f")
    for event in (
        e.ContainerReady("co-unknown"),
        e.ContainerReady(container),
        e.StartFailed("co-unknown", "no such module"),
        e.ContainerExited("co-unknown", "exited with status 1"),
        e.ResultsReceived("co-unknown", number, 0, 1, 0.1, 0.1),
        e.ResultsReceived(container, 999, 0, 1, 0.1, 0.1),
        e.ResultsReceived(container, number, 1, 1, 0.1, 0.1),  # not its next
        e.ResultsReceived(container, number, 0, 9, 0.1, 0.1),  # more than it holds
        e.FailureReceived(container, number, 2, 0.1, 0.1, "user"),
        e.RangeReturned(container, 999, 0),
        e.RangeReturned(container, number, 1 << 62),
        e.InputSuspended(container, 999),
        e.InputsEnded("fc-unknown", 1),
        e.CallCancelled("fc-unknown"),
        e.OwnerLeft("nobody"),
        e.FunctionRemoved("unknown"),
        e.UsageSampled("unknown", (), None, 1.0, 1 << 30),
    ):
        assert plane.handle(event, 0.1) == [], event
        assert plane.statistics("f") == before, event


def test_an_answer_counts_once() -> None:
    plane, container, number = running(inputs=100)
    once = e.ResultsReceived(container, number, 0, 1, 0.0001, 0.0)
    answer = plane.handle(once, 0.1)
    grant = next(made for made in answer if isinstance(made, c.Grant))
    assert c.Deliver("a", 0, 1) in answer and grant.stop - grant.start > 3
    assert plane.handle(once, 0.1) == []
    some = e.ResultsReceived(container, grant.range, grant.start, 2, 0.0002, 0.0)
    assert c.Deliver("a", grant.start, 2) in plane.handle(some, 0.1)
    assert plane.handle(some, 0.1) == []


def test_outcomes_and_grants_come_before_the_rest() -> None:
    plane, container, number = running(inputs=1)
    hurried = plane.take(e.ResultsReceived(container, number, 0, 1, 0.1, 0.0), 0.2)
    assert c.Deliver("a", 0, 1) in hurried
    granted = plane.take(submitted("b", count=4), 0.2)
    assert [type(made) for made in granted] == [c.Accept, c.Grant]
    rest = plane.settle(0.2)
    assert any(isinstance(made, c.Start) for made in rest)  # three wait, and no container has room
    assert not any(isinstance(made, c.Start) for made in hurried)
    assert plane.settle(0.2) == []


def test_an_outcome_comes_before_what_follows_from_it() -> None:
    plane, container, number = running(inputs=1)
    assert plane.answer(e.ResultsReceived(container, number, 0, 1, 0.1, 0.0), 0.2) == [c.Deliver("a", 0, 1)]
    assert plane.statistics("f").succeeded == 0  # type: ignore[union-attr]
    assert [type(made) for made in plane.follow(0.2)] == [c.ForgetSegment, c.FinishCall]
    assert plane.statistics("f").succeeded == 1  # type: ignore[union-attr]
    assert plane.follow(0.2) == []


def test_what_is_not_pressing_is_settled_a_moment_later() -> None:
    plane, container, number = running(inputs=1)
    plane.handle(e.ResultsReceived(container, number, 0, 1, 0.0001, 0.0), 0.2)
    granted = next(made for made in plane.take(submitted("b"), 0.3) if isinstance(made, c.Grant))
    assert plane.deadline() == 0.3 + AT_LEISURE_SECONDS  # it has all that there is
    plane.take(e.ResultsReceived(container, granted.range, 0, 1, 0.0001, 0.0), 0.3001)
    assert plane.deadline() == 0.3 + AT_LEISURE_SECONDS
    assert plane.wake(0.301) == [] and plane.deadline() == 0.3 + AT_LEISURE_SECONDS
    plane.wake(0.3 + AT_LEISURE_SECONDS)
    assert plane.deadline() == pytest.approx(0.3001 + DEFAULT_SCALEDOWN_SECONDS)  # of the last container


def test_what_waits_is_pressing() -> None:
    plane, container, number = running(inputs=1)
    plane.handle(e.ResultsReceived(container, number, 0, 1, 0.1, 0.0), 0.2)
    plane.take(submitted("b", count=2), 0.3)
    assert plane.deadline() == 0.3


def test_what_an_idle_container_can_take_over_is_pressing() -> None:
    plane = Plane(cores=2.0)
    plane.handle(e.FunctionDeclared("f", FunctionSpec(settings=AutoscalerSettings(min_containers=2))), 0.0)
    for container in ("co-1", "co-2"):
        plane.handle(e.ContainerReady(container), 0.1)
    made = plane.handle(submitted("a"), 0.1)
    made = plane.handle(e.ResultsReceived(grants(made)[0].container, grants(made)[0].range, 0, 1, 0.01, 0.0), 0.2)
    granted = grants(plane.handle(submitted("b", count=10), 0.3))
    assert sum(one.stop - one.start for one in granted) == 10
    plane.wake(0.349)
    assert (plane.deadline() or 0.0) > 0.35
    for one in granted:
        if one.container == "co-1":
            made = plane.take(e.ResultsReceived("co-1", one.range, one.start, one.stop - one.start, 0.01, 0.0), 0.35)
    assert plane.deadline() == 0.35 and any(isinstance(made, c.TakeBack) for made in plane.wake(0.35))


GONE = "its app is stopped, never ran, or has it no more"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (submitted("b", "unknown"), f"there is no function unknown: {GONE}"),
        (submitted("b", "ap-1/clean@5"), f"there is no function clean@5: {GONE}"),
        (submitted("a", "g"), "the call a is one of f, not of g"),
        (submitted("b", "huge"), "huge asks for cpu=8, and this machine has 1 cpus, 1024 MiB: ask for less"),
    ],
)
def test_refusals_say_why(event: e.InputsSubmitted, reason: str) -> None:
    plane, _, _ = running()
    plane.handle(e.FunctionDeclared("g", FunctionSpec()), 0.2)
    plane.handle(e.FunctionDeclared("huge", FunctionSpec(resources=Resources(cpu=8))), 0.2)
    assert plane.handle(event, 0.2) == [c.Refuse(event.call, 0, 1, reason, missing=True)]


def spawned(call: str, function: str = "f", *, accepted: bool = False) -> e.InputsSubmitted:
    return e.InputsSubmitted(call, function, "spawn", 0, 1, True, accepted=accepted)


def test_what_was_accepted_is_not_refused_for_a_limit() -> None:
    plane = Plane(Limits(spawned_pending=2), cores=2.0)
    plane.handle(e.FunctionDeclared("f", FunctionSpec()), 0.0)
    assert (plane.room_for_spawned("f"), plane.room_for_spawned("unknown")) == (2, 0)
    for call in ("a", "b"):
        plane.handle(spawned(call), 0.0)
    assert isinstance(plane.handle(spawned("c"), 0.0)[0], c.Refuse)
    assert plane.handle(spawned("d", accepted=True), 0.0)[0] == c.Accept("d", 0, 1)
    assert plane.room_for_spawned("f") == -1


def test_what_was_accepted_waits_for_a_node_that_holds_it() -> None:
    plane = Plane(cores=2.0)
    plane.handle(e.FunctionDeclared("huge", FunctionSpec(resources=Resources(cpu=8))), 0.0)
    assert isinstance(plane.handle(spawned("a", "huge"), 0.0)[0], c.Refuse)
    assert plane.handle(spawned("b", "huge", accepted=True), 0.0)[0] == c.Accept("b", 0, 1)
    made = plane.handle(e.NodesChanged(Capacity(8.0, 1 << 40)), 0.1)
    assert [command.function for command in made if isinstance(command, c.Start)] == ["huge"]


def test_what_was_accepted_fails_where_nobody_runs_it() -> None:
    plane = Plane()
    assert plane.handle(spawned("a", "ap-1/gone", accepted=True), 0.0) == [
        c.Accept("a", 0, 1),
        c.Fail("a", 0, 1, "cancelled", "there is no function gone any more", 1),
        c.ForgetSegment("a", 0, ()),
        c.FinishCall("a"),
    ]


def test_statistics() -> None:
    plane, _, _ = running()
    now = plane.statistics("f")
    assert now is not None and plane.statistics("unknown") is None
    assert (now.backlog, now.pending, now.running, now.headroom, now.containers) == (2, 2, 1, 0, 1)


def test_nodes_that_come_are_room_for_who_waits() -> None:
    plane = Plane(cores=1.0)
    spec = FunctionSpec(resources=Resources(cpu=1, gpus=(Gpu("T4", 2), Gpu("A10G"))))
    none, small = Capacity(0.0, 0, gpus={}, sizes=(Size(0.0, 0),)), Size(2.0, 1 << 33, {"": 1, "A10G": 1})
    assert plane.handle(e.NodesChanged(none), 0.0) == []
    plane.handle(e.FunctionDeclared("f", spec), 0.0)
    (refused,) = plane.handle(submitted("a"), 0.1)
    assert isinstance(refused, c.Refuse)
    asked = "f asks for cpu=1, gpu=T4:2 or A10G"
    assert refused.reason == f"{asked}, and the largest nodes have 0 cpus, 0 MiB: ask for less"
    plane.handle(e.NodesChanged(Capacity(2.0, 1 << 33, gpus={"": 1, "A10G": 1}, sizes=(small,))), 0.2)
    (started,) = (made for made in plane.handle(submitted("b", "f", 2), 0.3) if isinstance(made, c.Start))
    assert started.gpus == (Gpu("A10G"),), "there is one, and no T4"
    assert plane.handle(e.ContainerReady("co-1"), 0.4)
    more = Capacity(4.0, 1 << 34, gpus={"": 3, "A10G": 1, "T4": 2}, sizes=(small, Size(2.0, 1 << 33, {"": 2, "T4": 2})))
    (started,) = (made for made in plane.handle(e.NodesChanged(more), 3.0) if isinstance(made, c.Start))
    assert started.gpus == (Gpu("T4", 2),)
