"""Which schedules are due. Moments are seconds since the epoch, by a clock that people may set; `now` is an argument.

A schedule that was not looked at for a while (the server was down, the clock was set forward) fires once for all that
was missed. It never fires twice for one moment, also when the clock is set back: what was fired for is remembered, here
and by whoever keeps it.
"""

from __future__ import annotations

import msgspec

from ..spec import Cron, Period
from .agenda import NEVER, Agenda
from .cron import next_moment


class Fire(msgspec.Struct, frozen=True):
    """The function is to be called now.

    `moment` is what it fires for. `until` is to be kept together with the call, and handed in as `fired_until` after a
    restart.
    """

    function: str
    moment: float
    until: float  # everything up to this is done with
    missed: bool  # later moments have passed too, and get no fire of their own
    running: tuple[str, ...]  # calls of earlier fires that have not ended


class _Entry(msgspec.Struct, eq=False):
    function: str
    schedule: Cron | Period
    began_at: float
    next: float
    running: dict[str, None] = {}  # in the order they were begun


class Schedules:
    """All functions that have a schedule, by when they are due."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._agenda: Agenda[_Entry] = Agenda()  # when each is due, its `next`

    def put(self, function: str, schedule: Cron | Period, began_at: float, fired_until: float | None = None) -> None:
        """The function has this schedule since `began_at`; moments up to `fired_until` are done with.

        In place of an earlier one, whose calls go on counting as running.
        """
        after = began_at if fired_until is None else max(began_at, fired_until)
        entry = _Entry(function, schedule, began_at, next_moment(schedule, after, began_at))
        if earlier := self._entries.get(function):
            entry.running = earlier.running
            self._agenda.put(earlier, NEVER)
        self._entries[function] = entry
        self._agenda.put(entry, entry.next)

    def remove(self, function: str) -> None:
        """The function has no schedule any more."""
        if entry := self._entries.pop(function, None):
            self._agenda.put(entry, NEVER)

    def due(self, now: float) -> list[Fire]:
        """What is to fire, each function at most once. The caller makes the calls and says so by `begun`."""
        fires = []
        while (entry := self._agenda.pop_due(now)) is not None:
            moment = entry.next
            entry.next = next_moment(entry.schedule, moment, entry.began_at)
            missed = entry.next <= now
            until = now if missed else moment
            if missed:
                entry.next = next_moment(entry.schedule, now, entry.began_at)
            fires.append(Fire(entry.function, moment, until, missed, tuple(entry.running)))
            self._agenda.put(entry, entry.next)
        return fires

    def begun(self, function: str, call: str) -> None:
        """A fire has become this call."""
        if entry := self._entries.get(function):
            entry.running[call] = None

    def ended(self, function: str, call: str) -> None:
        """The call of a fire has ended."""
        if entry := self._entries.get(function):
            entry.running.pop(call, None)

    def next(self, function: str) -> float | None:
        """When the function is due next, or `None` where it has no schedule."""
        entry = self._entries.get(function)
        return entry.next if entry else None

    def deadline(self) -> float | None:
        """When something is due next, or `None`."""
        moment = self._agenda.next_at()
        return None if moment == NEVER else moment
