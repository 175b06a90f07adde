"""Sending the inputs of a call as segments: packed together, offered again when refused, never lost in between.

A segment is kept until the server has taken it, and that of a map until all its inputs have their outputs: a server
that is started again gets from here what it has to go on with.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import SerializationError
from ..spec import CallKind
from ..wire import messages as m
from ..wire.payload import BARE, Packed, PackError, pack, pack_inputs
from . import context
from .client import failure
from .inbox import Inbox, Restarted
from .outcomes import Failure, Outcome


def pack_segment(function: Any, inputs: Sequence[Any], starred: bool, kwargs: dict[str, Any]) -> Packed:
    """Inputs of one positional argument each, or of a tuple of them (`starred`); `PackError` says which can't be."""
    by_value = function.pool.takes_by_value
    if starred:
        return pack_inputs(inputs, kwargs, by_value=by_value)
    if kwargs:
        return pack_inputs([(one,) for one in inputs], kwargs, by_value=by_value)
    return pack(inputs, shape=BARE, by_value=by_value)


def pack_arguments(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """The one input of a call of the function; `SerializationError` where that can't be pickled."""
    try:
        return pack_inputs([args], kwargs, by_value=function.pool.takes_by_value)
    except PackError as error:
        raise SerializationError(f"an argument of {function.name} can't be sent: {error}") from None


def unpicklable(first: int, error: PackError) -> SerializationError:
    """What the user is told of an input that can't be pickled, in a segment whose first is the call's `first`."""
    return SerializationError(f"input {first + error.index}: {error}")


class Submission:
    """The inputs of one call, a map or a spawned one, on their way to the server."""

    def __init__(
        self, inbox: Inbox, call: str, function: str, kind: CallKind, *, method: str = "", parent: str | None = None
    ) -> None:
        """`parent` is the input that makes the call: by default the one that this code runs for, if any."""
        self.call = call
        self.submitted = 0
        self.ended = False
        self._inbox = inbox
        self._function = function
        self._kind = kind
        self._method = method
        self._parent = (context.current_input_id() or "") if parent is None else parent
        self._offers: dict[int, _Offer] = {}  # by position, in order: those that may have to be sent again
        self._positions: list[int] = []  # of them
        self._unaccepted = 0  # the latest of them, which the server may not have taken
        self._refused = False  # nothing is sent until the server invites
        self._ends_apart = False  # no segment says that it is the last

    @property
    def unaccepted(self) -> int:
        """Segments that the server has not taken yet."""
        return self._unaccepted

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
            method=self._method,
        )
        self.submitted += count
        self.ended = self.ended or last
        offer = self._offers[submit.first] = _Offer(submit, packed, bytearray(count))
        self._positions.append(submit.first)
        self._unaccepted += 1
        if not self._refused:
            self._send(offer)

    def end(self) -> None:
        """Say that no more inputs come, where the last segment could not."""
        if not self.ended:
            self.ended = self._ends_apart = True
            if not self._refused:
                self._inbox.send(m.EndInputs(self.call, self.submitted))

    def answered(self, message: m.Message) -> None:
        """Take what the server says of the segments; `ResourceExhaustedError` and the like for what can't be mended."""
        match message:
            case m.Outputs(first=first) | m.Failed(first=first):
                self._accepted(first)
            case m.Accepted(first=first):
                self._accepted(first)
                self._forget(self._positions[: len(self._positions) - self._unaccepted])
            case m.Refused(first=first, error=error):
                self._take_refusal(first, error)
            case m.Invited():
                self._refused = False
                self._offer_again()
            case Restarted():
                self._restore()

    def settle(self, outcomes: list[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
        """Take outcomes, each of inputs of one segment. Returns what is new of them, as another container may send what
        one has sent before it was killed.
        """
        found: list[tuple[int, Outcome]] = []
        for first, outcome in outcomes:
            count = outcome.inputs if isinstance(outcome, Failure) else len(outcome)
            if (offer := self._offer_of(first)) is None:
                continue
            for start, stop in offer.unsettled(first, first + count):
                if isinstance(outcome, Failure):
                    found.append((start, Failure(outcome.error, stop - start)))
                else:
                    found.append((start, outcome[start - first : stop - first] if stop - start < count else outcome))
            position = offer.submit.first
            offer.settled[first - position : first - position + count] = b"\1" * count
            if 0 not in offer.settled:
                self._forget([position])
        return found

    def close(self) -> None:
        """Nothing will be offered again."""
        self._forget(list(self._positions))

    # -- offers ------------------------------------------------------------------------------------

    def _send(self, offer: _Offer) -> None:
        offer.unanswered += 1
        self._inbox.submit(offer.submit, offer.packed)

    def _offer_again(self) -> None:
        for position in self._positions[len(self._positions) - self._unaccepted :]:
            self._send(self._offers[position])
        if self._ends_apart:
            self._inbox.send(m.EndInputs(self.call, self.submitted))

    def _accepted(self, position: int) -> None:
        """The server has taken every segment up to the one with the input at `position`: it takes them in order."""
        taken = bisect_right(self._positions, position)
        self._unaccepted = min(self._unaccepted, len(self._positions) - taken)

    def _offer_of(self, first: int) -> _Offer | None:
        """The segment that the input is of, where that may have to be sent again."""
        at = bisect_right(self._positions, first) - 1
        offer = self._offers[self._positions[at]] if at >= 0 else None
        return offer if offer is not None and first < offer.submit.first + offer.submit.count else None

    def _forget(self, positions: list[int]) -> None:
        for position in positions:
            self._offers.pop(position).packed.close()
            self._positions.remove(position)
        self._unaccepted = min(self._unaccepted, len(self._positions))

    def _take_refusal(self, first: int, error: m.ErrorRecord) -> None:
        offer = self._offers.get(first)
        if offer is None:
            return
        offer.unanswered -= 1
        if offer.unanswered or self._refused:
            return  # it was offered again since; or it was out of turn, after one that was refused
        if error.kind != "exhausted":
            raise failure(error)
        self._refused = True
        self._accepted(first - 1)  # else this one would have been out of turn

    def _restore(self) -> None:
        """Another life of the server: of a spawned call it has what it accepted, of a map nothing."""
        self._refused = False
        for offer in self._offers.values():
            offer.unanswered = 0
        taken = self._positions[: len(self._positions) - self._unaccepted]
        submitted = self._offers[self._positions[len(taken)]].submit.first if self._unaccepted else self.submitted
        if self._kind == "map" and submitted:
            offers = [self._offers[position] for position in taken]
            total = submitted if self.ended and not self._unaccepted else -1
            call = m.Restore(
                self.call, self._function, submitted, 0, [], 0, submitted, total, self._parent, method=self._method
            )
            for left, offer in zip(reversed(range(len(offers))), offers, strict=True):
                first, count = offer.submit.first, offer.submit.count
                offer.unanswered = 1
                unsettled = list(offer.unsettled(first, first + count))
                part = replace(call, first=first, count=count, unsettled=unsettled, left=left)
                self._inbox.submit(part, offer.packed)
            if not offers:
                self._inbox.send(call)
        self._offer_again()


class _Offer(msgspec.Struct, eq=False):
    """A segment that may have to be sent again."""

    submit: m.Submit
    packed: Packed
    settled: bytearray  # a 1 for each input that has an output
    unanswered: int = 0  # times it was sent, less refusals

    def unsettled(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The inputs of these without an output, as half-open spans."""
        first, end = self.submit.first, stop - self.submit.first
        begun = self.settled.find(0, start - first, end)
        while begun >= 0:
            ended = self.settled.find(1, begun, end)
            ended = end if ended < 0 else ended
            yield first + begun, first + ended
            begun = self.settled.find(0, ended, end)
