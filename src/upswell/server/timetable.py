"""The shell around `core/schedules.py`: asks what is due by the calendar's clock, and makes calls of it.

A fire is one step of the store: that it has fired, and the call with its input. So no moment fires twice, and none is
forgotten.
"""

from __future__ import annotations

import logging
import os

from .. import store as s
from ..clock import Alarm, Clock
from ..core import events as e
from ..core.schedules import Fire, Schedules
from ..errors import Error
from ..spec import Cron, Period
from ..store import Kept
from ..wire.payload import pack_inputs
from .dispatcher import Dispatcher
from .model import Caller

LONGEST_WAIT_SECONDS = 30.0  # people set the calendar's clock, and nobody tells
RETRY_SECONDS = 1.0  # until a fire that could not be kept is tried again

log = logging.getLogger("upswell.server")


class Timetable:
    """The schedules of all deployed functions."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._now = dispatcher.ledger.now
        self._schedules = Schedules()
        self._timer: Alarm | None = None
        self._input = pack_inputs([()], {}).data  # a call without arguments

    def put(self, function: str, schedule: Cron | Period, began_at: float, fired_until: float | None = None) -> None:
        """The function has this schedule from now on."""
        self._schedules.put(function, schedule, began_at, fired_until)
        self._arm()

    def remove(self, function: str) -> None:
        """The function has no schedule any more."""
        self._schedules.remove(function)

    def restore(self, snapshot: s.Snapshot) -> None:
        """Calls of fires that an earlier life of the server has left count as running; their functions are here."""
        makers = dict(snapshot.makers)
        for call in snapshot.calls:
            if makers.get(call.id) == s.SCHEDULE:
                self._schedules.begun(call.function, call.id)

    def ended(self, function: str, call: str) -> None:
        """A call has ended, which may be one of a schedule's."""
        self._schedules.ended(function, call)

    def next(self, function: str) -> float | None:
        """When the function's schedule fires next, if it has one."""
        return self._schedules.next(function)

    def begin(self) -> None:
        """Fire what is due, which after a restart is what was missed, and go on."""
        self._ring()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._schedules.deadline()
        if deadline is None:
            self._timer = None
            return
        wait = min(max(0.0, deadline - self._now()), LONGEST_WAIT_SECONDS)
        self._timer = self._clock.call_later(wait, self._ring)

    def _ring(self) -> None:
        for fire in self._schedules.due(self._now()):
            self._fire(fire, f"fc-{os.urandom(10).hex()}")
        self._arm()

    def _fire(self, fire: Fire, call: str) -> None:
        """Have the fire and its call kept, and let it run then."""
        now = self._now()
        kept = Kept(self._input)
        writes: list[s.Write] = [
            s.PutFire(fire.function, fire.until),
            *s.call_of_one(call, fire.function, now, kept, maker=s.SCHEDULE),
        ]

        def answer(error: Error | None) -> None:
            if error is not None:
                log.error("%s: its schedule could not fire: %s", fire.function, error)
                self._clock.call_later(RETRY_SECONDS, self._fire, fire, call)
                return
            if fire.missed:
                self._dispatcher.say("its schedule fires once for all that was missed", function=fire.function)
            if fire.running:
                words = f"its schedule fires, and {fire.running[-1]} still runs"
                self._dispatcher.say(words, function=fire.function)
            self._dispatcher.calls[call] = Caller(None, "spawn", fire.function, kept=True, total=1)
            self._schedules.begun(fire.function, call)
            self._dispatcher.happened(e.InputsSubmitted(call, fire.function, "spawn", 0, 1, True))

        self._dispatcher.ledger.offer(writes, answer)
