"""A Queue as the core sees it: partitions, each a line of values and the requests that wait for values or for room.

Laws: values and getters never wait at the same time; a put is taken whole or waits whole, and none overtakes an earlier
one; among getters the one that came first is served first; a value is given to one getter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

import msgspec

from ..operations import ObjectKind, QueueGet, QueuePeek, QueuePut
from ..spec import ObjectLimits
from .agenda import NEVER
from .requests import Answer, Command, Value, forget


class SharedQueue(msgspec.Struct, eq=False):
    """Partitions by key; only those that hold something or at which somebody waits."""

    id: str
    name: str  # "" for an ephemeral one
    owner: str  # the client it ends with; "" for a named one
    partitions: dict[str, Partition] = {}
    next_number: int = 0  # no item of a partition that is gone had a number as high as this

    @property
    def kind(self) -> ObjectKind:
        return "Queue"


class Waiting(msgspec.Struct, eq=False):
    """A request at a partition, until it is answered or withdrawn."""

    client: str
    request: int
    operation: QueuePut | QueueGet | QueuePeek
    partition: Partition
    values: tuple[Value, ...]  # what a put brings
    deadline: float
    over: bool = False


class Partition:
    """One first-in-first-out line. Whoever changes it looks afterwards whether it is still needed (`is_idle`)."""

    def __init__(self, queue: SharedQueue, key: str, limits: ObjectLimits) -> None:
        self.queue = queue
        self.key = key
        self.items: deque[Value] = deque()
        self.first = queue.next_number  # the number of items[0]; those behind it count on
        self.size = 0  # bytes in `items`
        self.expires_at = NEVER  # NEVER exactly when there are no items
        self._limits = limits
        self._putters: deque[Waiting] = deque()  # empty, or the first of them does not fit
        self._getters: deque[Waiting] = deque()  # empty where there are items
        self._peekers: list[Waiting] = []  # each has seen all items

    @property
    def is_idle(self) -> bool:
        """Whether nothing is here, neither values nor requests."""
        return not (self.items or self._putters or self._getters or self._peekers)

    @property
    def next_number(self) -> int:
        """The number of the item that comes next."""
        return self.first + len(self.items)

    def waiting(self) -> list[Waiting]:
        """All requests that wait here."""
        return [*self._putters, *self._getters, *self._peekers]

    # -- what happens ------------------------------------------------------------------------------

    def join(self, waiting: Waiting, now: float, out: list[Command]) -> None:
        """A request comes; where it can't be served and has no time, it is told so at once."""
        self._line_of(waiting).append(waiting)
        self.settle(now, out)
        self.look_at_clock(waiting, now, out)

    def leave(self, waiting: Waiting, out: list[Command]) -> None:
        """A request ends without having been served. Those behind it may fit now, so `settle` must follow."""
        self._line_of(waiting).remove(waiting)
        waiting.over = True
        if waiting.values:
            out.append(forget(waiting.values))

    def look_at_clock(self, waiting: Waiting, now: float, out: list[Command]) -> None:
        """End the request if its time is up."""
        if waiting.over or waiting.deadline > now:
            return
        self.leave(waiting, out)
        if isinstance(waiting.operation, QueuePut):
            reason = f"the partition has {len(self.items):,} items of {self.size:,} bytes: there is no room for more"
            out.append(Answer(waiting.client, waiting.request, problem="full", reason=reason))
        else:
            out.append(Answer(waiting.client, waiting.request))
        self.settle(now, out)

    def give_back(self, values: tuple[Value, ...], lifetime: float, now: float, out: list[Command]) -> None:
        """Values that were taken and not wanted are the first again."""
        self.items.extendleft(reversed(values))
        self.first -= len(values)
        self.size += sum(value.size for value in values)
        if self.expires_at == NEVER:
            self.expires_at = now + lifetime
        self.settle(now, out)

    def clear(self, now: float, out: list[Command]) -> None:
        """All values go."""
        if self.items:
            out.append(forget(tuple(self.items)))
            self.first = self.next_number
            self.items.clear()
            self.size, self.expires_at = 0, NEVER
        self.settle(now, out)

    # -- who is served -----------------------------------------------------------------------------

    def settle(self, now: float, out: list[Command]) -> None:
        """Let in what fits and hand out what is there, until neither is possible."""
        while True:
            if self._peekers and self.items:
                self._show(out)
            if self._getters and self.items:
                self._serve(self._getters.popleft(), out)
            elif self._putters and self._has_room(self._putters[0].values):
                self._admit(self._putters.popleft(), now, out)
            else:
                return

    def _has_room(self, values: tuple[Value, ...]) -> bool:
        if len(self.items) + len(values) > self._limits.partition_items:
            return False
        return self.size + sum(value.size for value in values) <= self._limits.partition_bytes

    def _admit(self, waiting: Waiting, now: float, out: list[Command]) -> None:
        assert isinstance(waiting.operation, QueuePut)
        self.items.extend(waiting.values)
        self.size += sum(value.size for value in waiting.values)
        self.expires_at = now + waiting.operation.lifetime if self.items else NEVER
        waiting.over = True
        out.append(Answer(waiting.client, waiting.request, count=len(waiting.values)))

    def _serve(self, waiting: Waiting, out: list[Command]) -> None:
        assert isinstance(waiting.operation, QueueGet)
        taken = tuple(self.items.popleft() for _ in range(min(waiting.operation.count, len(self.items))))
        self.first += len(taken)
        self.size -= sum(value.size for value in taken)
        if not self.items:
            self.expires_at = NEVER
        waiting.over = True
        out.append(Answer(waiting.client, waiting.request, values=tuple(value.handle for value in taken)))
        out.append(forget(taken))

    def _show(self, out: list[Command]) -> None:
        """Answer the peekers for whom there is something new."""
        for waiting in list(self._peekers):
            assert isinstance(waiting.operation, QueuePeek)
            after = waiting.operation.after
            begin = 0 if after is None else max(0, after + 1 - self.first)
            if begin >= len(self.items):
                continue
            shown = fitting(islice(self.items, begin, None), self._limits.answer_bytes)
            self._peekers.remove(waiting)
            waiting.over = True
            handles = tuple(value.handle for value in shown)
            out.append(
                Answer(waiting.client, waiting.request, values=handles, count=self.first + begin + len(shown) - 1)
            )

    def _line_of(self, waiting: Waiting) -> deque[Waiting] | list[Waiting]:
        match waiting.operation:
            case QueuePut():
                return self._putters
            case QueueGet():
                return self._getters
            case QueuePeek():
                return self._peekers


def fitting(values: Iterable[Value], limit: int) -> list[Value]:
    """The first of the values that together have at most `limit` bytes, at least one."""
    chosen: list[Value] = []
    size = 0
    for value in values:
        size += value.size
        if chosen and size > limit:
            break
        chosen.append(value)
    return chosen
