"""The shell around `core/objects.py`: keeps the bytes of Dicts and Queues, asks the core, and gives its answers.

Nothing is decided here. The bytes of a value are a copy of their own, so that none keeps a whole frame in memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..clock import Alarm, Clock
from ..core.objects import Objects
from ..core.requests import Answer, Asked, ClientLeft, Command, Event, Value, Withdrawn
from ..operations import DictPut, QueuePut
from ..spec import ObjectLimits
from ..wire import messages as m
from ..wire.codec import ProtocolError
from .connections import Connection
from .runtime import give_up


class ObjectService:
    """All Dicts and Queues of this server."""

    def __init__(self, limits: ObjectLimits, clock: Clock) -> None:
        self._objects = Objects(limits)
        self._bytes: dict[int, bytes] = {}  # by handle
        self._next_handle = 1
        self._clients: dict[str, Connection] = {}
        self._clock = clock
        self._timer: Alarm | None = None
        self._timer_at: float | None = None

    def use(self, connection: Connection, message: m.UseObject, payload: memoryview) -> None:
        """A client wants something of an object."""
        check(message, payload)
        self._clients[connection.name] = connection
        values = []
        position = 0
        for size in message.sizes:
            self._bytes[self._next_handle] = bytes(payload[position : position + size])
            values.append(Value(self._next_handle, size))
            self._next_handle += 1
            position += size
        self._happened(Asked(connection.name, message.request, message.object, message.operation, tuple(values)))

    def withdraw(self, connection: Connection, request: int) -> None:
        """A client does not wait any more."""
        self._happened(Withdrawn(connection.name, request))

    def client_left(self, connection: Connection) -> None:
        """A client is gone."""
        if self._clients.pop(connection.name, None) is not None:
            self._happened(ClientLeft(connection.name))

    # -- the core and its commands -----------------------------------------------------------------

    def _happened(self, event: Event) -> None:
        try:
            self._perform(self._objects.handle(event, self._clock.time()))
        except Exception:
            give_up()
        self._arm()

    def _wake(self) -> None:
        self._timer_at = None
        try:
            self._perform(self._objects.wake(self._clock.time()))
        except Exception:
            give_up()
        self._arm()

    def _arm(self) -> None:
        """One timer, for the moment the core asks for."""
        moment = self._objects.deadline()
        if moment == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = moment
        self._timer = None if moment is None else self._clock.call_at(moment, self._wake)

    def _perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Answer):
                self._answer(command)
            else:
                for handle in command.values:
                    del self._bytes[handle]

    def _answer(self, answer: Answer) -> None:
        connection = self._clients.get(answer.client)
        if connection is None:
            return
        pieces = answer.keys or [self._bytes[handle] if handle else None for handle in answer.values]
        sizes = tuple(-1 if piece is None else len(piece) for piece in pieces)
        message = m.ObjectAnswer(answer.request, sizes, answer.texts, answer.count, answer.problem, answer.reason)
        connection.send(message, b"".join(piece for piece in pieces if piece is not None))


def check(message: m.UseObject, payload: memoryview) -> None:
    """`ProtocolError` unless values and operation belong together."""
    if any(size < 0 for size in message.sizes) or sum(message.sizes) != len(payload):
        raise ProtocolError(f"values of other sizes than the {len(payload):,} bytes that came")
    match message.operation:
        case DictPut(keys=keys):
            fits = len(set(keys)) == len(keys) == len(message.sizes)
        case QueuePut():
            fits = True
        case _:
            fits = not message.sizes
    if not fits:
        raise ProtocolError(f"{type(message.operation).__name__} does not go with {len(message.sizes)} values")
