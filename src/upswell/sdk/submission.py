"""Sending the inputs of a call as segments: packed together, offered again when refused, never lost in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ResourceExhaustedError, SerializationError
from ..wire import messages as m
from ..wire.payload import BARE, Packed, PackError, pack, pack_inputs
from .client import Client
from .environment import is_by_value


def pack_arguments(inputs: Sequence[tuple[Any, ...]], kwargs: dict[str, Any], first: int) -> Packed:
    """The inputs from position `first` on; `SerializationError` names the one that can't be pickled."""
    try:
        return pack_inputs(inputs, kwargs, by_value=is_by_value())
    except PackError as error:
        raise SerializationError(f"input {first + error.index}: {error}") from None


def pack_values(values: Sequence[Any], first: int) -> Packed:
    """The same for inputs of one positional argument each."""
    try:
        return pack(values, shape=BARE, by_value=is_by_value())
    except PackError as error:
        raise SerializationError(f"input {first + error.index}: {error}") from None


class Submission:
    """The inputs of one call on their way to the server."""

    def __init__(self, client: Client, call: str, function: str, kind: m.CallKind, parent: str = "") -> None:
        self.client = client
        self.call = call
        self.submitted = 0
        self.ended = False
        self._function = function
        self._kind = kind
        self._parent = parent
        self._unaccepted: dict[int, tuple[m.Submit, Packed]] = {}
        self._refused = False  # nothing is sent until the server invites

    @property
    def unaccepted(self) -> int:
        """Segments that the server has not taken yet."""
        return len(self._unaccepted)

    @property
    def is_refused(self) -> bool:
        """Whether a limit is reached, so that more would be refused too."""
        return self._refused

    def send(self, packed: Packed, count: int, last: bool) -> None:
        """Offer the next segment."""
        submit = m.Submit(
            self.call, self._function, self._kind, self.submitted, count, last, self._parent, packed.buffers
        )
        self.submitted += count
        self.ended = self.ended or last
        self._unaccepted[submit.first] = (submit, packed)
        if not self._refused:
            self.client.submit(submit, packed)

    def end(self) -> None:
        """Say that no more inputs come, where the last segment could not."""
        if not self.ended:
            self.ended = True
            if not self._refused:
                self.client.send(m.EndInputs(self.call, self.submitted))

    def accepted(self, position: int) -> None:
        """The server has taken every segment up to the one with the input at `position`: it takes them in order."""
        while self._unaccepted and next(iter(self._unaccepted)) <= position:
            del self._unaccepted[next(iter(self._unaccepted))]

    def answered(self, message: m.Message) -> None:
        """Take what the server says of the segments; `ResourceExhaustedError` and the like for what can't be mended."""
        match message:
            case m.Accepted(first=first):
                self.accepted(first)
            case m.Refused(first=first, error=error) if error.kind == "exhausted":
                self.accepted(first - 1)
                self._refused = True
            case m.Refused(first=first, error=error) if first == next(iter(self._unaccepted), -1):
                if not self._refused:  # otherwise it followed the one that met the limit, and is offered again with it
                    raise failure(error)
            case m.Invited():
                self._refused = False
                for submit, packed in self._unaccepted.values():
                    self.client.submit(submit, packed)
                if self.ended:
                    self.client.send(m.EndInputs(self.call, self.submitted))


def failure(error: m.ErrorRecord) -> Exception:
    """The exception for a failure that is not the user's own."""
    from ..errors import FunctionTimeoutError, NotFoundError, RemoteError

    match error.kind:
        case "exhausted":
            return ResourceExhaustedError(error.message)
        case "missing":
            return NotFoundError(error.message)
        case "timeout":
            return FunctionTimeoutError(error.message)
        case _:
            return RemoteError(error.message)
