"""`Function`: what `@app.function()` makes of a function, and every way to call it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Never, NoReturn, ParamSpec, Self, TypeVar, Unpack

from .. import sdk
from ..errors import InvalidError
from ..spec import AutoscalerSettings, FunctionSpec, require
from . import verbs
from .dual import Dual, dual, on_a_loop
from .environment import serializing
from .kinds import is_asynchronous
from .options import PoolOptions
from .pool import Autoscaler, FunctionStats, Pool
from .variables import Variables

if TYPE_CHECKING:
    from .call import FunctionCall
    from .client import Client
    from .mapping import Mapped, Mapping

P = ParamSpec("P")
R = TypeVar("R")

MAP_OPTIONS = ("order_outputs", "return_exceptions", "wrap_returned_exceptions")


class Function(Generic[P, R]):
    """A function of an app, or a method of an object. Calling it needs a verb: `.remote`, `.local`, `.map`, `.spawn` …

    Its inputs are run by the containers of `pool`; `here` is what `.local` calls.
    """

    def __init__(
        self,
        pool: Pool,
        raw: Callable[P, R],
        *,
        method: str = "",
        is_generator: bool,
        here: Callable[P, R] | None = None,
        origin: object = None,
    ) -> None:
        """`origin` is the object whose method it is, or the function of which it has other options."""
        self._pool: Pool | None = pool  # none where the server has not been asked for it yet
        self._is_generator = is_generator
        self._origin = origin
        self._describe(pool.name, method, raw, here or raw)

    def _describe(self, owner: str, method: str, raw: Callable[P, R], here: Callable[P, R]) -> None:
        self.raw = raw
        self.method = method
        self.name = f"{owner}.{method}" if method else owner
        self.is_async = is_asynchronous(raw)
        self._here = here
        self.__name__, self.__doc__, self.__wrapped__ = method or owner, raw.__doc__, raw
        self.__module__, self.__qualname__ = raw.__module__, getattr(raw, "__qualname__", self.name)

    @classmethod
    def from_name(
        cls, app_name: str, name: str, *, version: int | None = None, environment_name: str | None = None
    ) -> Function[..., Any]:
        """The function `name` of the deployed app `app_name`.

        Nothing is asked before it is used; then `NotFoundError` where there is no such app or function, or where
        another `version` than that is served. Raises `InvalidError` for what can't be a name.
        """
        from .named import NamedFunction, Names

        return NamedFunction(Names.checked(app_name, "function", name, version))

    @property
    def pool(self) -> Pool:
        """The queue and the containers that its inputs go to."""
        assert self._pool is not None
        return self._pool

    @property
    def is_generator(self) -> bool:
        """Whether it yields, so that `remote_gen` is its verb."""
        return self._is_generator

    async def _resolved(self) -> Pool:
        """Its pool, for which the server is asked now if the function is known by name alone."""
        return self.pool

    @dual
    async def hydrate(self) -> Self:
        """Find the function at its server now rather than when it is used first, and return it.

        Raises `NotFoundError` where a deployed app has none of that name, `InvalidError` while its app does not run.
        """
        await self._resolved()
        self.connect()
        return self

    remote = verbs.Outcome(lambda function: Dual(function._remote))
    remote_gen = verbs.Yielded(lambda function: sdk.streaming.RemoteGenerator(function))
    spawn = verbs.Spawned(lambda function: Dual(function._spawn))
    spawn_map = verbs.SpawnedMap(lambda function: Dual(function._spawn_map))
    map = verbs.Maps(lambda function: Map(function, starred=False))
    starmap = verbs.Maps(lambda function: Map(function, starred=True))

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here, in this process; an async function gives a coroutine, as it would undecorated.

        For a method, the start-up hooks of its object run here first, once.
        """
        return self._here(*args, **kwargs)

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"{self.name} is a function of an app and is not called directly: use {self.name}.remote(...) to run it in "
            f"a container, {self.name}.local(...) to run it here, or {self.name}.map(inputs) for many inputs"
        )

    def __repr__(self) -> str:
        return f"Function({self.name!r}{', running' if self.pool.is_running else ''})"

    def __reduce__(self) -> Any:
        """By value it takes its code and pool along; else it is what its module has under its name.

        A method travels as the object does, and what has other options as the function and these.
        """
        if self.method:
            return getattr, (self._origin, self.method)
        if self._origin is not None:
            return _changed, (self._origin, self.pool.spec, self.pool.own_variables, self.pool.key)
        if serializing.get() or self.pool.serialized:
            # The code first: what it names, this handle perhaps, needs the pool as a whole.
            return _by_value, (self.raw, self.pool, self.is_generator)
        if getattr(sys.modules.get(self.__module__), self.__qualname__, None) is self:
            return self.__qualname__
        raise TypeError(f"{self.name} can't be pickled: pass its name, or import its module where it is needed")

    def connect(self) -> tuple[Client, str]:
        """The client and the id of the pool; `InvalidError` while the app does not run."""
        return self.pool.connect()

    # -- one input ---------------------------------------------------------------------------------

    async def _remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in a container with these arguments and return its result, or raise its exception."""
        await self._resolved()
        self._refuse_generator("remote")
        return await sdk.call.remote(self, args, kwargs)  # type: ignore[no-any-return]

    async def _spawn(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        """Start the function with these arguments and return at once; fetch the result from the `FunctionCall`."""
        if self._pool is None:
            await self._resolved()
        self._refuse_generator("spawn")
        return await sdk.call.spawn(self, args, kwargs)

    # -- many inputs -------------------------------------------------------------------------------

    async def _spawn_map(self, *iterables: Any, kwargs: dict[str, Any] | None = None) -> FunctionCall[R]:
        """Start the function once for each input and return when all are submitted."""
        await self._resolved()
        self._refuse_generator("spawn_map")
        starred = len(_iterables(iterables, f"{self.name}.spawn_map")) > 1
        return await sdk.call.spawn_many(self, sdk.pump.Inputs(iterables), starred, kwargs or {})

    @dual
    async def for_each(
        self, *iterables: Any, kwargs: dict[str, Any] | None = None, ignore_exceptions: bool = False
    ) -> None:
        """Run the function once for each input, for its effects; with `ignore_exceptions` failures are passed over."""
        mapping = self.map.start("for_each", iterables, kwargs, False, ignore_exceptions, None)
        asynchronous = await on_a_loop()
        try:
            while await mapping.next_batch(asynchronous) is not None:
                pass
        finally:
            mapping.close()

    # -- scaling -----------------------------------------------------------------------------------

    @property
    def get_current_stats(self) -> Dual[[], FunctionStats]:
        """The backlog, containers, running inputs and free places of the function's pool, now."""
        return self.pool.get_current_stats

    @property
    def update_autoscaler(self) -> Dual[..., AutoscalerSettings]:
        """Change how the running function scales; `None` leaves a setting as it is. Returns the settings in force."""
        return self._whole_pool("update_autoscaler").update_autoscaler

    @property
    def autoscaler(self) -> Autoscaler:
        """The settings by which the running function scales, and their change."""
        return self._whole_pool("autoscaler").autoscaler

    def with_options(self, **options: Unpack[PoolOptions]) -> Function[P, R]:
        """The function with these options in place of what it was declared with, and a pool of its own."""
        pool, where = self._whole_pool("with_options"), f"{self.name}.with_options"
        refused = self.is_generator and options.get("retries")
        require(not refused, f"{where}: {self.name} is a generator, which can't have retries")
        return self._on(pool.with_options(where, options))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Function[P, R]:
        """The function where a container takes up to `max_inputs` at once, with a pool of its own.

        The autoscaler aims at `target_inputs` for each container, by default `max_inputs`.
        """
        pool = self._whole_pool("with_concurrency")
        return self._on(pool.with_concurrency(f"{self.name}.with_concurrency", max_inputs, target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Function[P, R]:
        """The function where inputs run in batches, formed within `wait_ms` milliseconds, with a pool of its own."""
        pool = self._whole_pool("with_batching")
        where = f"{self.name}.with_batching"
        require(not self.is_generator, f"{where}: {self.name} is a generator, and a batch is returned as a list")
        return self._on(pool.with_batching(where, max_batch_size, wait_ms))

    def _on(self, pool: Pool) -> Function[P, R]:
        origin = self._origin or self
        return Function(pool, self.raw, is_generator=self.is_generator, here=self._here, origin=origin)

    def _whole_pool(self, verb: str) -> Pool:
        if self.method:
            raise InvalidError(
                f"{self.name}.{verb}: all methods of an object share its containers: call it on the object, as in "
                f"{self.pool.name}(...).{verb}, or for the with_ kin on the class"
            )
        return self.pool

    def _refuse_plain(self) -> None:
        if not self.is_generator:
            raise InvalidError(f"{self.name} is no generator: use {self.name}.remote(...), not .remote_gen")

    def _refuse_generator(self, verb: str) -> None:
        if self.is_generator:
            raise InvalidError(f"{self.name} is a generator: use {self.name}.remote_gen(...), not .{verb}")


def _by_value(raw: Callable[..., Any], pool: Pool, is_generator: bool) -> Function[..., Any]:
    return Function(pool, raw, is_generator=is_generator)


def _changed(function: Function[P, R], spec: FunctionSpec, variables: Variables | None, key: str) -> Function[P, R]:
    return function._on(function.pool.restore(spec, variables, key=key))


class Map(Generic[R]):
    """`.map` and `.starmap`: one face for plain loops and, as `.aio`, for `async for`; both give the same object."""

    __slots__ = ("_function", "_starred")

    def __init__(self, function: Function[..., R], *, starred: bool) -> None:
        self._function = function
        self._starred = starred

    def __call__(
        self,
        *iterables: Any,
        kwargs: dict[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
        **unknown: Never,
    ) -> Mapped[R]:
        """Run the function once for each input, on as many containers as that deserves.

        `iterables` are zipped to the shortest (for starmap: one iterable of argument tuples), plain or asynchronous;
        `kwargs` go to every input. Outputs come in the order of inputs, or with `order_outputs=False` as they are
        ready. An exception surfaces at its input's turn; with `return_exceptions` it stands in the output's place, and
        with `wrap_returned_exceptions` inside a `UserCodeException`. Lazy: nothing runs before it is iterated.
        """
        verb = "starmap" if self._starred else "map"
        for name in unknown:
            raise TypeError(_misplaced(f"{self._function.name}.{verb}", name))
        return sdk.mapping.Mapped(
            self.start(verb, iterables, kwargs, order_outputs, return_exceptions, wrap_returned_exceptions)
        )

    aio = __call__

    def start(
        self,
        verb: str,
        iterables: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        order_outputs: bool,
        return_exceptions: bool,
        wrap_returned_exceptions: bool | None,
    ) -> Mapping:
        """The mapping behind it."""
        self._function._refuse_generator(verb)
        where = f"{self._function.name}.{verb}"
        _iterables(iterables, where)
        if self._starred and len(iterables) > 1:
            raise TypeError(f"{where} takes one iterable of argument tuples, as in [(1, 2), (3, 4)]")
        return sdk.mapping.Mapping(
            self._function,
            sdk.pump.Inputs(iterables, starred=self._starred),
            starred=self._starred or len(iterables) > 1,
            kwargs=kwargs or {},
            order_outputs=order_outputs,
            return_exceptions=return_exceptions,
            wrap_returned_exceptions=wrap_returned_exceptions,
        )


def _iterables(given: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    """What is given, if it is iterables of inputs; else `TypeError`, where the map is written."""
    if not given:
        raise TypeError(f"{where} needs at least one iterable of inputs, as in {where}(inputs)")
    for one in given:
        if not (hasattr(one, "__iter__") or hasattr(one, "__aiter__") or hasattr(one, "__getitem__")):
            raise TypeError(f"{where} takes iterables of inputs, and {one!r} is none: for one input there is .remote")
    return given


def _misplaced(where: str, name: str) -> str:
    """What is said of a keyword that no map has: it is misspelled, or meant for the function."""
    from difflib import get_close_matches  # by few programs, and late

    if close := get_close_matches(name, MAP_OPTIONS, 1):
        return f"{where} has no parameter {name!r}: did you mean {close[0]}?"
    return f"{where} has no parameter {name!r}: what is for the function at each input goes as kwargs={{{name!r}: ...}}"
