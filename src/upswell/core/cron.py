"""A schedule and a moment: the next moment it fires. Pure; moments are seconds since the epoch.

Fixed times of day follow the rule of Debian's cron: what falls into the hour that is skipped fires right after it, what
falls into the hour that comes twice fires once. `cronsim` finds the candidates; that none lies in the past is seen to
here.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from ..spec import Cron, Period

MONTHS_A_YEAR = 12


def next_moment(schedule: Cron | Period, after: float, began_at: float) -> float:
    """The first moment later than `after`. A `Period` counts from `began_at`, and has its first one a period later."""
    if isinstance(schedule, Cron):
        return _next_of_cron(schedule, after)
    return _next_of_period(schedule, max(after, began_at), began_at)


def _next_of_cron(cron: Cron, after: float) -> float:
    # Imported here: few servers have a schedule.
    from zoneinfo import ZoneInfo

    from cronsim import CronSim

    moments = CronSim(cron.cron_string, datetime.fromtimestamp(math.floor(after), ZoneInfo(cron.timezone)))
    # In an hour that comes twice, candidates are those of its first time: some are past already.
    return next(moment for moment in map(datetime.timestamp, moments) if moment > after)


def _next_of_period(period: Period, after: float, began_at: float) -> float:
    """Counted from the beginning and not from the last one, so that neither the 31st nor a fraction is lost."""
    if not period.calendar_months:
        count = math.floor((after - began_at) / period.fixed_seconds)
        while (moment := began_at + count * period.fixed_seconds) <= after:
            count += 1
        return moment
    longest = period.calendar_months * 31 * 86_400.0 + period.fixed_seconds
    count = int((after - began_at) / longest)
    while (moment := _add_months(began_at, count * period.calendar_months) + count * period.fixed_seconds) <= after:
        count += 1
    return moment


def _add_months(moment: float, months: int) -> float:
    begun = datetime.fromtimestamp(moment, UTC)
    years, month = divmod(begun.month - 1 + months, MONTHS_A_YEAR)
    for day in range(begun.day, 0, -1):
        try:
            return begun.replace(year=begun.year + years, month=month + 1, day=day).timestamp()
        except ValueError:
            continue  # the month is shorter
    raise AssertionError("every month has a first day")
