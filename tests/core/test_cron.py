"""The next moment of a schedule: a table, and what holds for any."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import upswell
from upswell.core.cron import next_moment
from upswell.errors import InvalidError
from upswell.spec import Cron, Period

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def after(schedule: Cron | Period, begun: str, count: int, zone: str = "UTC", fold: int = 0) -> list[str]:
    """The next moments, by the clock of the zone, with its distance from UTC."""
    moment = began_at = at(begun, zone, fold)
    found = []
    for _ in range(count):
        moment = next_moment(schedule, moment, began_at)
        found.append(datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %z"))
    return found


@pytest.mark.parametrize(
    ("cron", "zone", "begun", "expected"),
    [
        ("*/15 * * * *", "UTC", "2026-01-01 00:00", ["2026-01-01 00:15 +0000", "2026-01-01 00:30 +0000"]),
        ("0 0 29 2 *", "UTC", "2026-01-01", ["2028-02-29 00:00 +0000", "2032-02-29 00:00 +0000"]),
        ("0 9 * * MON-FRI", "UTC", "2026-01-02 10:00", ["2026-01-05 09:00 +0000", "2026-01-06 09:00 +0000"]),
        ("0 0 L * *", "UTC", "2026-01-31 12:00", ["2026-02-28 00:00 +0000", "2026-03-31 00:00 +0000"]),
        # Clocks go forward: 02:30 does not exist, and fires when the hour has been skipped.
        ("30 2 * * *", BERLIN, "2026-03-28 03:00", ["2026-03-29 03:00 +0200", "2026-03-30 02:30 +0200"]),
        ("0,30 2 * * *", BERLIN, "2026-03-29 01:00", ["2026-03-29 03:00 +0200", "2026-03-30 02:00 +0200"]),
        ("0 2,3 * * *", BERLIN, "2026-03-29 01:00", ["2026-03-29 03:00 +0200", "2026-03-30 02:00 +0200"]),
        ("30 2 * * *", NEW_YORK, "2026-03-08 00:00", ["2026-03-08 03:00 -0400", "2026-03-09 02:30 -0400"]),
        ("0 * * * *", BERLIN, "2026-03-29 00:30", ["2026-03-29 01:00 +0100", "2026-03-29 03:00 +0200"]),
        # Clocks go back: 02:30 comes twice, and a fixed time fires the first time only.
        ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"]),
        ("30 1 * * *", NEW_YORK, "2026-11-01 00:00", ["2026-11-01 01:30 -0400", "2026-11-02 01:30 -0500"]),
        ("0 2,3 * * *", BERLIN, "2026-10-25 01:00", ["2026-10-25 02:00 +0200", "2026-10-25 03:00 +0100"]),
        # What goes by the hour fires in both of them.
        ("0 * * * *", BERLIN, "2026-10-25 01:30", ["2026-10-25 02:00 +0200", "2026-10-25 02:00 +0100"]),
        ("*/30 * * * *", BERLIN, "2026-10-25 02:00", ["2026-10-25 02:30 +0200", "2026-10-25 02:00 +0100"]),
        # Half an hour of daylight saving.
        ("15 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["2026-10-04 02:30 +1100", "2026-10-05 02:15 +1100"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04 12:00", ["2026-04-05 01:45 +1100", "2026-04-06 01:45 +1030"]),
    ],
)
def test_cron(cron: str, zone: str, begun: str, expected: list[str]) -> None:
    assert after(Cron(cron, zone), begun, len(expected), zone) == expected


def test_a_fixed_time_has_passed_in_the_hour_that_comes_again() -> None:
    schedule = Cron("30 2 * * *", BERLIN)
    assert after(schedule, "2026-10-25 02:10", 1, BERLIN, fold=1) == ["2026-10-26 02:30 +0100"]
    assert after(schedule, "2026-10-25 02:50", 1, BERLIN, fold=1) == ["2026-10-26 02:30 +0100"]


@pytest.mark.parametrize(
    ("period", "begun", "expected"),
    [
        (Period(minutes=90), "2026-01-01 00:00", ["2026-01-01 01:30", "2026-01-01 03:00"]),
        (Period(weeks=1, days=1), "2026-01-01 12:00", ["2026-01-09 12:00", "2026-01-17 12:00"]),
        (Period(months=1), "2026-01-31 08:00", ["2026-02-28 08:00", "2026-03-31 08:00", "2026-04-30 08:00"]),
        (Period(years=1), "2024-02-29 00:00", ["2025-02-28 00:00", "2026-02-28 00:00", "2027-02-28 00:00"]),
        (Period(years=4), "2024-02-29 00:00", ["2028-02-29 00:00"]),
        (Period(months=1, days=1), "2026-01-31 00:00", ["2026-03-01 00:00", "2026-04-02 00:00"]),
    ],
)
def test_period(period: Period, begun: str, expected: list[str]) -> None:
    assert after(period, begun, len(expected)) == [f"{moment} +0000" for moment in expected]


def test_parts_of_a_second() -> None:
    moments = [next_moment(Period(seconds=0.25), 1000.0 + passed, 1000.0) for passed in (0.0, 0.1, 0.25, 7.3)]
    assert moments == [1000.25, 1000.25, 1000.5, 1007.5]
    assert next_moment(Period(hours=1), 0.0, 1000.0) == 4600.0, "the first comes one period after the beginning"


CRONS = ["* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 */5 * * SUN", "59 23 L * *", "0 2 31 * 1"]
PERIODS = [
    Period(months=1),
    Period(years=1, seconds=0.5),
    Period(days=1),
    Period(hours=7, minutes=3),
    Period(seconds=0.7),
]
moments = st.floats(at("1980-01-01"), at("2037-01-01"))


@given(st.sampled_from(CRONS), st.sampled_from(["UTC", BERLIN, NEW_YORK, LORD_HOWE]), moments)
def test_any_cron_goes_forward_to_a_moment_that_its_clock_shows(cron: str, zone: str, start: float) -> None:
    schedule = Cron(cron, zone)
    found = next_moment(schedule, start, 0.0)
    assert found > start
    assert found == int(found)
    assert next_moment(schedule, found - 0.5, 0.0) == found, "nothing was skipped, and the same comes for one moment"
    shown = datetime.fromtimestamp(found, ZoneInfo(zone))
    assert shown.astimezone(UTC).astimezone(ZoneInfo(zone)) == shown
    assert shown.second == 0


@given(st.sampled_from(PERIODS), moments, st.floats(0, 1e9))
def test_any_period_goes_forward_by_at_most_one(period: Period, began_at: float, passed: float) -> None:
    start = began_at + passed
    found = next_moment(period, start, began_at)
    assert start < found <= start + period.calendar_months * 31 * 86_400 + period.fixed_seconds + 1e-6


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (lambda: Cron("* * * *"), "five fields"),
        (lambda: Cron("0 * * * * *"), "five fields"),
        (lambda: Cron("61 * * * *"), "bad minute"),
        (lambda: Cron("0 0 31 2 *"), "bad day-of-month"),
        (lambda: Cron("0 0 * * FUN"), "bad day-of-week"),
        (lambda: Cron(5), "five fields"),  # type: ignore[arg-type]
        (lambda: Cron("0 0 * * *", "Mars/Olympus"), "Mars/Olympus"),
        (lambda: Cron("0 0 * * *", "Europe"), "'Europe'"),
        (lambda: Cron("0 0 * * *", "../etc"), "../etc"),
        (lambda: Period(), "Period"),
        (lambda: Period(hours=-1), "hours"),
        (lambda: Period(days=1.5), "days"),  # type: ignore[arg-type]
        (lambda: Period(seconds=0.001), "0.01"),
        (lambda: Period(seconds=float("nan")), "seconds"),
        (lambda: Period(years=101), "100 years"),
    ],
)
def test_what_can_not_be_is_refused_when_it_is_declared(declared: object, said: str) -> None:
    with pytest.raises(InvalidError, match=said.replace(".", r"\.")):
        declared()  # type: ignore[operator]


def test_they_are_public() -> None:
    assert (upswell.Cron, upswell.Period) == (Cron, Period)
