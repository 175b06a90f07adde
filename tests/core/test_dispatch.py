"""How much a container is handed at once, and what is taken back."""

import pytest

from upswell.core import dispatch


@pytest.mark.parametrize(
    ("waiting", "calls", "containers", "service_seconds", "finished", "size"),
    [
        (1000, 1, 2, None, 0, 1),  # nothing is known: one input tells
        (1000, 1, 2, 0.001, 100, 50),  # 50 ms of work
        (1000, 2, 2, 0.001, 100, 10),  # 10 ms where others wait, too
        (100_000, 1, 2, 0.000125, 1000, 400),
        (100_000, 1, 2, 0.00001, 3, 24),  # no more than eight times what has been measured
        (12, 1, 2, 0.001, 100, 3),  # near the end a fair share of half of what is left
        (12, 1, 2, 0.00001, 1000, 100),  # but not less than a millisecond of work
        (1, 1, 8, 0.001, 100, 1),
        (1000, 1, 2, 0.0105, 100, 4),
        (1000, 1, 2, 0.5, 100, 1),  # long inputs travel alone
        (1000, 1, 2, 0.0, 1, 8),
    ],
)
def test_the_size_of_a_range(
    waiting: int, calls: int, containers: int, service_seconds: float | None, finished: int, size: int
) -> None:
    assert dispatch.range_size(waiting, calls, containers, service_seconds, finished) == size


@pytest.mark.parametrize(
    ("held_inputs", "held_ranges", "calls", "service_seconds", "early"),
    [
        (1, 1, 1, None, False),
        (1, 1, 1, 0.001, True),
        (50, 1, 1, 0.001, True),  # the next one is there when this range ends
        (60, 2, 1, 0.001, False),  # enough to do
        (20, 1, 2, 0.001, False),  # others wait, too
        (1, 3, 1, 0.001, False),  # two may wait behind the one that runs
        (1, 1, 1, 0.2, False),  # long inputs gain nothing
    ],
)
def test_prefetch(held_inputs: int, held_ranges: int, calls: int, service_seconds: float | None, early: bool) -> None:
    assert dispatch.may_prefetch(held_inputs, held_ranges, calls, service_seconds) is early


@pytest.mark.parametrize(
    ("inputs", "service_seconds", "in_the_way"), [(9, None, False), (9, 0.001, False), (11, 0.001, True)]
)
def test_what_is_in_the_way_of_a_call_that_is_new(inputs: int, service_seconds: float | None, in_the_way: bool) -> None:
    assert dispatch.is_in_the_way(inputs, service_seconds) is in_the_way


@pytest.mark.parametrize(
    ("unstarted", "silent_seconds", "service_seconds", "worth"),
    [
        (1, 0.0, 0.001, False),  # it will be run before an answer comes
        (5, 0.0, 0.001, True),
        (1, 0.003, 0.001, True),  # behind a straggler
        (1, 0.003, None, True),
        (9, 0.0, None, False),
    ],
)
def test_taking_back(unstarted: int, silent_seconds: float, service_seconds: float | None, worth: bool) -> None:
    assert dispatch.worth_taking_back(unstarted, silent_seconds, service_seconds) is worth


@pytest.mark.parametrize(
    ("silent", "service", "straggles"), [(0.051, None, False), (0.053, None, True), (0.4, 0.1, False)]
)
def test_stragglers(silent: float, service: float | None, straggles: bool) -> None:
    assert dispatch.is_straggler(silent, service) is straggles
