"""Calls that go on in another plane."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.core.snapshot import SavedCall, SavedSegment, unsettled_spans
from upswell.spec import MAX_ATTEMPTS_LOST, FunctionSpec, Limits, Retries

SEGMENT = SavedSegment(10, 10, ((12, 15), (19, 20)))


def saved(
    *segments: SavedSegment,
    submitted: int = 20,
    total: int | None = 20,
    cancelled: bool = False,
    attempts: tuple[tuple[int, int, int], ...] = (),
) -> SavedCall:
    return SavedCall("fc-1", "f", "spawn", submitted, total, cancelled, segments, attempts)


def plane(spec: FunctionSpec | None = None, limits: Limits | None = None) -> Plane:
    made = Plane(limits or Limits(), first_id=1000)
    made.handle(e.FunctionDeclared("f", spec or FunctionSpec(), ephemeral=False), 0.0)
    return made


def restored(made: Plane, call: SavedCall) -> list[c.Command]:
    return made.handle(e.CallRestored(call), 0.0)


def begun(made: Plane, commands: list[c.Command]) -> tuple[str, c.Grant]:
    """The first container starts and is granted something."""
    (container,) = [command.container for command in commands if isinstance(command, c.Start)][:1]
    granted = made.handle(e.ContainerReady(container), 0.1)
    return container, next(command for command in granted if isinstance(command, c.Grant))


def test_only_what_has_no_outcome_waits() -> None:
    made = plane()
    commands = restored(made, saved(SEGMENT))
    statistics = made.statistics("f")
    assert statistics is not None
    assert statistics.backlog == 4
    container, grant = begun(made, commands)
    assert container == "co-1000", "ids of an earlier life are not given out again"
    assert (grant.call, grant.first, grant.count, grant.start, grant.stop) == ("fc-1", 10, 10, 12, 13)


def test_it_comes_to_its_end() -> None:
    made = plane()
    container, grant = begun(made, restored(made, saved(SavedSegment(10, 10, ((19, 20),)))))
    done = made.handle(e.ResultsReceived(container, grant.range, 19, 1, 0.01, 0.01), 0.2)
    assert c.ForgetSegment("fc-1", 10, (container,)) in done
    assert c.FinishCall("fc-1") in done


def test_more_inputs_of_it_may_come() -> None:
    made = plane()
    restored(made, saved(SEGMENT, total=None))
    accepted = made.handle(e.InputsSubmitted("fc-1", "f", "spawn", 20, 5, True), 0.1)
    assert c.Accept("fc-1", 20, 5) in accepted


def test_what_was_settled_just_before_the_end_is_forgotten_now() -> None:
    commands = restored(plane(), saved(SavedSegment(0, 20, ())))
    assert commands == [c.ForgetSegment("fc-1", 0, ()), c.FinishCall("fc-1")]


def test_no_limit_refuses_what_was_accepted() -> None:
    made = plane(limits=Limits(spawned_pending=2))
    restored(made, saved(SEGMENT))
    statistics = made.statistics("f")
    assert statistics is not None
    assert statistics.backlog == 4


def test_a_cancelled_call_ends() -> None:
    commands = restored(plane(), saved(SEGMENT, total=None, cancelled=True))
    fails = [(command.start, command.count, command.kind) for command in commands if isinstance(command, c.Fail)]
    assert fails == [(12, 3, "cancelled"), (19, 1, "cancelled")]
    assert commands[-1] == c.FinishCall("fc-1")


def test_a_call_whose_function_is_gone_ends_and_says_why() -> None:
    commands = restored(Plane(), saved(SEGMENT, total=None))
    fails = [command for command in commands if isinstance(command, c.Fail)]
    assert [fail.start for fail in fails] == [12, 19]
    assert all("there is no function f any more" in fail.reason for fail in fails)
    assert [command for command in commands if isinstance(command, c.FinishCall)] == [c.FinishCall("fc-1")]


def test_attempts_count_over_restarts() -> None:
    made = plane(FunctionSpec(retries=Retries(max_retries=2)))
    container, grant = begun(made, restored(made, saved(SEGMENT, attempts=((12, 2, 1),))))
    failed = made.handle(e.FailureReceived(container, grant.range, 12, 0.01, 0.01, "user"), 0.2)
    assert c.Fail("fc-1", 12, 1, "user", "user", 4) in failed


def test_attempts_of_spawned_calls_are_told() -> None:
    made = plane(FunctionSpec(retries=Retries(max_retries=2)))
    container, grant = begun(made, restored(made, saved(SEGMENT)))
    failed = made.handle(e.FailureReceived(container, grant.range, 12, 0.01, 0.01, "user"), 0.2)
    assert c.RememberAttempts("fc-1", 12, 1, 0) in failed
    lost = made.handle(e.ContainerExited(container, "killed"), 0.3)
    told = [command for command in lost if isinstance(command, c.RememberAttempts)]
    assert [(command.failures, command.losses) for command in told] == [(0, 1)]
    assert MAX_ATTEMPTS_LOST > 1


@given(st.sets(st.integers(0, 29)), st.integers(0, 10))
def test_spans_are_what_remains(settled: set[int], first: int) -> None:
    left = unsettled_spans(first, 30, [(first + position, 1) for position in sorted(settled)])
    covered = [position for start, stop in left for position in range(start, stop)]
    assert covered == [first + position for position in range(30) if position not in settled]
    assert all(before[1] < after[0] for before, after in pairwise(left))
