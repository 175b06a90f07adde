"""Generators in the core: chunks pass through, and after the first of them there is no other attempt."""

import pytest

from upswell.core import events as e
from upswell.spec import Concurrency, Retries

from .player import Player


def streaming(**options: object) -> Player:
    play = Player(Concurrency(), **options)  # type: ignore[arg-type]
    play.submit("g", kind="generator")
    return play


def yields(play: Player, first: int, count: int) -> list[str]:
    grant = play.grants[-1]
    return play.happens(e.ChunksReceived(grant.container, grant.range, first, count))


def test_chunks_are_forwarded_and_the_end_is_the_output() -> None:
    play = streaming()
    assert yields(play, 0, 3) == ["forward g 0..3"]
    assert yields(play, 3, 1) == ["forward g 3..4"]
    assert play.finishes(play.grants[0]) == ["deliver g 0..1"]


def test_chunks_of_a_range_that_is_not_held_any_more_change_nothing() -> None:
    play = streaming()
    old = play.grants[-1]
    play.dies(old.container)
    assert play.happens(e.ChunksReceived(old.container, old.range, 0, 2)) == []


def test_chunks_out_of_order_are_not_passed_on() -> None:
    assert yields(streaming(), 1, 1) == []


def test_before_the_first_chunk_a_lost_generator_is_begun_again() -> None:
    play = streaming(containers=2)
    assert play.dies(play.grants[-1].container) == ["grant g 0..1"]
    assert yields(play, 0, 1) == ["forward g 0..1"]


@pytest.mark.parametrize("blameless", [False, True])
def test_after_the_first_chunk_it_fails_whoever_is_to_blame(blameless: bool) -> None:
    play = streaming(containers=2)
    yields(play, 0, 2)
    if blameless:
        play.happens(e.FailureReceived(play.grants[-1].container, 0, 0, 0.0, 0.0, "timeout", True))
    assert play.dies(play.grants[-1].container) == ["fail g 0..1: lost"]


def test_after_the_first_chunk_retries_are_over() -> None:
    play = streaming(retries=Retries(max_retries=3, initial_delay=0.0))
    yields(play, 0, 1)
    assert play.fails(play.grants[-1], 0) == ["fail g 0..1: user"]


def test_a_cancelled_generator_is_told_and_its_last_chunks_go_nowhere() -> None:
    play = streaming()
    yields(play, 0, 1)
    assert play.happens(e.CallCancelled("g")) == ["cancelrange"]
    assert yields(play, 1, 5) == []


def test_a_generator_that_waits_for_its_consumer_is_not_stuck() -> None:
    play = streaming(timeout=10)
    grant = play.grants[-1]
    yields(play, 0, 1000)
    play.happens(e.InputSuspended(grant.container, grant.range))
    assert play.passes(100.0) == []
    play.happens(e.InputResumed(grant.container, grant.range))
    assert play.passes(14.0) == []
    assert play.passes(2.0) == ["kill"]
