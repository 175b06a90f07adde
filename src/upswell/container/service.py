"""What a container serves: a function, or the methods of one object with the hooks that begin and end its life.

Hooks run in the main thread, asynchronous ones on the loop that asynchronous methods run on, so that what the former
make (a session, a pool of connections) the latter can use. Nothing here knows of inputs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import NotFoundError
from ..sdk.kinds import gives_coroutine, is_asynchronous, is_generating

if TYPE_CHECKING:
    import asyncio

Hook = Callable[[], Any]


class Bound(NamedTuple):
    """What an input runs: call it with the input's arguments."""

    callable: Callable[..., Any]
    is_async: bool  # it gives a coroutine, or as a generator an asynchronous one
    is_generator: bool

    @classmethod
    def of(cls, callable: Callable[..., Any], is_generator: bool | None = None) -> Bound:
        """As the function says of itself, unless `is_generator` says otherwise."""
        generates = is_generating(callable) if is_generator is None else is_generator
        return cls(callable, is_asynchronous(callable), generates)


class Service:
    """The user code of this container. A function is the one method named ""."""

    def __init__(self, methods: Mapping[str, Bound], enter: Sequence[Hook] = (), exit: Sequence[Hook] = ()) -> None:
        self._methods = dict(methods)
        self._enter = enter
        self._exit = exit
        self._entered = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_async(self) -> bool:
        """Whether the container runs a loop: a method or a hook is asynchronous."""
        hooks = (*self._enter, *self._exit)
        return any(bound.is_async for bound in self._methods.values()) or any(map(gives_coroutine, hooks))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of asynchronous hooks and methods; made when first asked for, in the main thread."""
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def bind(self, method: str) -> Bound:
        """What runs the inputs of `method`; `NotFoundError` where there is no such method."""
        try:
            return self._methods[method]
        except KeyError:
            known = ", ".join(sorted(self._methods)) or "none"
            raise NotFoundError(f"there is no method {method!r} in this container; there are: {known}") from None

    def enter(self) -> None:
        """Run the start-up hooks in order; the first that raises ends it, and no exit hook will run."""
        for hook in self._enter:
            self._run(hook)
        self._entered = True

    def exit(self) -> None:
        """Run every exit hook once, if all start-up hooks have run; what one raises is shown, and the next runs too.

        Called once nothing runs any more, or by what has just stopped and ends the process.
        """
        if not self._entered:
            return
        self._entered = False
        for hook in self._exit:
            try:
                self._run(hook)
            except Exception:
                import traceback

                traceback.print_exc()

    def _run(self, hook: Hook) -> None:
        from inspect import isawaitable

        outcome = hook()
        if not isawaitable(outcome):
            return
        if self.loop.is_running():  # a thread ends the process
            import asyncio

            asyncio.run_coroutine_threadsafe(_awaited(outcome), self.loop).result()
        else:
            self.loop.run_until_complete(outcome)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
