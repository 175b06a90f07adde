"""`FunctionCall`: a handle on a spawned call, whose results are fetched later."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any, Generic, TypeVar

from ..errors import NotFoundError
from ..wire import messages as m
from ..wire.codec import Frame
from .client import Inbox, get_client, new_id
from .dual import Dual, dual, run_async, run_sync
from .outcomes import error_of, values_of
from .submission import Submission, pack_arguments

R = TypeVar("R")

SPAWN_SEGMENT = 1000  # inputs of a spawn_map in one segment
SPAWN_UNACCEPTED = 8  # segments on their way at once


async def _gather(*calls: FunctionCall[Any]) -> list[Any]:
    """The outputs of these spawned calls, in their order; raises the first failure among them."""
    return [await call._get() for call in calls]


class FunctionCall(Generic[R]):
    """A spawned call. `object_id` names it; `FunctionCall.from_id` finds it again."""

    def __init__(self, object_id: str) -> None:
        self.object_id = object_id
        self._results: dict[int, Any] = {}  # position → ("value", …) or ("error", …), as far as they have come
        self._total: int | None = None
        self._missing: BaseException | None = None
        self._inbox: Inbox | None = None

    @classmethod
    def from_id(cls, object_id: str) -> FunctionCall[Any]:
        """The call of that id, which may have been spawned elsewhere; `NotFoundError` when it is used and unknown."""
        return FunctionCall(object_id)

    async def _get(self, timeout: float | None = None, *, index: int = 0) -> R:
        """The output of input `index`, once it is there.

        Raises the input's own exception, and the builtin `TimeoutError` when `timeout` seconds pass first (0: look).
        """
        await self._until(lambda: index in self._results or self._is_past(index), timeout)
        if index not in self._results:
            raise IndexError(f"{self.object_id} has {self._total} inputs, and none at {index}")
        return self._result(index)  # type: ignore[no-any-return]

    get = dual(_get)

    def iter(self, *, start: int = 0, end: int | None = None) -> Results[R]:
        """The outputs of inputs `start .. end` in order, plainly or asynchronously iterable."""
        return Results(self, start, end)

    @dual
    async def num_inputs(self) -> int:
        """How many inputs the call has, once that is known."""
        await self._until(lambda: self._total is not None, None)
        assert self._total is not None
        return self._total

    @dual
    async def cancel(self, terminate_containers: bool = False) -> None:
        """Cancel what has not ended; with `terminate_containers`, kill the containers that run it."""
        get_client().send(m.Cancel(self.object_id, True, terminate_containers))

    gather = Dual(_gather)

    def __repr__(self) -> str:
        return f"FunctionCall({self.object_id!r}, {len(self._results)} results here)"

    # -- collecting --------------------------------------------------------------------------------

    def _is_past(self, index: int) -> bool:
        return self._total is not None and index >= self._total

    def _result(self, index: int) -> Any:
        kind, value = self._results[index]
        if kind == "error":
            raise value
        return value

    async def _until(self, enough: Any, timeout: float | None) -> None:
        """Collect until `enough()`; the builtin `TimeoutError` after `timeout` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        client = get_client()
        if self._inbox is None:
            self._inbox = client.open_inbox(self.object_id)
            client.send(m.Collect(self.object_id, 0, -1))
            await self._inbox.sleep()  # the server's first answer is immediate
        while True:
            self._receive(self._inbox.take())
            if self._missing is not None:
                raise self._missing
            if enough():
                return
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                raise builtins.TimeoutError(f"{self.object_id} has no result yet")
            await self._inbox.sleep(left)

    def _receive(self, frames: list[Frame]) -> None:
        client = get_client()
        for message, payload in frames:
            match message:
                case m.Outputs(first=first):
                    for index, value in enumerate(values_of(client, message, payload)):
                        self._results[first + index] = ("value", value)
                case m.Failed(first=first, count=count, error=error) if count:
                    for index in range(first, first + count):
                        self._results[index] = ("error", error_of(error, payload))
                case m.Failed(error=error):
                    self._missing = NotFoundError(error.message)
                case m.CallDescribed(total=total) if total >= 0:
                    self._total = total


class Results(Generic[R]):
    """Outputs of a call in order."""

    def __init__(self, call: FunctionCall[R], start: int, end: int | None) -> None:
        self._call = call
        self._start = start
        self._end = end

    def __iter__(self) -> Iterator[R]:
        index = self._start
        while run_sync(self._has(index)):
            yield self._call._result(index)
            index += 1

    async def __aiter__(self) -> AsyncIterator[R]:
        index = self._start
        while await run_async(self._has(index)):
            yield self._call._result(index)
            index += 1

    async def _has(self, index: int) -> bool:
        if self._end is not None and index >= self._end:
            return False
        call = self._call
        await call._until(lambda: index in call._results or call._is_past(index), None)
        return index in call._results


async def spawn(function: Any, inputs: Any, starred: bool, kwargs: dict[str, Any]) -> FunctionCall[Any]:
    """Submit all inputs and return when the server has taken them."""
    client, function_id = function.connect()
    call = new_id("fc")
    inbox = client.open_inbox(call)
    submission = Submission(client, call, function_id, "spawn")
    try:
        pulled: list[Any] = []
        for one in inputs:
            pulled.append(tuple(one) if starred else (one,))
            if len(pulled) == SPAWN_SEGMENT:
                submission.send(pack_arguments(pulled, kwargs, submission.submitted), len(pulled), False)
                pulled = []
                await _accepted(submission, inbox, SPAWN_UNACCEPTED)
        if pulled:
            submission.send(pack_arguments(pulled, kwargs, submission.submitted), len(pulled), True)
        submission.end()
        await _accepted(submission, inbox, 1)
    except BaseException:
        client.send(m.Cancel(call))
        raise
    finally:
        client.close_inbox(call)
    return FunctionCall(call)


async def _accepted(submission: Submission, inbox: Inbox, below: int) -> None:
    """Wait until fewer than `below` segments are on their way."""
    while submission.unaccepted >= below:
        for message, _ in await inbox.receive():
            submission.answered(message)
