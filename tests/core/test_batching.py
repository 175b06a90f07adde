"""When batches are formed, what is in them, and what becomes of their inputs."""

import pytest

from upswell.core import batching
from upswell.core import events as e
from upswell.spec import Concurrency, Retries

from .player import Player

BATCHES = Concurrency(batch_size=4, batch_wait_ms=100)


@pytest.mark.parametrize(
    ("waiting", "oldest_since", "due_at"),
    [(1, 10.0, 10.1), (3, 10.0, 10.1), (4, 10.0, 10.0), (9, 10.0, 10.0), (1, 0.0, 0.1)],
)
def test_a_batch_is_due_when_it_is_full_or_has_waited(waiting: int, oldest_since: float, due_at: float) -> None:
    assert batching.due_at(waiting, oldest_since, BATCHES) == due_at


def test_a_full_batch_leaves_at_once_and_a_part_of_one_after_the_wait() -> None:
    play = Player(BATCHES)
    play.now = 10.0
    assert play.submit("a", 6) == ["grant a 0..4 in a batch, 0 to come"]
    assert play.finishes(play.grants[-1]) == ["deliver a 0..4"]
    assert play.passes(0.099) == []
    assert play.passes(0.002) == ["grant a 4..6 in a batch, 0 to come"]


def test_calls_share_a_batch() -> None:
    play = Player(BATCHES)
    assert [play.submit(call, kind="remote") for call in ("a", "b", "c")] == [[], [], []]
    assert play.submit("d", kind="remote") == [
        "grant a 0..1 in a batch, 3 to come",
        "grant b 0..1 in a batch, 2 to come",
        "grant c 0..1 in a batch, 1 to come",
        "grant d 0..1 in a batch, 0 to come",
    ]
    assert len({grant.batch for grant in play.grants}) == 1


def test_the_wait_is_that_of_the_oldest_input_whichever_call_it_is_of() -> None:
    play = Player(BATCHES)
    play.submit("a", kind="remote")
    play.passes(0.06)
    play.submit("b", kind="remote")
    assert play.passes(0.03) == []
    assert len(play.passes(0.02)) == 2


def test_a_batch_takes_one_place_and_what_waits_for_it_grows() -> None:
    play = Player(BATCHES)
    play.submit("a", 4)
    assert play.submit("b", 2) == []
    assert play.passes(5.0) == [], "there is no place, so nothing is due, and nothing need be looked at"
    assert play.submit("c", 1) == []
    assert play.finishes(play.grants[0]) == [
        "deliver a 0..4",
        "grant b 0..2 in a batch, 1 to come",
        "grant c 0..1 in a batch, 0 to come",
    ]


def test_a_container_with_two_places_runs_two_batches() -> None:
    play = Player(Concurrency(max_inputs=2, target_inputs=2, batch_size=2, batch_wait_ms=100))
    assert len(play.submit("a", 8)) == 2
    assert len({grant.batch for grant in play.grants}) == 2
    statistics = play.plane.statistics("f")
    assert statistics is not None
    assert (statistics.running, statistics.pending, statistics.headroom) == (4, 4, 0)


def test_a_place_is_free_when_the_whole_batch_has_ended() -> None:
    play = Player(Concurrency(batch_size=2, batch_wait_ms=0))
    play.submit("a", kind="remote")
    play.submit("b", kind="remote")
    play.submit("c", kind="remote")
    play.finishes(play.grants[0])
    both = play.grants[1:]
    assert [grant.call for grant in both] == ["b", "c"]
    assert play.submit("d", kind="remote") == []
    assert play.finishes(both[0]) == ["deliver b 0..1"]
    assert play.finishes(both[1]) == ["deliver c 0..1", "grant d 0..1 in a batch, 0 to come"]


def test_ranges_of_a_batch_are_not_taken_back() -> None:
    play = Player(BATCHES, containers=2)
    assert play.submit("a", 4) == ["grant a 0..4 in a batch, 0 to come"]
    assert play.passes(20.0) == []


def test_a_container_that_dies_costs_every_input_of_the_batch_an_attempt() -> None:
    play = Player(BATCHES, containers=3)
    play.submit("a", 4)
    again = [f"grant a {position}..{position + 1} in a batch, {3 - position} to come" for position in range(4)]
    assert play.dies(play.grants[0].container) == again
    assert play.dies(play.grants[-1].container) == again
    last = play.dies(play.grants[-1].container)
    assert sorted(last) == [f"fail a {position}..{position + 1}: lost" for position in range(4)]


def test_each_input_of_a_failed_batch_has_its_own_retries() -> None:
    play = Player(BATCHES, retries=Retries(max_retries=1, initial_delay=1.0))
    play.submit("a", 4)
    for position in range(4):
        assert play.fails(play.grants[0], position) == []
    assert play.passes(0.9) == []
    again = play.passes(0.2)
    assert sum("grant" in line for line in again) == 4, "together, and without another wait"


def test_inputs_of_a_cancelled_call_leave_the_batch_that_is_not_formed() -> None:
    play = Player(BATCHES)
    play.submit("a", 2)
    play.submit("b", 1)
    assert play.happens(e.CallCancelled("a")) == ["fail a 0..2: cancelled"]
    assert play.passes(0.2) == ["grant b 0..1 in a batch, 0 to come"]


def test_a_cancelled_part_of_a_running_batch_is_told() -> None:
    play = Player(Concurrency(batch_size=2, batch_wait_ms=0))
    play.submit("a", kind="remote")
    play.submit("b", kind="remote")
    play.submit("c", kind="remote")
    play.finishes(play.grants[0])
    assert play.happens(e.CallCancelled("b")) == ["cancelrange"]


def test_the_autoscaler_aims_at_batches() -> None:
    spec = Concurrency(max_inputs=3, target_inputs=2, batch_size=10, batch_wait_ms=100)
    assert spec.target == 20
    assert Concurrency(max_inputs=3, target_inputs=2).target == 2
