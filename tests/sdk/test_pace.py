"""How many inputs of a map leave at a time, and how many may be under way."""

from upswell.sdk.pace import BRISK_SECONDS, SEGMENT_BYTES, WINDOW_BYTES, Pace
from upswell.spec import MAP_WINDOW

HALF = MAP_WINDOW // 2
SMALL = 100  # bytes of an input


def begun(pace: Pace) -> Pace:
    """The same, with so many segments behind it that the next is a large one."""
    for _ in range(3):
        pace.packed(pace.segment, SMALL * pace.segment)
    return pace


def brisk(pace: Pace) -> Pace:
    """The same, after a segment that was through at once."""
    pace.look(HALF, 0, 1.0)
    pace.look(HALF, HALF, 1.0 + BRISK_SECONDS / 2)
    return pace


def test_segments_grow_to_half_the_window() -> None:
    pace, sizes = Pace(), []
    for _ in range(5):
        sizes.append(pace.segment)
        pace.packed(pace.segment, SMALL * pace.segment)
    assert sizes == [1, 8, 64, HALF, HALF]


def test_the_window_is_filled_to_the_brim_once_and_then_by_segments() -> None:
    pace = begun(Pace())
    assert pace.is_enough(1)
    assert not pace.is_enough(0)
    assert not pace.is_enough(HALF - 1)
    assert pace.is_enough(HALF)


def test_large_inputs_make_segments_and_window_smaller() -> None:
    pace = begun(Pace())
    pace.packed(8, 2 * SEGMENT_BYTES)
    assert (pace.segment, pace.room(0, may_go_ahead=True)) == (4, MAP_WINDOW)
    pace.packed(8, WINDOW_BYTES // 2)
    assert (pace.segment, pace.room(0, may_go_ahead=True)) == (1, 16)
    pace.packed(1, WINDOW_BYTES)
    assert (pace.segment, pace.room(0, may_go_ahead=True)) == (1, 4)


def test_where_messages_take_longer_than_the_work_a_whole_window_goes_ahead() -> None:
    pace = brisk(begun(Pace()))
    assert (pace.segment, pace.room(0, may_go_ahead=True)) == (MAP_WINDOW, 2 * MAP_WINDOW)
    assert pace.room(0, may_go_ahead=False) == MAP_WINDOW


def test_work_that_takes_long_is_not_pulled_ahead_any_more() -> None:
    pace = brisk(begun(Pace()))
    pace.look(2 * HALF, HALF, 2.0)
    pace.look(2 * HALF, 2 * HALF - 1, 2.0 + 2 * BRISK_SECONDS)
    assert pace.segment == MAP_WINDOW  # the last of them is still under way
    pace.look(2 * HALF, 2 * HALF, 2.0 + 2 * BRISK_SECONDS)
    assert (pace.segment, pace.room(0, may_go_ahead=True)) == (HALF, MAP_WINDOW)


def test_few_inputs_under_way_say_nothing() -> None:
    pace = begun(Pace())
    pace.look(HALF - 1, 0, 1.0)
    pace.look(HALF - 1, HALF - 1, 1.0)
    assert pace.segment == HALF
