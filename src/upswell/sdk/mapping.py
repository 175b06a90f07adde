"""`map`: inputs pulled lazily, sent in segments, outputs in order, in bounded memory.

At most `MAP_WINDOW` inputs are in flight, and the iterator is not pulled further ahead of the consumer, but where one
more segment goes ahead: the server lets it in as the outputs of those before it leave (`pace.py`). A slow iterator's
inputs leave after a few milliseconds. Plain iterators are advanced on the consumer's own thread. Leaving early cancels
what has not started, in silence.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator
from itertools import chain, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..errors import InvalidError, UserCodeException
from ..wire import messages as m
from ..wire.codec import Frame
from ..wire.payload import Packed, PackError
from .client import new_id
from .dual import run_async, run_sync
from .frames import their_frames
from .inbox import Inbox
from .outcomes import Failure, Outcome, outcomes_of, raisable
from .pace import Pace
from .pump import Pump
from .submission import Submission, pack_segment, unpicklable

if TYPE_CHECKING:
    from .function import Function

R = TypeVar("R")

PULL_SECONDS = 0.003  # what was pulled from a slow iterator leaves after this


class Mapped(Generic[R]):
    """The outputs of a map: iterate it, plainly or asynchronously, once."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._begun = False

    def __iter__(self) -> Iterator[R]:
        self._begun = True
        batches = self._batches()
        outputs = cast("_Outputs[R]", _Outputs.from_iterable(batches))
        outputs.batches = batches
        return outputs

    def __aiter__(self) -> AsyncIterator[R]:
        self._begun = True
        return self._iterate_async()

    def _batches(self) -> Generator[list[R], None, None]:
        mapping = self._mapping
        with their_frames:
            try:
                while (batch := run_sync(mapping.next_batch(False))) is not None:
                    yield batch
            finally:
                mapping.close()

    async def _iterate_async(self) -> AsyncIterator[R]:
        mapping = self._mapping
        with their_frames:
            try:
                while (batch := await run_async(mapping.next_batch(True))) is not None:
                    for output in batch:
                        yield output
            finally:
                mapping.close()

    def __repr__(self) -> str:
        return f"<outputs of {self._mapping.function.name}: loop over them{'' if self._begun else ', and it begins'}>"

    def __del__(self) -> None:
        if not getattr(self, "_begun", True):
            name = self._mapping.function.name
            warnings.warn(f"{name}.map(...) was never iterated, so nothing ran: loop over it", stacklevel=2)


class _Outputs(chain[R]):
    """Outputs one by one, at half the price of a generator that yields them, and with its `close`."""

    batches: Generator[list[R], None, None]

    def close(self) -> None:
        """End the map; there are no more outputs."""
        self.batches.close()
        deque(self, 0)


class Mapping:
    """One map as it runs. `next_batch` is driven by either face of `Mapped`."""

    def __init__(
        self,
        function: Function[..., Any],
        inputs: Any,
        *,
        starred: bool,
        kwargs: dict[str, Any],
        order_outputs: bool,
        return_exceptions: bool,
        wrap_returned_exceptions: bool | None,
    ) -> None:
        self.function = function
        self._inputs = inputs
        self._starred = starred
        self._kwargs = kwargs
        self._ordered = order_outputs
        self._return_exceptions = return_exceptions
        self._wrap = bool(wrap_returned_exceptions)
        self._submission: Submission | None = None
        self._inbox: Inbox | None = None
        self._iterator: Iterator[Any] | Pump | None = None
        self._exhausted = False
        self._length = 0  # of the iterables, as far as they say it and somebody watches
        self._watched: dict[str, tuple[str, Mapping]] = {}
        self._input_error: Exception | None = None  # ends the inputs; it comes after the outputs of those before
        self._pace = Pace()
        self._consumed = 0  # outputs handed to the consumer, all of them eaten when it asks for more
        self._next = 0  # the position whose output comes next, in order
        self._arrived: dict[int, Outcome] = {}
        self._error: BaseException | None = None
        self._finished = False

    @property
    def to_be_pulled(self) -> int:
        """How many inputs are still to come, as far as the iterables have said."""
        submission = self._submission
        return 0 if submission is None or self._exhausted else max(0, self._length - submission.submitted)

    # -- the consumer's side -----------------------------------------------------------------------

    async def next_batch(self, asynchronous: bool) -> list[Any] | None:
        """The next outputs, at least one; `None` at the end; raises a failure when its turn comes."""
        if self._submission is None:
            self._begin(asynchronous)
        assert self._submission is not None and self._inbox is not None
        while True:
            if self._error is None:
                self._receive(self._inbox.take())
                self._send_inputs()
                if batch := self._emit():
                    self._consumed += len(batch)
                    return batch
            if self._error is not None:
                raise self._error
            if self._exhausted and self._consumed == self._submission.submitted:
                if self._input_error is not None:
                    raise self._input_error
                self._submission.end()
                self._finished = True
                return None
            if not self._may_pull():
                await self._sleep(self._inbox)

    def close(self) -> None:
        """The consumer has left, or the map has ended."""
        if isinstance(self._iterator, Pump):
            self._iterator.close()
        if self._submission is None or self._inbox is None:
            return
        if not self._finished:
            self._inbox.cancel(running=False)
        self._inbox.close()
        self._submission.close()
        self._watched.pop(self._submission.call, None)
        ended = InvalidError(f"this map of {self.function.name} has ended: call .map again for its outputs once more")
        self._submission, self._finished, self._error = None, True, ended

    async def _sleep(self, inbox: Inbox) -> None:
        """Until there is something to look at."""
        if isinstance(self._iterator, Pump):
            await inbox.sleep(unless=self._may_pull)
        else:
            await inbox.arrival()

    # -- inputs ------------------------------------------------------------------------------------

    def _begin(self, asynchronous: bool) -> None:
        if self._error is not None:
            raise self._error
        client, function_id = self.function.connect()
        call = new_id("fc")
        if client.is_watched:
            self._length, self._watched = self._inputs.length(), client.maps
            self._watched[call] = (function_id, self)
        self._inbox = client.open_inbox(call, renewable=True)
        self._submission = Submission(self._inbox, call, function_id, "map", method=self.function.method)
        self._iterator = self._inputs.open(asynchronous, self._inbox)

    def _may_pull(self) -> bool:
        assert self._submission is not None
        if self._exhausted or self._submission.is_refused:
            return False
        room = self._room()
        is_enough = self._pace.is_enough(room)
        return (not isinstance(self._iterator, Pump) or self._iterator.has_items_of(room)) and is_enough

    def _room(self) -> int:
        assert self._submission is not None
        under_way = self._submission.submitted - self._consumed
        return self._pace.room(under_way, may_go_ahead=not isinstance(self._iterator, Pump))

    def _look(self) -> None:
        assert self._submission is not None
        self._pace.look(self._submission.submitted, self._consumed, perf_counter())

    def _send_inputs(self) -> None:
        """Send segments while there is room; one only, where pulling its inputs took long."""
        assert self._submission is not None
        self._look()
        while self._may_pull():
            began = perf_counter()
            if segment := self._pack(self._pull(min(self._pace.segment, self._room()), began)):
                self._send(*segment)
            elif self._input_error is None:
                self._submission.end()
            if perf_counter() - began > PULL_SECONDS:
                return

    def _pull(self, size: int, began: float) -> list[Any]:
        """Up to `size` inputs; fewer from a slow iterator, or at its end."""
        pulled: list[Any] = []
        iterator, chunk = self._iterator, 1
        assert iterator is not None
        try:
            if isinstance(iterator, Pump):
                pulled, self._exhausted = iterator.take(size)
                return pulled
            while len(pulled) < size:
                wanted = min(size, len(pulled) + chunk)
                pulled.extend(islice(iterator, wanted - len(pulled)))  # keeps what came before an exception
                if len(pulled) < wanted:
                    self._exhausted = True
                    break
                passed = perf_counter() - began
                if passed > PULL_SECONDS:
                    break
                chunk = 4 * chunk if passed < PULL_SECONDS / 8 else 1
        except Exception as error:
            self._input_error, self._exhausted = error, True
        return pulled

    def _pack(self, inputs: list[Any]) -> tuple[Packed, int] | None:
        """A segment of these inputs, the next after those that were sent, and how many it has; `None` without any."""
        assert self._submission is not None
        try:
            packed = pack_segment(self.function, inputs, self._starred, self._kwargs) if inputs else None
        except PackError as error:
            self._input_error, self._exhausted = unpicklable(self._submission.submitted, error), True
            return self._pack(inputs[: error.index])
        if packed is None:
            return None
        self._pace.packed(len(inputs), packed.size)
        return packed, len(inputs)

    def _send(self, packed: Packed, inputs: int) -> None:
        assert self._submission is not None
        self._submission.send(packed, inputs, self._exhausted)
        self._look()

    # -- outputs -----------------------------------------------------------------------------------

    def _receive(self, frames: list[Frame]) -> None:
        assert self._inbox is not None and self._submission is not None
        for message, payload in frames:
            if isinstance(message, m.Outputs | m.Failed):
                if not (outcomes := outcomes_of(self._inbox, message, payload)):
                    continue
                self._arrived.update(self._submission.settle(outcomes))
            self._submission.answered(message)

    def _emit(self) -> list[Any]:
        """What may be handed out now. A failure that must be raised waits in `_error` for the next turn."""
        batch: list[Any] = []
        while self._arrived and self._error is None:
            first = self._next if self._ordered else next(iter(self._arrived))
            arrived = self._arrived.pop(first, None)
            if arrived is None:
                break
            if not isinstance(arrived, Failure):
                batch += arrived
                self._next = first + len(arrived)
                continue
            error, inputs = arrived
            if not self._return_exceptions:
                self._error = raisable(error)
                break
            batch += [UserCodeException(error) if self._wrap else error] * inputs
            self._next = first + inputs
        return batch
