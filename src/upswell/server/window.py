"""The window of a map: so many of its inputs are let in, and what its client sends ahead of them waits outside.

So the next inputs begin as soon as the outputs of those before have left, and not when their client has heard of these.
"""

from __future__ import annotations

from collections import deque

import msgspec
from msgspec.structs import replace

from ..spec import MAP_WINDOW
from ..store import Kept
from ..wire import messages as m


class Window(msgspec.Struct, eq=False):
    """How much of one call that somebody waits for is on its way. Of what is no map nothing ever waits."""

    in_flight: int = 0  # inputs that were taken, and whose outcomes have not left
    ahead: deque[tuple[m.Submit, Kept]] = msgspec.field(default_factory=deque)  # segments, in their order

    @property
    def waiting(self) -> int:
        """Inputs that wait outside."""
        return sum(message.count for message, _ in self.ahead)

    def put(self, message: m.Submit, kept: Kept, accepted: int) -> bool:
        """Have the segment wait where there is no room; whether it does. `accepted` inputs of its call were taken."""
        waits = bool(self.ahead) or not self._has_room(message, accepted)
        if waits:
            self.ahead.append((message, kept))
        return waits

    def end(self) -> None:
        """The last segment that waits is the last of the map."""
        message, kept = self.ahead.pop()
        self.ahead.append((replace(message, last=True), kept))

    def next(self, accepted: int) -> tuple[m.Submit, Kept] | None:
        """The first segment that waits, if it need not any more."""
        return self.ahead.popleft() if self.ahead and self._has_room(self.ahead[0][0], accepted) else None

    def close(self) -> None:
        """Nobody wants to know what becomes of what waits."""
        while self.ahead:
            self.ahead.pop()[1].close()

    def _has_room(self, message: m.Submit, accepted: int) -> bool:
        """Whether the segment may go in. One behind a refused one may: its client hears that it is refused, too."""
        is_refused = message.first != accepted
        return is_refused or not self.in_flight or self.in_flight + message.count <= MAP_WINDOW
