"""Several places in a container: who gets what, and that a step costs what changed."""

from upswell.core import events as e
from upswell.core.model import Call, Container, Range, Segment, State
from upswell.spec import Concurrency, FunctionSpec

from .player import Player


def held(play: Player) -> dict[str, int]:
    """Inputs granted, by container."""
    counts = dict.fromkeys(play.started, 0)
    for grant in play.grants:
        counts[grant.container] += grant.stop - grant.start
    return counts


def test_a_container_is_filled_to_its_target_before_the_next_one() -> None:
    play = Player(Concurrency(max_inputs=10, target_inputs=3), containers=2)
    play.submit("a", 6)
    assert sorted(held(play).values()) == [3, 3]


def test_where_no_container_can_be_added_they_burst_to_the_maximum() -> None:
    play = Player(Concurrency(max_inputs=5, target_inputs=3), containers=2)
    play.submit("a", 20)
    assert sorted(held(play).values()) == [5, 5]
    statistics = play.plane.statistics("f")
    assert statistics is not None and (statistics.running, statistics.pending) == (10, 10)


def test_a_suspended_input_lends_its_place() -> None:
    play = Player(Concurrency(max_inputs=2, target_inputs=2))
    play.submit("a", 4)
    one = play.grants[0]
    assert play.happens(e.InputSuspended(one.container, one.range)) == ["grant a 2..3"]
    assert play.happens(e.InputResumed(one.container, one.range)) == []
    assert play.finishes(play.grants[1]) == ["deliver a 1..2"], "two are at work again"
    assert play.finishes(one) == ["deliver a 0..1", "grant a 3..4"]


def test_a_fatal_failure_blames_no_neighbour() -> None:
    play = Player(Concurrency(max_inputs=3, target_inputs=3))
    play.submit("a", 3)
    container = play.grants[0].container
    play.happens(e.FailureReceived(container, play.grants[0].range, 0, 0.1, 0.0, "timeout", True))
    assert play.dies(container) == []
    assert play.started[-1] != container, "another one starts"
    assert sorted(play.happens(e.ContainerReady(play.started[-1]))) == ["grant a 1..2", "grant a 2..3"]


def test_a_tail_moves_to_a_free_place_of_the_same_container() -> None:
    play = Player(Concurrency(max_inputs=2, target_inputs=2))
    play.submit("a", 1)
    play.happens(e.ResultsReceived(play.grants[0].container, play.grants[0].range, 0, 1, 0.0001, 0.0))
    play.submit("b", 8)
    tails = [grant for grant in play.grants[1:] if grant.stop - grant.start > 1]
    assert tails, "short inputs travel together"
    for grant in play.grants[1:]:
        if grant is not tails[0]:
            play.finishes(grant)
    assert "takeback" in play.passes(0.01)


def test_what_a_container_has_in_hand_is_counted_as_it_changes() -> None:
    container = Container("co-1", FunctionSpec(), State.READY, 0.0, 0.0)
    call, segment = Call("fc-1", "f", "map", ""), Segment(0, 100, 100)
    plain = Range(1, container, call, segment, 0, 10, 0, 0.0)
    parts = [
        Range(number, container, call, segment, 10 * number, 10 * number + 2, 10 * number, 0.0, 7) for number in (2, 3)
    ]
    for one in (plain, *parts):
        container.hold(one)
    assert (len(container.places), container.inputs) == (2, 14)
    container.advance(plain, 3)
    container.shorten(plain, 5)
    assert (len(container.places), container.inputs) == (2, 6)
    container.suspend(plain, True)
    container.suspend(plain, True)
    assert (len(container.places), container.inputs) == (1, 4)
    assert container.started() == {1, 2, 3}
    container.suspend(plain, False)
    container.release(parts[0])
    assert (len(container.places), container.inputs) == (2, 4)
    container.release(parts[1])
    container.release(plain)
    assert (container.places, container.inputs) == ({}, 0)


def test_containers_of_a_single_use_are_granted_one_input_and_drained() -> None:
    play = Player(Concurrency(), single_use=True, containers=2)
    assert play.submit("a", 4) == ["grant a 0..1", "grant a 1..2"]
    play.passes(0.01)
    assert "drain" in play.finishes(play.grants[0])
