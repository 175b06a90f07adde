"""What is remembered of which call made which: the last ones, and no more than has room."""

import pytest

from upswell.server import graph
from upswell.server.graph import CallGraph

from .stage import record


def test_the_last_calls_are_remembered_as_far_as_their_inputs_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_CALLS", 4)
    monkeypatch.setattr(graph, "MAX_REMEMBERED", 100)
    calls = CallGraph()

    def made(call: str, inputs: int) -> None:
        calls.begun(call, record("f"), "", "")
        calls.submitted(call, 0, inputs)

    def known() -> list[str]:
        return [f"fc-{number}" for number in range(9) if calls.inputs(f"fc-{number}") is not None]

    for number in range(3):
        made(f"fc-{number}", 40)
    assert known() == ["fc-1", "fc-2"]
    for number in range(3, 7):
        made(f"fc-{number}", 1)
    assert known() == ["fc-3", "fc-4", "fc-5", "fc-6"]
    made("fc-7", 500)
    assert known() == ["fc-7"], "the latest has room whatever it is"
    calls.submitted("fc-3", 1, 1)
    calls.settled("fc-3", 0, 1, None)
    made("fc-8", 1)
    assert known() == ["fc-8"]


def test_of_a_call_without_end_the_first_inputs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_REMEMBERED", 5)
    calls = CallGraph()
    calls.begun("fc-1", record("f"), "", "in-0-0")
    for first in range(0, 20, 2):
        calls.submitted("fc-1", first, 2)
        calls.granted("fc-1", first, first + 2, f"co-{first}")
        calls.settled("fc-1", first, 2, None if first else "timeout")
    inputs = calls.inputs("fc-1")
    assert inputs is not None
    assert [(one.container, one.state) for one in inputs] == [
        ("co-0", "timed out"),
        ("co-0", "timed out"),
        ("co-2", "succeeded"),
        ("co-2", "succeeded"),
        ("co-4", "succeeded"),
    ]
