"""One coroutine, two faces: a method is written once and is called from plain and from asynchronous code.

Such a coroutine awaits nothing but a `Wait`. The plain face drives it in the caller's thread and blocks on a lock; the
`.aio` face awaits a future of the caller's loop. Neither needs a loop of ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from . import context

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
R = TypeVar("R")


class Wait:
    """Something that will happen once. Await it for at most `timeout` seconds; then look at `done`."""

    __slots__ = ("_future", "_lock", "done", "timeout")

    def __init__(self, timeout: float | None = None) -> None:
        self.done = False
        self.timeout = timeout
        self._lock: threading.Lock | None = None
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        """It has happened. Called once, from any thread."""
        self.done = True
        # Whoever waits made its lock or future before it looked at `done` for the last time.
        if self._lock is not None:
            self._lock.release()
        if (future := self._future) is not None:
            try:
                future.get_loop().call_soon_threadsafe(_resolve, future)
            except RuntimeError:
                pass  # the loop is closed, and whoever waited with it

    def __await__(self) -> Generator[Wait, None, None]:
        if not self.done:
            yield self

    def block(self) -> None:
        """Wait in this thread."""
        lock = threading.Lock()
        lock.acquire()
        self._lock = lock
        if not self.done:
            lock.acquire(timeout=-1 if self.timeout is None else self.timeout)

    async def wait(self) -> None:
        """Wait on the running loop."""
        import asyncio

        self._future = future = asyncio.get_running_loop().create_future()
        if not self.done:
            await asyncio.wait((future,), timeout=self.timeout)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def run_sync(coroutine: Coroutine[Any, Any, R]) -> R:
    """Drive the coroutine in this thread."""
    try:
        wait: Wait = coroutine.send(None)
        while True:
            try:
                with _lent_place():
                    wait.block()
            except BaseException as error:
                wait = coroutine.throw(error)
            else:
                wait = coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def run_async(coroutine: Coroutine[Any, Any, R]) -> R:
    """Drive the coroutine on the running loop."""
    try:
        wait: Wait = coroutine.send(None)
        while True:
            try:
                with _lent_place():
                    await wait.wait()
            except BaseException as error:
                wait = coroutine.throw(error)
            else:
                wait = coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


class _lent_place:
    """Inside a container, who waits lends its place to another input and takes it back before it goes on."""

    __slots__ = ("_running",)

    def __enter__(self) -> None:
        self._running = context.running.get()
        if self._running is not None:
            self._running.suspend()

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.resume()


class Dual(Generic[P, R]):
    """A method that blocks when called, and is a coroutine as `.aio`."""

    def __init__(self, method: Callable[P, Coroutine[Any, Any, R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return run_sync(self._method(*args, **kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The same, for asynchronous code."""
        return await run_async(self._method(*args, **kwargs))
