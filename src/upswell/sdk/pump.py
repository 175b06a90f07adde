"""The inputs of a map, from whatever iterables they come.

Plain iterables are advanced by whoever iterates the map, in that thread. Asynchronous ones are advanced by a task,
which holds what they yield until the map takes it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from operator import length_hint
from typing import TYPE_CHECKING, Any

from .inbox import Inbox

if TYPE_CHECKING:
    import asyncio


class Pump:
    """Advances one asynchronous iterator on a loop, as far ahead of `take` as the map has room."""

    def __init__(self, iterator: AsyncIterator[Any], inbox: Inbox, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        self._inbox = inbox
        self._loop = loop
        self._items: deque[Any] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._limit = 1  # inputs to hold
        self._eased = asyncio.Event()  # set when there may be room again
        loop.call_soon_threadsafe(self._start, iterator)

    def has_items_of(self, room: int) -> bool:
        """Whether `take` has something to say. From now on at most `room` inputs are held."""
        eases, self._limit = room > self._limit, room
        if eases:
            self._loop.call_soon_threadsafe(self._eased.set)
        return bool(self._items) or self._ended

    def take(self, size: int) -> tuple[list[Any], bool]:
        """Up to `size` inputs, and whether they are the last; raises what the iterator raised."""
        taken = [self._items.popleft() for _ in range(min(size, len(self._items)))]
        if not taken and self._error is not None:
            raise self._error
        self._limit -= len(taken)
        return taken, self._ended and not self._items and self._error is None

    def close(self) -> None:
        """Stop advancing."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    def _start(self, iterator: AsyncIterator[Any]) -> None:
        self._task = self._loop.create_task(self._advance(iterator))

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _advance(self, iterator: AsyncIterator[Any]) -> None:
        import asyncio

        try:
            async for item in iterator:
                self._items.append(item)
                self._inbox.wake()
                self._eased.clear()
                while len(self._items) >= self._limit:
                    await self._eased.wait()
                    self._eased.clear()
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._inbox.wake()


_background: asyncio.AbstractEventLoop | None = None
_making = threading.Lock()


def background_loop() -> asyncio.AbstractEventLoop:
    """A loop in a thread of its own, for asynchronous iterators given to plain code; made when first needed."""
    import asyncio

    global _background
    with _making:
        if _background is None:
            _background = asyncio.new_event_loop()
            threading.Thread(target=_background.run_forever, name="upswell-loop", daemon=True).start()
            os.register_at_fork(after_in_child=_forget_loop)
        return _background


def _forget_loop() -> None:
    """In a forked child: the thread that runs the loop is the parent's alone."""
    global _background, _making
    _background, _making = None, threading.Lock()


class Inputs:
    """The input iterables of a map: one, or several zipped to the shortest; plain and asynchronous ones mix.

    With `starred`, the elements of the one iterable are argument tuples themselves.
    """

    def __init__(self, iterables: tuple[Any, ...], *, starred: bool = False) -> None:
        self._iterables = iterables
        self._starred = starred

    def open(self, asynchronous: bool, inbox: Inbox) -> Iterator[Any] | Pump:
        """Something that yields inputs: argument tuples where there are several iterables.

        What can be iterated both ways, as a map's outputs can, is iterated the way the map itself is.
        """
        if asynchronous:
            if any(hasattr(iterable, "__aiter__") for iterable in self._iterables):
                import asyncio

                return Pump(self._zipped(), inbox, asyncio.get_running_loop())
        elif all(map(_is_asynchronous_only, self._iterables)):
            return Pump(self._zipped(), inbox, background_loop())
        iterators = [_lowered(one) if _is_asynchronous_only(one) else iter(one) for one in self._iterables]
        if len(iterators) > 1:
            return zip(*iterators, strict=False)
        return map(arguments_of, iterators[0]) if self._starred else iterators[0]

    def length(self) -> int:
        """How many inputs there will be, where an iterable says how long it is; else 0. It may be mistaken."""
        lengths = []
        for one in self._iterables:
            try:
                lengths.append(length_hint(one))
            except Exception:
                pass  # it has none, or the user's code for it does not work: that is no matter of the map
        return min(filter(None, lengths), default=0)

    async def _zipped(self) -> AsyncIterator[Any]:
        iterators = [aiter(one) if hasattr(one, "__aiter__") else _lifted(one) for one in self._iterables]
        while True:
            try:
                items = [await anext(iterator) for iterator in iterators]
            except StopAsyncIteration:
                return
            yield arguments_of(items[0]) if self._starred else tuple(items) if len(items) > 1 else items[0]


def arguments_of(element: Any) -> tuple[Any, ...]:
    """The arguments that an element of a starmap stands for; `TypeError` where it stands for none."""
    if type(element) is tuple:
        return element
    try:
        return tuple(element)
    except TypeError:
        raise TypeError(
            f"starmap takes tuples of arguments, as in [(1, 2), (3, 4)], and {element!r} is none: for single arguments "
            "there is map"
        ) from None


def _is_asynchronous_only(iterable: Any) -> bool:
    return hasattr(iterable, "__aiter__") and not hasattr(iterable, "__iter__")


async def _lifted(iterable: Iterable[Any]) -> AsyncIterator[Any]:
    for item in iterable:
        yield item


def _lowered(iterable: AsyncIterable[Any]) -> Iterator[Any]:
    """An asynchronous iterable beside plain ones in plain code, where those must stay in the caller's thread."""
    import asyncio

    iterator = aiter(iterable)

    async def advance() -> Any:
        return await anext(iterator)

    while True:
        try:
            yield asyncio.run_coroutine_threadsafe(advance(), background_loop()).result()
        except StopAsyncIteration:
            return
