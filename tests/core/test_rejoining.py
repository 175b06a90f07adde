"""Containers that outlive the server, or their connection to it, go on with what is still to be done."""

from typing import Any

import pytest

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.core.snapshot import SavedCall, SavedSegment
from upswell.spec import AutoscalerSettings, Concurrency, FunctionSpec, Retries

from .player import of

ONE = FunctionSpec(settings=AutoscalerSettings(max_containers=1))


def left(*unsettled: tuple[int, int], call: str = "a", kind: Any = "spawn", cancelled: bool = False) -> e.CallRestored:
    """What is left of a call of one segment of ten inputs."""
    return e.CallRestored(SavedCall(call, "f", kind, 10, 10, cancelled, (SavedSegment(0, 10, unsettled),)))


def back(*ranges: e.HeldRange, container: str = "co-1", version: int = 1, **more: Any) -> e.ContainerRejoined:
    return e.ContainerRejoined(container, "f", version, ranges, **more)


def recovered(*events: Any, spec: FunctionSpec = ONE, version: int = 1) -> tuple[Plane, list[c.Command]]:
    """The next server, which has numbered on."""
    plane = Plane(cores=2.0, memory_available=1 << 40, first_id=100)
    declared = e.FunctionDeclared("f", spec, False, version)
    return plane, plane.handle(e.Recovered((declared, *events)), 0.0)


def test_what_a_container_holds_is_its_own_again() -> None:
    plane, commands = recovered(left((3, 10)), back(e.HeldRange(7, "a", 0, 3, 6)))
    assert not of(commands, c.Start) and not of(commands, c.Grant)
    answer = plane.handle(e.ResultsReceived("co-1", 7, 3, 3, 0.3, 0.0), 0.3)
    assert c.Deliver("a", 3, 3) in answer
    grants = of(answer, c.Grant)
    assert (grants[0].container, grants[0].start) == ("co-1", 6)
    assert all(grant.range >= 100 for grant in grants)


def test_nothing_is_granted_before_all_are_back() -> None:
    idle, busy = back(container="co-1"), back(e.HeldRange(7, "a", 0, 0, 10), container="co-2")
    _, commands = recovered(left((0, 10)), idle, busy, spec=FunctionSpec())
    assert not of(commands, c.Grant)


def test_results_that_are_kept_already_are_not_delivered_again() -> None:
    plane, _ = recovered(left((5, 10)), back(e.HeldRange(7, "a", 0, 3, 10)))
    assert not of(plane.handle(e.ResultsReceived("co-1", 7, 3, 2, 0.2, 0.0), 0.1), c.Deliver)
    assert of(plane.handle(e.ResultsReceived("co-1", 7, 5, 5, 0.5, 0.0), 0.2), c.Deliver) == [c.Deliver("a", 5, 5)]


def test_results_that_are_kept_in_part_are_given_up() -> None:
    plane, _ = recovered(left((5, 10)), back(e.HeldRange(7, "a", 0, 3, 10)))
    answer = plane.handle(e.ResultsReceived("co-1", 7, 3, 7, 0.7, 0.0), 0.1)
    assert not of(answer, c.Deliver) and c.CancelRange("co-1", 7) in answer
    assert of(answer, c.Grant)[0].start == 5


@pytest.mark.parametrize(
    "restored",
    [
        pytest.param(left((0, 3)), id="settled"),
        pytest.param(left((0, 4), (5, 10)), id="settled in between"),
        pytest.param(left((3, 10), cancelled=True), id="cancelled"),
        pytest.param(left((0, 10), call="b"), id="of an unknown call"),
    ],
)
def test_what_is_not_its_own_any_more_is_cancelled(restored: e.CallRestored) -> None:
    _, commands = recovered(restored, back(e.HeldRange(7, "a", 0, 3, 6)))
    assert of(commands, c.CancelRange) == [c.CancelRange("co-1", 7)]


def test_who_is_late_finds_it_granted_to_somebody_else() -> None:
    plane, commands = recovered(left((0, 2)), spec=FunctionSpec())
    for start in of(commands, c.Start):
        plane.handle(e.ContainerReady(start.container), 0.1)
    answer = plane.handle(back(e.HeldRange(7, "a", 0, 0, 2)), 0.2)
    assert of(answer, c.CancelRange) == [c.CancelRange("co-1", 7)]
    known = plane.statistics("f")
    assert known is not None and (known.ready, known.running) == (3, 2)


@pytest.mark.parametrize("failed", [False, True])
def test_who_is_late_is_not_believed_for_a_part(failed: bool) -> None:
    """The first of its inputs is in another container, or waits for its next attempt; the others are free."""
    patient = FunctionSpec(
        settings=AutoscalerSettings(max_containers=1), retries=Retries(max_retries=1, initial_delay=60.0)
    )
    plane, commands = recovered(left((0, 10)), spec=patient)
    (start,) = of(commands, c.Start)
    (grant,) = of(plane.handle(e.ContainerReady(start.container), 0.1), c.Grant)
    if failed:
        plane.handle(e.FailureReceived(start.container, grant.range, 0, 0.1, 0.0, "user"), 0.2)
    answer = plane.handle(back(e.HeldRange(7, "a", 0, 0, 3)), 0.3)
    assert of(answer, c.CancelRange) == [c.CancelRange("co-1", 7)]


def test_a_function_that_is_gone_has_no_containers() -> None:
    plane = Plane(first_id=100)
    (kill,) = plane.handle(back(), 0.0)
    assert kill == c.Kill("co-1", "there is no function f any more")
    assert plane.handle(e.ContainerExited("co-1", "killed"), 0.1) == []


def test_an_outdated_one_goes_on_by_its_own_declaration_and_is_replaced() -> None:
    before = FunctionSpec(concurrency=Concurrency(max_inputs=2, target_inputs=2))
    held = [e.HeldRange(number, "a", 0, number, number + 1) for number in (0, 1)]
    plane, commands = recovered(left((0, 2)), back(*held, spec=before), spec=FunctionSpec(), version=2)
    known = plane.statistics("f")
    assert known is not None and known.running == 2
    first, second = (start.container for start in of(commands, c.Start))
    assert not of(plane.handle(e.ContainerReady(first), 0.1), c.Retire)
    answer = plane.handle(e.ContainerReady(second), 0.1)
    assert [command.container for command in of(answer, c.Retire)] == ["co-1"]


def test_a_suspended_input_and_a_batch_are_told_as_they_are() -> None:
    batches = FunctionSpec(
        settings=AutoscalerSettings(max_containers=1), concurrency=Concurrency(batch_size=4, batch_wait_ms=10_000)
    )
    held = [
        e.HeldRange(8, "a", 0, 0, 2, batch=7, suspended=True),
        e.HeldRange(9, "a", 0, 2, 4, batch=7, suspended=True),
    ]
    plane, commands = recovered(left((0, 10)), back(*held), spec=batches)
    (grant,) = of(commands, c.Grant)  # its place is lent
    assert (grant.start, grant.stop) == (4, 8)
    lost = plane.handle(e.ContainerExited("co-1", "killed by signal 9"), 1.0)
    assert sorted(command.position for command in of(lost, c.RememberAttempts)) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_what_a_generator_has_yielded_is_not_yielded_again() -> None:
    restored = e.CallRestored(
        SavedCall("g", "f", "generator", 1, 1, False, (SavedSegment(0, 1, ((0, 1),)),), owner="o")
    )
    plane, _ = recovered(restored, back(e.HeldRange(7, "g", 0, 0, 1, chunks=5)))
    assert plane.handle(e.ChunksReceived("co-1", 7, 4, 1), 0.1) == []
    assert c.Forward("g", 5, 2) in plane.handle(e.ChunksReceived("co-1", 7, 5, 2), 0.1)


def connected() -> tuple[Plane, c.Grant]:
    """A server that has granted six inputs to a container, and heard of two."""
    plane, commands = recovered(left((0, 10)))
    (start,) = of(commands, c.Start)
    (grant,) = of(plane.handle(e.ContainerReady(start.container), 0.1), c.Grant)
    answer = plane.handle(e.ResultsReceived(grant.container, grant.range, 0, 1, 0.0001, 0.0), 0.2)
    return plane, of(answer, c.Grant)[0]


@pytest.mark.parametrize(("lost", "kept"), [(0, True), (2, True), (2, False)])
def test_what_was_lost_with_a_connection_waits_again(lost: int, kept: bool) -> None:
    plane, grant = connected()
    told = [e.HeldRange(grant.range, "a", 0, grant.start + lost, grant.stop)] if kept else []
    answer = plane.handle(back(*told, container=grant.container), 0.3)
    assert not of(answer, c.CancelRange) and not of(answer, c.Start)
    delivered, ranges = 1, dict[int, tuple[int, int]]()
    if kept:
        ranges[grant.range] = (grant.start + lost, grant.stop)
    for _ in range(100):
        ranges |= {made.range: (made.start, made.stop) for made in of(answer, c.Grant)}
        if not ranges:
            break
        number, (start, stop) = next(iter(ranges.items()))
        del ranges[number]
        answer = plane.handle(e.ResultsReceived(grant.container, number, start, stop - start, 0.0001, 0.0), 0.4)
        delivered += sum(command.count for command in of(answer, c.Deliver))
    assert delivered == 10 and c.FinishCall("a") in answer


def test_who_was_told_to_exit_is_told_again() -> None:
    plane, grant = connected()
    plane.handle(e.FunctionRemoved("f"), 0.3)
    assert [type(one) for one in plane.handle(back(container=grant.container), 0.4)] == [c.Drain]
