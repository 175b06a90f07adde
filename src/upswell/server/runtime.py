"""The only loop around the core: what can't wait is decided at every event, and what the core commands is performed in
its order. The rest is decided when the core asks for it, in the next turn of the loop at the earliest, once for all
events until then, when the frames of this turn are on their way.

Nothing is decided here. A defect ends the process with its traceback; it never leaves a server that hangs.
"""

from __future__ import annotations

import math
import os
import traceback
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from ..clock import Alarm, Clock
from ..core import commands as c
from ..core import events as e
from ..core.plane import Plane
from ..engine import Engine
from ..spec import Limits

Perform = Callable[[c.Command], None]
Soon = Callable[[Callable[[], None]], object]

ROUNDING_SECONDS = 0.0005  # uvloop rounds to milliseconds; woken too early we would be woken again, until it is time


class Runtime:
    """Feeds the plane, and calls `perform` for each command. `soon` calls something in the next turn of the loop."""

    def __init__(self, engine: Engine, limits: Limits, clock: Clock, soon: Soon, first_id: int = 1) -> None:
        self._engine = engine
        self.plane = Plane(limits, first_id=first_id)
        self.plane.handle(e.NodesChanged(engine.capacity()), clock.time())
        self.clock = clock
        self._events: deque[e.Event] = deque()
        self._soon = soon
        self._busy = False
        self._timer: Alarm | None = None  # none where the core is woken in the next turn
        self._wakes_at = math.inf
        self._perform: Perform = lambda command: None

    def begin(self, perform: Perform) -> None:
        """Who performs the commands."""
        self._perform = perform

    def happened(self, event: e.Event) -> None:
        """Something happened. What can't wait is done when this returns, unless it happened while performing."""
        self._events.append(event)
        if not self._busy:
            self._run()

    def _run(self) -> None:
        self._busy = True
        try:
            while self._events:
                now = self.clock.time()
                self._carry_out(self.plane.answer(self._events.popleft(), now))
                self._carry_out(self.plane.follow(now))  # while the peer wakes up
        except Exception:
            give_up()
        self._busy = False
        self._arm()

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        self._busy = True
        try:
            self._carry_out(self.plane.wake(self.clock.time()))
        except Exception:
            give_up()
        self._run()

    def _carry_out(self, commands: list[c.Command]) -> None:
        for command in commands:
            if type(command) is c.Sample:
                self._sample(command)
            else:
                self._perform(command)

    def _sample(self, command: c.Sample) -> None:
        seconds = tuple(self._engine.sample(command.containers))
        memory = self._engine.memory_bytes(command.containers[0]) if command.containers else None
        capacity = self._engine.capacity()
        self._events.append(
            e.UsageSampled(command.function, seconds, memory, capacity.cores, capacity.memory_available)
        )

    def _arm(self) -> None:
        """One timer, for the moment the core asks for, or an earlier one: it is not moved for each later deadline."""
        moment = self.plane.deadline()
        if moment is None or (moment >= self._wakes_at and (self._timer is None or moment > self.clock.time())):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = moment
        if moment <= self.clock.time():  # perhaps that of the timer, which may be a little late
            self._timer = None
            self._soon(self._wake)
        else:
            self._timer = self.clock.call_at(moment + ROUNDING_SECONDS, self._wake)


def give_up() -> NoReturn:
    """The core has a defect, which is being handled: end the process with its traceback."""
    traceback.print_exc()
    os._exit(70)  # EX_SOFTWARE; containers and clients see their connections end
