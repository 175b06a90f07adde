"""Which schedules are due, and how often."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from upswell.core.schedules import Fire, Schedules
from upswell.spec import Cron, Period

MINUTE = 60.0
EVERY_MINUTE = Cron("* * * * *")


def test_nothing_is_due_without_schedules() -> None:
    assert Schedules().deadline() is None
    assert Schedules().due(1e9) == []


def test_each_fires_at_its_moment_and_not_again() -> None:
    schedules = Schedules()
    schedules.put("f", EVERY_MINUTE, 30.0)
    schedules.put("g", Period(seconds=40), 30.0)
    assert schedules.deadline() == 60.0
    assert schedules.due(59.9) == []
    assert schedules.due(60.2) == [Fire("f", 60.0, 60.0, False, ())]
    assert schedules.due(60.3) == []
    assert schedules.deadline() == 70.0
    assert schedules.due(70.0) == [Fire("g", 70.0, 70.0, False, ())]


def test_after_a_pause_there_is_one_fire_for_all_that_was_missed() -> None:
    schedules = Schedules()
    schedules.put("f", EVERY_MINUTE, 0.0, fired_until=2 * MINUTE)
    assert schedules.deadline() == 3 * MINUTE
    assert schedules.due(90.5 * MINUTE) == [Fire("f", 3 * MINUTE, 90.5 * MINUTE, True, ())]
    assert schedules.due(90.6 * MINUTE) == []
    assert schedules.deadline() == 91 * MINUTE
    restarted = Schedules()
    restarted.put("f", EVERY_MINUTE, 0.0, fired_until=90.5 * MINUTE)
    assert restarted.deadline() == 91 * MINUTE


def test_a_pause_in_which_nothing_was_due_is_none() -> None:
    schedules = Schedules()
    schedules.put("f", Cron("0 0 1 1 *"), 0.0, fired_until=1000.0)
    assert schedules.due(1e6) == []


def test_a_new_deploy_begins_anew() -> None:
    schedules = Schedules()
    schedules.put("f", Period(hours=1), 0.0, fired_until=3600.0)
    schedules.put("f", Period(hours=1), 5000.0, fired_until=3600.0)
    assert schedules.deadline() == 8600.0
    schedules.remove("f")
    assert schedules.deadline() is None
    assert schedules.due(1e6) == []


def test_calls_that_still_run_are_named() -> None:
    schedules = Schedules()
    schedules.put("f", EVERY_MINUTE, 0.0)
    schedules.due(MINUTE)
    schedules.begun("f", "fc-1")
    assert schedules.due(2 * MINUTE)[0].running == ("fc-1",)
    schedules.begun("f", "fc-2")
    schedules.ended("f", "fc-1")
    schedules.put("f", Period(minutes=1), 2 * MINUTE)
    assert schedules.due(3 * MINUTE)[0].running == ("fc-2",)
    schedules.ended("f", "fc-2")
    schedules.ended("g", "fc-2")
    assert schedules.due(4 * MINUTE)[0].running == ()


KINDS = [EVERY_MINUTE, Cron("30 2 * * *", "Europe/Berlin"), Period(seconds=7), Period(minutes=3, seconds=0.5)]


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.floats(-300, 5000), st.booleans()), max_size=30))
def test_whatever_the_clock_does_no_moment_fires_twice(
    schedule: Cron | Period, steps: list[tuple[float, bool]]
) -> None:
    now = began_at = 1_792_880_000.0  # the night in which Berlin's clocks are set back
    schedules = Schedules()
    schedules.put("f", schedule, began_at)
    until, fired = None, []
    for seconds, restart in steps:
        now += seconds
        if restart:
            schedules = Schedules()
            schedules.put("f", schedule, began_at, until)
        for fire in schedules.due(now):
            assert fire.moment <= now
            fired.append(fire.moment)
            until = fire.until
        deadline = schedules.deadline()
        assert deadline is not None
        assert deadline > now or deadline > (until or 0)
        assert schedules.due(now) == []
    assert all(earlier < later for earlier, later in itertools.pairwise(fired))
