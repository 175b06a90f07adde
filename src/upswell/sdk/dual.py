"""One coroutine, two faces: a method is written once and is called from plain and from asynchronous code.

Such a coroutine awaits nothing but a `Wait`. The plain face drives it in the caller's thread and blocks on a lock; the
`.aio` face awaits a future of the caller's loop. Neither needs a loop of ours.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from . import context
from .frames import their_frames

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
R = TypeVar("R")

# A signal that comes just before a thread blocks does not interrupt the system call that follows: so often whoever is
# blocked wakes up, for Python to see whether there was one.
HEARING_SECONDS = 1.0


class Reader(Protocol):
    """Reads the connection over which it is told that something has happened."""

    def read_here(self, wait: Wait) -> bool:
        """Read in this thread until it has happened; false where another thread reads, or has to."""

    def read_elsewhere(self) -> None:
        """See to it that another thread reads."""


class Wait:
    """Something that will happen once. Await it for at most `timeout` seconds; then look at `done`.

    Inside a container, who waits lends its place to another input, but not for what happens at once (`lends` false).
    """

    __slots__ = ("_future", "_lock", "_reader", "done", "lends", "timeout")

    def __init__(self, timeout: float | None = None, *, lends: bool = True, reader: Reader | None = None) -> None:
        self.done = False
        self.timeout = timeout
        self.lends = lends
        self._reader = reader
        self._lock: threading.Lock | None = None
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        """It has happened. May be called more than once, from any thread."""
        if (future := self._happen()) is not None:
            _tell(future.get_loop(), (future,))

    def _happen(self) -> asyncio.Future[None] | None:
        """Wake the thread that waits; returns what a task awaits."""
        self.done = True
        # Whoever waits made its lock or future before it looked at `done` for the last time.
        if self._lock is not None:
            try:
                self._lock.release()
            except RuntimeError:
                pass  # another thread has said so at the same moment
        return self._future

    def __await__(self) -> Generator[Wait, None, None]:
        if not self.done:
            yield self

    def block(self) -> None:
        """Wait in this thread."""
        if self._reader is not None and self._reader.read_here(self):
            return
        lock = threading.Lock()
        lock.acquire()
        self._lock = lock
        left = float("inf") if self.timeout is None else max(0.0, self.timeout)
        while not self.done and not lock.acquire(timeout=min(left, HEARING_SECONDS)) and left > HEARING_SECONDS:
            left -= HEARING_SECONDS

    def wait(self) -> Awaitable[object]:
        """What a task of the running loop awaits, at once."""
        import asyncio

        if self._reader is not None:
            self._reader.read_elsewhere()
        self._future = future = asyncio.get_running_loop().create_future()
        if self.done:
            _resolve((future,))
        return future if self.timeout is None else asyncio.wait((future,), timeout=self.timeout)


def set_all(waits: Iterable[Wait]) -> None:
    """All of it has happened: as `set` for each, and a loop with many tasks that wait is woken once."""
    awaited: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for wait in waits:
        if (future := wait._happen()) is not None:
            awaited.setdefault(future.get_loop(), []).append(future)
    for loop, futures in awaited.items():
        _tell(loop, futures)


def _tell(loop: asyncio.AbstractEventLoop, futures: Sequence[asyncio.Future[None]]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve, futures)
    except RuntimeError:
        pass  # the loop is closed, and whoever waited with it


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def run_sync(coroutine: Coroutine[Any, Any, R]) -> R:
    """Drive the coroutine in this thread."""
    try:
        wait: Wait = coroutine.send(None)
        while True:
            try:
                if context.running.get() is None:  # as in most programs, where it would be a tenth of the time
                    wait.block()
                else:
                    with _lent_place(wait):
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
                if context.running.get() is None:  # likewise, a third of the time
                    await wait.wait()
                else:
                    async with _lent_place(wait):
                        await wait.wait()
            except BaseException as error:
                wait = coroutine.throw(error)
            else:
                wait = coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def on_a_loop() -> bool:
    """Whether a loop drives this coroutine, and not a thread that blocks."""
    look = _Look(lends=False)
    await look
    return look.on_a_loop


class _Look(Wait):
    """Happens at once, and notes whether a loop waits for it or a thread."""

    __slots__ = ("on_a_loop",)

    def block(self) -> None:
        self.on_a_loop = False

    def wait(self) -> Awaitable[object]:
        import asyncio

        self.on_a_loop = True
        return asyncio.sleep(0)


class _lent_place:
    """Inside a container, who waits lends its place to another input and takes it back before it goes on."""

    __slots__ = ("_running",)

    def __init__(self, wait: Wait) -> None:
        self._running = context.running.get() if wait.lends else None

    def __enter__(self) -> None:
        if self._running is not None:
            self._running.suspend()

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.resume()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        if self._running is not None and self._running.resume_on_loop is not None:
            await self._running.resume_on_loop()
        else:
            self.__exit__()


class Dual(Generic[P, R]):
    """A method that blocks when called, and is a coroutine as `.aio`."""

    def __init__(self, method: Callable[P, Coroutine[Any, Any, R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __repr__(self) -> str:
        name = getattr(self._method, "__qualname__", "a method").replace("._", ".")
        return f"<{name}: call it, or await its .aio(...)>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        with their_frames:
            return run_sync(self._method(*args, **kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The same, for asynchronous code."""
        with their_frames:
            return await run_async(self._method(*args, **kwargs))


class dual(Generic[P, R]):
    """Decorates a coroutine method, so that `thing.method(...)` blocks and `thing.method.aio(...)` is awaited."""

    def __init__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._method.__qualname__ = f"{owner.__name__}.{name}"  # so Python names it where an argument is wrong

    def __get__(self, instance: object, owner: type) -> Dual[P, R]:
        return Dual(self._method.__get__(instance, owner))


class DualBlock(Generic[R]):
    """A block that is entered by `with` or by `async with`, and opened and closed by one pair of coroutines."""

    async def _open(self) -> R:
        """Begin; returns what stands behind `as`."""
        raise NotImplementedError

    async def _close(self, failed: bool) -> None:
        """End; where the block has `failed`, its exception goes on."""
        raise NotImplementedError

    def __enter__(self) -> R:
        with their_frames:
            return run_sync(self._open())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with their_frames:
            run_sync(self._close(kind is not None))

    async def __aenter__(self) -> R:
        with their_frames:
            return await run_async(self._open())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with their_frames:
            await run_async(self._close(kind is not None))


class DualIteration(Generic[P, R]):
    """A method that gives an iterator when called, and an asynchronous one as `.aio`; it is written in pages."""

    def __init__(self, method: Callable[P, AsyncIterator[list[R]]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        with their_frames:
            pages = self._method(*args, **kwargs)
            while (page := run_sync(_next_page(pages))) is not None:
                yield from page

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        """The same, for asynchronous code."""
        with their_frames:
            pages = self._method(*args, **kwargs)
            while (page := await run_async(_next_page(pages))) is not None:
                for item in page:
                    yield item


async def _next_page(pages: AsyncIterator[list[R]]) -> list[R] | None:
    return await anext(pages, None)


class dual_iteration(Generic[P, R]):
    """Decorates an asynchronous generator method that yields pages, for the two faces of `DualIteration`."""

    def __init__(self, method: Callable[Concatenate[Any, P], AsyncIterator[list[R]]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: object, owner: type) -> DualIteration[P, R]:
        return DualIteration(self._method.__get__(instance, owner))
