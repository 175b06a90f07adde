"""`App`: what groups functions, and runs them for as long as a block lasts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec

from ..errors import InvalidError
from ..spec import AutoscalerSettings, FunctionSpec, Resources, Retries, check_name, require
from ..wire import messages as m
from . import context
from .client import get_client, join_client, leave_client, new_id
from .decorators import marked_concurrency
from .dual import run_async, run_sync
from .function import Function
from .variables import Variables, say_of_gpus, say_of_volumes, say_once

if TYPE_CHECKING:
    from .image import Image
    from .secret import Secret

P = ParamSpec("P")
R = TypeVar("R")

CLOSE_SECONDS = 5.0  # how long the end of an app waits for its containers' last words
WITHOUT_EFFECT = (
    "cloud region proxy allow_cross_region_volumes network_file_systems ephemeral_disk enable_memory_snapshot "
    "nonpreemptible block_network experimental_options include_source i6pn rdma "
    "scheduler_placement"
).split()
NOT_YET = "a server that keeps apps is not part of this version: use app.run() or `upswell run`"


class LocalEntrypoint:
    """A function that `upswell run` calls here, with options from its signature."""

    def __init__(self, app: App, raw: Callable[..., Any], name: str) -> None:
        import inspect

        self.app = app
        self.raw = raw
        self.name = name
        self.is_async = inspect.iscoroutinefunction(raw)
        self.__doc__ = raw.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.raw(*args, **kwargs)


class App:
    """A group of functions that run together.

    `name` is of letters, digits, `-`, `_`, `.`, at most 64 characters (`InvalidError` otherwise); it may be left out.
    `image`, `secrets` and `volumes` are those of every function; what a function names itself comes on top.
    """

    _all: list[App] = []  # noqa: RUF012 - every app of this process, in the order they were made

    def __init__(
        self,
        name: str | None = None,
        *,
        tags: dict[str, str] | None = None,
        image: Image | None = None,
        secrets: Collection[Secret] = (),
        volumes: Mapping[Any, Any] | None = None,
        **options: Any,
    ) -> None:
        _say_without_effect("App", options)
        say_of_volumes(volumes)
        self.variables = Variables().over(image, secrets, None)
        self.name = None if name is None else check_name("app", name)
        self.tags = dict(tags or {})
        self.app_id: str | None = None
        self.functions: dict[str, Function[..., Any]] = {}
        self.registered_entrypoints: dict[str, LocalEntrypoint] = {}
        App._all.append(self)

    @classmethod
    def all_apps(cls) -> list[App]:
        """Every app of this process, in the order they were made."""
        return list(cls._all)

    @property
    def registered_functions(self) -> dict[str, Function[..., Any]]:
        """The app's functions by name."""
        return dict(self.functions)

    # -- declaring ---------------------------------------------------------------------------------

    def function(
        self,
        _function: None = None,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        retries: int | Retries | None = None,
        timeout: float = 300,
        startup_timeout: float | None = None,
        cpu: float | None = None,
        memory: int | None = None,
        env: Mapping[str, str | None] | None = None,
        image: Image | None = None,
        secrets: Collection[Secret] = (),
        volumes: Mapping[Any, Any] | None = None,
        gpu: str | list[str] | None = None,
        name: str | None = None,
        serialized: bool = False,
        is_generator: bool | None = None,
        single_use_containers: bool = False,
        schedule: object = None,
        **options: Any,
    ) -> Callable[[Callable[P, R]], Function[P, R]]:
        """Declare a function of the app.

        Scaling: `min_containers` are kept warm, `max_containers` never exceeded, `buffer_containers` idle extra ones
        while the function is active, `scaledown_window` (2..3600 s) the longest a surplus one idles. Failures:
        `retries` (a count, 1 s apart, or `Retries`), `timeout` in seconds for each attempt, `startup_timeout` for
        loading user code. Resources of a container: `cpu` cores reserved, `memory` MiB reserved and enforced. Variables
        of its environment: those of `image`, then of `secrets`, then of `env`. A function that is not at the top level
        of a module needs `serialized=True`. Raises `InvalidError` for what can't be.
        """
        if _function is not None:
            raise InvalidError("@app.function needs parentheses: write @app.function()")
        _say_without_effect("@app.function", options)
        say_of_volumes(volumes)
        say_of_gpus(gpu)
        if schedule is not None:
            raise InvalidError(f"@app.function: schedule needs a deployed app, and {NOT_YET}")
        try:
            spec = FunctionSpec(
                settings=AutoscalerSettings(
                    min_containers=min_containers,
                    max_containers=max_containers,
                    buffer_containers=buffer_containers,
                    scaledown_window=scaledown_window,
                ),
                resources=Resources(cpu=cpu or 0.0, memory_mib=memory or 0),
                retries=Retries.parse(retries),
                timeout=timeout,
                startup_timeout=startup_timeout if startup_timeout is not None else max(timeout, 300),
                single_use=single_use_containers,
            )
            variables = self.variables.over(image, secrets, env)
        except InvalidError as error:
            raise InvalidError(f"@app.function: {error}") from None

        def decorate(raw: Callable[P, R]) -> Function[P, R]:
            return self._declare(raw, name, spec, variables, serialized, is_generator)

        return decorate

    def _declare(
        self,
        raw: Callable[P, R],
        name: str | None,
        spec: FunctionSpec,
        variables: Variables,
        serialized: bool,
        is_generator: bool | None,
    ) -> Function[P, R]:
        import inspect

        if isinstance(raw, type):
            raise TypeError(f"@app.function is for functions, and {raw.__name__} is a class: use @app.cls")
        if isinstance(raw, Function):
            raise InvalidError(f"{raw.name} is a function of an app already")
        if not callable(raw):
            raise TypeError(f"@app.function is for functions, not {raw!r}")
        chosen = check_name("function", name if name is not None else raw.__name__)
        if "." in getattr(raw, "__qualname__", "") and not serialized:
            raise InvalidError(
                f"@app.function: {raw.__qualname__} is not at the top level of its module, so containers can't import "
                "it: move it there, or declare it with serialized=True"
            )
        generator = inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw)
        generator = generator if is_generator is None else is_generator
        require(not (generator and spec.retries), f"@app.function: {chosen} is a generator, which can't have retries")
        if chosen in self.functions:
            warnings.warn(f"{chosen} is declared twice in this app, and the later one wins", stacklevel=3)
        spec = msgspec.structs.replace(spec, concurrency=marked_concurrency(raw))
        function = Function(self, raw, chosen, spec, variables, serialized=serialized, is_generator=generator)
        self.functions[chosen] = function
        return function

    def local_entrypoint(
        self, _function: None = None, *, name: str | None = None
    ) -> Callable[[Callable[..., Any]], LocalEntrypoint]:
        """Declare what `upswell run` calls in the user's own process; options come from its signature."""
        if _function is not None:
            raise InvalidError("@app.local_entrypoint needs parentheses: write @app.local_entrypoint()")

        def decorate(raw: Callable[..., Any]) -> LocalEntrypoint:
            chosen = name or raw.__name__
            if chosen in self.registered_entrypoints:
                raise InvalidError(f"@app.local_entrypoint: there is an entrypoint {chosen!r} in this app already")
            entrypoint = self.registered_entrypoints[chosen] = LocalEntrypoint(self, raw, chosen)
            return entrypoint

        return decorate

    def cls(self, *_: Any, **__: Any) -> Any:
        """Classes are not part of this version."""
        raise InvalidError("@app.cls is not part of this version: use @app.function()")

    def include(self, other: App) -> App:
        """Add the other app's functions to this one; a name in both is an `InvalidError`. Returns this app."""
        for name, function in other.functions.items():
            require(name not in self.functions, f"both apps have a function {name!r}: give one another name")
            self.functions[name] = function
        return self

    # -- running -----------------------------------------------------------------------------------

    def run(self, *, detach: bool = False, **_: Any) -> Running:
        """Run the app for as long as a `with` or `async with` block lasts."""
        require(not detach, f"app.run(detach=True): {NOT_YET}")
        return Running(self)

    def deploy(self, *_: Any, **__: Any) -> None:
        """Deployed apps are not part of this version."""
        raise InvalidError(f"app.deploy: {NOT_YET}")

    @classmethod
    def lookup(cls, name: str, **_: Any) -> App:
        """Deployed apps are not part of this version."""
        raise InvalidError(f"App.lookup({name!r}): {NOT_YET}")

    def bind(self, app_id: str) -> None:
        """Give the functions their ids as part of the running app."""
        self.app_id = app_id
        for name, function in self.functions.items():
            function.id = f"{app_id}/{name}"

    def unbind(self) -> None:
        """The app runs no more."""
        self.app_id = None
        for function in self.functions.values():
            function.id = ""

    def watch(self, callback: Callable[[m.Progress], None]) -> None:
        """Have `callback` told, in another thread, how the running app's functions progress."""
        if self.app_id is not None:
            get_client().watch(self.app_id, callback)

    def __repr__(self) -> str:
        state = "running" if self.app_id else "not running"
        return f"App({self.name!r}, {len(self.functions)} functions, {state})"


class Running:
    """The block in which an app runs."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def _open(self) -> None:
        app = self._app
        if context.importing:
            raise context.ImportEnds
        require(context.server is None, "app.run() is for the program outside: inside a container its app runs already")
        require(app.app_id is None, f"{app!r} is running already")
        app_id = new_id("ap")
        # The server boots while the rest is made ready.
        client = join_client()
        try:
            records = [function.record(app_id) for function in app.functions.values()]
            app.bind(app_id)
            client.send(m.OpenApp(app_id, app.name or "", records))
        except BaseException:
            app.unbind()
            leave_client()
            raise

    async def _close(self, failed: bool) -> None:
        app, client = self._app, get_client()
        app_id = app.app_id or ""
        inbox = client.open_inbox(app_id)
        try:
            client.send(m.CloseApp(app_id))
            await inbox.sleep(CLOSE_SECONDS)
        except Exception:
            if not failed:
                raise
        finally:
            client.close_inbox(app_id)
            app.unbind()
            leave_client()

    def __enter__(self) -> App:
        run_sync(self._open())
        return self._app

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_sync(self._close(kind is not None))

    async def __aenter__(self) -> App:
        await run_async(self._open())
        return self._app

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await run_async(self._close(kind is not None))


def _say_without_effect(where: str, options: dict[str, Any]) -> None:
    """Options of Modal's SDK that a self-hosted system has no use for are accepted, and said once."""
    for name, value in options.items():
        if name not in WITHOUT_EFFECT:
            raise TypeError(f"{where} has no parameter {name!r}")
        if value:
            say_once(f"{name}= has no effect here")
