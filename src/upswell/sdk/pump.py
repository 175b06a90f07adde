"""Asynchronous input iterators: a task advances them and holds what they yield until the map takes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..spec import MAP_WINDOW
from .client import Inbox

if TYPE_CHECKING:
    import asyncio


class Pump:
    """Advances one asynchronous iterator on a loop, at most `MAP_WINDOW` inputs ahead of `take`."""

    def __init__(self, iterator: AsyncIterator[Any], inbox: Inbox, loop: asyncio.AbstractEventLoop) -> None:
        self._inbox = inbox
        self._loop = loop
        self._items: deque[Any] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Event | None = None
        loop.call_soon_threadsafe(self._start, iterator)

    @property
    def has_items(self) -> bool:
        """Whether `take` has something to say."""
        return bool(self._items) or self._ended

    def take(self, size: int) -> tuple[list[Any], bool]:
        """Up to `size` inputs, and whether they are the last; raises what the iterator raised."""
        taken = [self._items.popleft() for _ in range(min(size, len(self._items)))]
        if not taken and self._error is not None:
            raise self._error
        if self._room is not None:
            self._loop.call_soon_threadsafe(self._room.set)
        return taken, self._ended and not self._items and self._error is None

    def close(self) -> None:
        """Stop advancing."""
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _start(self, iterator: AsyncIterator[Any]) -> None:
        import asyncio

        self._room = asyncio.Event()
        self._task = self._loop.create_task(self._advance(iterator))

    async def _advance(self, iterator: AsyncIterator[Any]) -> None:
        import asyncio

        assert self._room is not None
        try:
            async for item in iterator:
                self._items.append(item)
                self._inbox.wake()
                while len(self._items) >= MAP_WINDOW:
                    self._room.clear()
                    await self._room.wait()
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._inbox.wake()


_background: asyncio.AbstractEventLoop | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """A loop in a thread of its own, for asynchronous iterators given to plain code; made when first needed."""
    import asyncio

    global _background
    if _background is None:
        _background = asyncio.new_event_loop()
        threading.Thread(target=_background.run_forever, name="upswell-loop", daemon=True).start()
    return _background


class Inputs:
    """The input iterables of a map: one, or several zipped to the shortest; plain and asynchronous ones mix."""

    def __init__(self, iterables: tuple[Any, ...]) -> None:
        for iterable in iterables:
            if not hasattr(iterable, "__aiter__"):
                iter(iterable)  # raises the TypeError where the map is written
        self._iterables = iterables

    def open(self, asynchronous: bool, inbox: Inbox) -> Iterator[Any] | Pump:
        """Something that yields inputs: argument tuples where there are several iterables."""
        if not any(hasattr(iterable, "__aiter__") for iterable in self._iterables):
            return iter(self._iterables[0]) if len(self._iterables) == 1 else zip(*self._iterables, strict=False)
        import asyncio

        loop = asyncio.get_running_loop() if asynchronous else background_loop()
        return Pump(self._zipped(), inbox, loop)

    async def _zipped(self) -> AsyncIterator[Any]:
        iterators = [
            aiter(iterable) if hasattr(iterable, "__aiter__") else _lifted(iterable) for iterable in self._iterables
        ]
        while True:
            try:
                items = [await anext(iterator) for iterator in iterators]
            except StopAsyncIteration:
                return
            yield items[0] if len(items) == 1 else tuple(items)


async def _lifted(iterable: Iterable[Any]) -> AsyncIterator[Any]:
    for item in iterable:
        yield item
