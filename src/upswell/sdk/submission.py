"""Sending the inputs of a call as segments: packed together, offered again when refused, never lost in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SerializationError
from ..wire import messages as m
from ..wire.payload import BARE, Packed, PackError, pack, pack_inputs
from . import context
from .client import Client, failure
from .environment import is_by_value


def pack_segment(inputs: Sequence[Any], starred: bool, kwargs: dict[str, Any]) -> Packed:
    """Inputs of one positional argument each, or of a tuple of them (`starred`); `PackError` says which can't be."""
    if starred:
        return pack_inputs(inputs, kwargs, by_value=is_by_value())
    if kwargs:
        return pack_inputs([(one,) for one in inputs], kwargs, by_value=is_by_value())
    return pack(inputs, shape=BARE, by_value=is_by_value())


def unpicklable(first: int, error: PackError) -> SerializationError:
    """What the user is told of an input that can't be pickled, in a segment whose first is the call's `first`."""
    return SerializationError(f"input {first + error.index}: {error}")


class Submission:
    """The inputs of one call on their way to the server."""

    def __init__(self, client: Client, call: str, function: str, kind: m.CallKind, *, method: str = "") -> None:
        self.client = client
        self.call = call
        self.submitted = 0
        self.ended = False
        self._function = function
        self._kind = kind
        self._method = method
        self._parent = context.current_input_id() or ""
        self._unaccepted: dict[int, _Offer] = {}  # by position, in order
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
            self.call,
            self._function,
            self._kind,
            self.submitted,
            count,
            last,
            self._parent,
            packed.buffers,
            self._method,
        )
        self.submitted += count
        self.ended = self.ended or last
        offer = self._unaccepted[submit.first] = _Offer(submit, packed)
        if not self._refused:
            self._send(offer)

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
            case m.Refused(first=first, error=error):
                self._take_refusal(first, error)
            case m.Invited():
                self._refused = False
                for offer in self._unaccepted.values():
                    self._send(offer)
                if self.ended:
                    self.client.send(m.EndInputs(self.call, self.submitted))

    def _send(self, offer: _Offer) -> None:
        offer.unanswered += 1
        self.client.submit(offer.submit, offer.packed)

    def _take_refusal(self, first: int, error: m.ErrorRecord) -> None:
        offer = self._unaccepted.get(first)
        if offer is None:
            return
        offer.unanswered -= 1
        if offer.unanswered or self._refused:
            return  # it was offered again since; or it was out of turn, after one that was refused
        if error.kind != "exhausted":
            raise failure(error)
        self._refused = True
        self.accepted(first - 1)  # else this one would have been out of turn


@dataclass(slots=True)
class _Offer:
    """A segment that the server may not have taken yet."""

    submit: m.Submit
    packed: Packed
    unanswered: int = 0  # times it was sent, less refusals
