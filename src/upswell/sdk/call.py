"""`FunctionCall`: a handle on a spawned call, whose results are fetched later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import InvalidError, NotFoundError, OutputExpiredError
from ..spec import no_call, require
from ..wire import messages as m
from ..wire.ids import is_id, place_of
from ..wire.payload import PackError
from . import context
from .client import ask, new_id, new_request
from .clients import client_of_call, keeper_is_another
from .collection import Collection, collection_of
from .dual import Dual, dual, on_a_loop, run_async, run_sync
from .frames import their_frames
from .inbox import Inbox
from .outcomes import outcome_of
from .pump import Inputs, Pump
from .submission import Submission, pack_arguments, pack_segment, unpicklable

if TYPE_CHECKING:
    from .graph import InputInfo

R = TypeVar("R")

SPAWN_SEGMENT = 1000  # inputs of a spawn_map in one segment
SPAWN_UNACCEPTED = 8  # segments on their way at once


async def _gather(*calls: FunctionCall[Any]) -> list[Any]:
    """The outputs of these spawned calls, in their order; raises the first failure among them."""
    for call in calls:
        if not isinstance(call, FunctionCall):
            raise TypeError(f"FunctionCall.gather takes calls, as in FunctionCall.gather(*calls), not {call!r}")
    return [await call._get() for call in calls]


class FunctionCall(Generic[R]):
    """A spawned call. `object_id` names it; `FunctionCall.from_id` finds it again."""

    def __init__(
        self,
        object_id: str,
        total: int | None = None,
        is_kept: bool | None = None,
        place: tuple[str, int] | None = None,
    ) -> None:
        self.object_id = object_id
        self._name, self._position = place or place_of(object_id)  # which whoever has just made it knows
        self._first = max(0, self._position)  # of its inputs, in what travels under that name
        self._total = total if self._position < 0 else 1
        self._is_kept = is_kept  # by a server that keeps apps, as far as is known
        self._collection: Collection | None = None

    @classmethod
    def from_id(cls, object_id: str) -> FunctionCall[Any]:
        """The call of that id, which may have been spawned elsewhere; `NotFoundError` when it is used and unknown.

        Raises `InvalidError` for what is no id.
        """
        if not isinstance(object_id, str):
            raise TypeError(f"FunctionCall.from_id takes the object_id of a call, which is a str, not {object_id!r}")
        require(is_id(object_id), f"{object_id[:40]!r} is no id of a call: give the object_id of one, as in fc-5f3a")
        return FunctionCall(object_id)

    async def _get(self, timeout: float | None = None, *, index: int = 0) -> R:
        """The output of input `index`, once it is there.

        Raises the input's own exception, and the builtin `TimeoutError` when `timeout` seconds pass first (0: look).
        """
        if not await self._until_here(_checked(index), timeout):
            raise IndexError(f"{self.object_id} has {self._known_total()} inputs, counted from 0, and none at {index}")
        return self._collect().result(self._first + index)  # type: ignore[no-any-return]

    get = dual(_get)

    @property
    def iter(self) -> Iter[R]:
        """The outputs of the call in order, all of them or from `start` to `end`."""
        return Iter(self)

    @dual
    async def num_inputs(self) -> int:
        """How many inputs the call has, once that is known."""
        if self._total is None:
            await self._until(lambda: self._collect().total is not None, None)
            self._total = self._collect().total
        assert self._total is not None
        return self._total

    @dual
    async def cancel(self, terminate_containers: bool = False) -> None:
        """Cancel what has not ended; with `terminate_containers`, kill the containers that run it."""
        cancel = m.Cancel(self._name, True, terminate_containers, new_request(), self._position)
        await ask(client_of_call(self._is_kept), cancel, m.Done)

    @dual
    async def get_call_graph(self) -> list[InputInfo]:
        """The inputs of the call, each with the inputs of the calls it made below it, and how far they are.

        Raises `NotFoundError` where that is not known: a server remembers it of the latest calls, while it runs.
        """
        from .graph import tree  # by few programs, and late

        client, request = client_of_call(self._is_kept), new_id("rq")
        inbox = client.open_inbox(request, renewable=True)
        try:
            answer = await inbox.ask(m.DescribeGraph(request, self._name, self._position))
        finally:
            inbox.close()
        assert isinstance(answer, m.CallGraph)
        if answer.missing:
            known = "there is no such call, or the server remembers only later ones, or was started again since"
            raise NotFoundError(f"no call graph of {self.object_id} is known: {known}")
        return tree(answer.inputs)

    gather = Dual(_gather)

    def __repr__(self) -> str:
        here = 0
        if self._collection is not None:
            here = self._collection.results if self._position < 0 else int(self._first in self._collection)
        return f"FunctionCall({self.object_id!r}, {here} results here)"

    def __reduce__(self) -> Any:
        # It can be passed to containers, and fetched from there.
        return FunctionCall, (self.object_id, None, self._is_kept)

    # -- collecting --------------------------------------------------------------------------------

    async def _until_here(self, index: int, timeout: float | None) -> bool:
        """Whether there is an input `index`, once its result is here."""
        if self._position >= 0 and index:
            return False
        place = self._first + index
        await self._until(lambda: place in self._collect() or self._is_past(index), timeout)
        return place in self._collect()

    async def _until(self, enough: Callable[[], bool], timeout: float | None) -> None:
        try:
            await self._collect().until(enough, timeout, self.object_id)
        except OutputExpiredError as error:
            raise OutputExpiredError(str(error).replace(self._name, self.object_id)) from None
        except NotFoundError:
            # Known by its id alone, it may be a call of an app that another server keeps.
            if self._is_kept is not None or not keeper_is_another():
                raise self._missing() from None
            self._is_kept, self._collection = True, None
            await self._until(enough, timeout)

    def _collect(self) -> Collection:
        if self._collection is None:
            self._collection = collection_of(client_of_call(self._is_kept), self._name)
        return self._collection

    def _is_past(self, index: int) -> bool:
        there = self._collect().total
        if self._position >= 0 and there is not None and self._position >= there:
            raise self._missing()
        total = self._known_total()
        return total is not None and index >= total

    def _missing(self) -> NotFoundError:
        return NotFoundError(no_call(self.object_id))

    def _known_total(self) -> int | None:
        return self._collect().total if self._total is None else self._total


def _checked(index: int) -> int:
    if index < 0:
        raise InvalidError(f"results are counted from 0, and {index} is less")
    return index


class Iter(Generic[R]):
    """`.iter` of a call: one face for plain loops and, as `.aio`, for `async for`; both give the same object."""

    __slots__ = ("_call",)

    def __init__(self, call: FunctionCall[R]) -> None:
        self._call = call

    def __call__(self, *, start: int = 0, end: int | None = None, timeout: float | None = None) -> Results[R]:
        """The outputs of inputs `start .. end` in order, plainly or asynchronously iterable.

        Raises an input's own exception, and the builtin `TimeoutError` when the next output does not come within
        `timeout` seconds.
        """
        if self._call._position >= 0:  # what follows in what travels are other calls' inputs
            end = 1 if end is None else min(end, 1)
        return Results(self._call, _checked(start), end, timeout)

    aio = __call__


class Results(Generic[R]):
    """Outputs of a call in order."""

    def __init__(self, call: FunctionCall[R], start: int, end: int | None, timeout: float | None) -> None:
        self._call = call
        self._start = start
        self._end = end
        self._timeout = timeout

    def __iter__(self) -> Iterator[R]:
        with their_frames:
            index, first, collection = self._start, self._call._first, self._call._collect()
            while not self._is_end(index) and (
                first + index in collection or run_sync(self._call._until_here(index, self._timeout))
            ):
                yield collection.result(first + index)
                index += 1

    async def __aiter__(self) -> AsyncIterator[R]:
        with their_frames:
            index, first, collection = self._start, self._call._first, self._call._collect()
            while not self._is_end(index) and (
                first + index in collection or await run_async(self._call._until_here(index, self._timeout))
            ):
                yield collection.result(first + index)
                index += 1

    def _is_end(self, index: int) -> bool:
        return self._end is not None and index >= self._end


async def remote(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Submit one input and return its output, or raise its exception."""
    client, function_id = function.connect()
    packed = pack_arguments(function, args, kwargs)
    call = new_id("fc")
    inbox = client.open_inbox(call, renewable=True)
    try:
        parent = context.current_input_id() or ""
        submit = m.Submit(call, function_id, "remote", 0, 1, True, parent, method=function.method)
        return await outcome_of(inbox, submit, packed)
    except BaseException as error:
        if not isinstance(error, Exception):
            inbox.cancel()
        raise
    finally:
        inbox.close()
        packed.close()


async def spawn(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FunctionCall[Any]:
    """Submit one input, with others that are submitted at the same time, and return when the server has taken it."""
    packed, pool = pack_arguments(function, args, kwargs), function.pool
    client, function_id = pool.connect()
    spawn = client.spawning.add(packed, (function_id, function.method, context.current_input_id() or ""))
    try:
        await spawn
    except BaseException:
        client.spawning.give_up(spawn)
        raise
    if (error := spawn.error) is not None:
        raise type(error)(*error.args)
    return FunctionCall(spawn.call, 1, pool.is_kept, spawn.place)


async def spawn_many(function: Any, inputs: Inputs, starred: bool, kwargs: dict[str, Any]) -> FunctionCall[Any]:
    """Submit all inputs and return when the server has taken them."""
    asynchronous = await on_a_loop()
    client, function_id = function.connect()
    call = new_id("fc")
    inbox = client.open_inbox(call, renewable=True)
    submission = Submission(inbox, call, function_id, "spawn", method=function.method)
    iterator: Iterator[Any] | Pump | None = None
    client.attended.add(call)  # while the iterator takes its time nothing else says that this program is there
    try:
        iterator = inputs.open(asynchronous, inbox)
        pulled = await _pull(iterator, submission, inbox)
        while not submission.ended:
            # The last segment says that it is, so that whoever has taken all of them knows that it has; one without
            # inputs is all of a call that has none.
            following = await _pull(iterator, submission, inbox) if len(pulled) == SPAWN_SEGMENT else []
            submission.send(pack_segment(function, pulled, starred, kwargs), len(pulled), not following)
            await _accepted(submission, inbox, SPAWN_UNACCEPTED if following else 1)
            pulled = following
    except PackError as error:
        inbox.cancel()
        raise unpicklable(submission.submitted, error) from None
    except BaseException:
        inbox.cancel()
        raise
    finally:
        client.attended.discard(call)
        if isinstance(iterator, Pump):
            iterator.close()
        inbox.close()
        submission.close()
    return FunctionCall(call, submission.submitted, function.pool.is_kept)


async def _pull(iterator: Iterator[Any] | Pump, submission: Submission, inbox: Inbox) -> list[Any]:
    """The inputs of the next segment; fewer than it has room for, or none, at the end."""
    if not isinstance(iterator, Pump):
        return list(islice(iterator, SPAWN_SEGMENT))
    pulled: list[Any] = []
    ended = False
    while not ended and (room := SPAWN_SEGMENT - len(pulled)):
        has_items = partial(iterator.has_items_of, room)
        while not has_items():
            await inbox.sleep(unless=has_items)
            for message, _ in inbox.take():
                submission.answered(message)
        more, ended = iterator.take(room)
        pulled += more
    return pulled


async def _accepted(submission: Submission, inbox: Inbox, below: int) -> None:
    """Wait until fewer than `below` segments are on their way."""
    while submission.unaccepted >= below:
        for message, _ in await inbox.receive():
            submission.answered(message)
