"""The queue of one function: turns, the order of what comes back, and limits."""

import pytest

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.model import Call, Container, Range, Span, State
from upswell.core.queue import Queue
from upswell.spec import FunctionSpec, Limits, Retries

LIMITS = Limits(pending=10, total=20, spawned_pending=12)


def submit(queue: Queue, call: str, count: int, kind: str = "map", first: int = 0) -> list[c.Command]:
    out: list[c.Command] = []
    queue.admit(e.InputsSubmitted(call, "f", kind, first, count, False), queue.waiting, 0.0, out)  # type: ignore[arg-type]
    return out


def taken(queue: Queue, size: int) -> str:
    span = queue.take(size)
    return f"{span.call.id} {span.start}:{span.stop}"


def put(queue: Queue, call: Call, start: int, stop: int, front: bool) -> None:
    queue.put(Span(call, call.segments[0], start, stop), front=front)


def test_calls_take_turns() -> None:
    queue = Queue("f", LIMITS)
    for call, count in (("a", 5), ("b", 1), ("c", 3)):
        submit(queue, call, count)
    assert [taken(queue, 2) for _ in range(5)] == ["a 0:2", "b 0:1", "c 0:2", "a 2:4", "c 2:3"]
    assert (taken(queue, 2), queue.waiting, len(queue.turns)) == ("a 4:5", 0, 0)


def test_a_range_is_of_one_segment() -> None:
    queue = Queue("f", LIMITS)
    submit(queue, "a", 2)
    submit(queue, "a", 2, first=2)
    assert [taken(queue, 9), taken(queue, 9)] == ["a 0:2", "a 2:4"]


def test_a_limit_names_the_function_and_not_its_id() -> None:
    queue = Queue("ap-1/clean", LIMITS)
    submit(queue, "a", 10)
    (refused,) = submit(queue, "b", 1)
    assert isinstance(refused, c.Refuse) and refused.reason.startswith("clean has 10 inputs pending")


def test_what_comes_back_goes_before_the_rest_of_its_call() -> None:
    queue = Queue("f", LIMITS)
    submit(queue, "a", 6)
    call = queue.take(2).call
    put(queue, call, 0, 2, front=True)
    assert [taken(queue, 9), taken(queue, 9)] == ["a 0:2", "a 2:6"]


@pytest.mark.parametrize(
    ("there", "kind", "count", "refused"),
    [
        ([], "map", 10, False),
        ([], "map", 11, False),  # larger than the limit, and alone
        ([("map", 10)], "map", 1, True),
        ([("map", 9)], "remote", 1, False),
        ([("map", 10)], "remote", 1, True),
        ([("map", 10)], "spawn", 12, False),  # spawned inputs have their own limit
        ([("spawn", 12)], "spawn", 1, True),
        ([("spawn", 12)], "map", 10, False),
        ([("spawn", 12), ("map", 10)], "map", 1, True),
    ],
)
def test_limits(there: list[tuple[str, int]], kind: str, count: int, refused: bool) -> None:
    queue = Queue("f", LIMITS)
    for number, (other, inputs) in enumerate(there):
        submit(queue, f"other {number}", inputs, other)
    (answer,) = submit(queue, "a", count, kind)
    assert isinstance(answer, c.Refuse if refused else c.Accept), answer


def test_attempts_are_forgotten_with_their_segment() -> None:
    queue, out = Queue("f", LIMITS), list[c.Command]()
    queue.retries = Retries(max_retries=1, initial_delay=0.0)
    container = Container("co-1", FunctionSpec(), State.READY, 0.0, 0.0)
    for first in range(100):  # a map without end, each input of which fails once
        submit(queue, "a", 1, first=first)
        for number, fails in enumerate((True, False)):
            span = queue.take(1)
            held = Range(2 * first + number, container, span.call, span.segment, first, first + 1, first, 0.0)
            if fails:
                queue.fail_attempt(held, first, "user", "no", 0.0, out)
                assert span.call.failures == {first: 1}
                queue.release_delayed(0.0)
            else:
                queue.delivered(held, first, 1, out)
    assert not queue.calls["a"].failures and not queue.calls["a"].segments


def test_a_gap_is_refused() -> None:
    queue = Queue("f", LIMITS)
    submit(queue, "a", 2)
    (answer,) = submit(queue, "a", 2, first=3)
    assert isinstance(answer, c.Refuse) and answer.missing
    (answer,) = submit(queue, "b", 2, first=1)
    assert isinstance(answer, c.Refuse) and answer.missing
