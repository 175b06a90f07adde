"""`App`: what groups functions, and runs them for as long as a block lasts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, dataclass_transform

from ..errors import InvalidError, NotFoundError
from ..spec import (
    EXIT_GRACE_SECONDS,
    Concurrency,
    Cron,
    FunctionRecord,
    Interface,
    Period,
    Strategy,
    check_name,
    require,
)
from . import context
from .clients import get_keeper, join_client, leave_client, sees_our_files
from .cls import Cls, declare_class, parameter
from .decorators import Method, marked_concurrency
from .dual import Dual, DualBlock, dual
from .environment import is_typed_in
from .function import Function
from .kinds import gives_coroutine, is_generating
from .options import WITHOUT_EFFECT, ClassOptions, Declaration, FunctionOptions, say_without_effect
from .pool import Home, Pool
from .variables import Variables, say_of_volumes, say_once

if TYPE_CHECKING:
    from ..wire.messages import Progress
    from .client import Client
    from .image import Image
    from .secret import Secret

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CLOSE_SECONDS = EXIT_GRACE_SECONDS + 5.0  # how long the end of an app waits for its containers' last words


class LocalEntrypoint:
    """A function that `upswell run` calls here, with options from its signature."""

    def __init__(self, app: App, raw: Callable[..., Any], name: str) -> None:
        self.app = app
        self.raw = raw
        self.name = name
        self.is_async = gives_coroutine(raw)
        self.__doc__ = raw.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.raw(*args, **kwargs)

    def __repr__(self) -> str:
        return f"LocalEntrypoint({self.name!r})"


async def _lookup(name: str, *, create_if_missing: bool = False, environment_name: str | None = None) -> App:
    """The deployed app of that name, without its functions; `Function.from_name` finds those.

    Raises `NotFoundError` where there is none, unless `create_if_missing`: then an app without functions is deployed.
    """
    app = App(check_name("app", name))
    if context.importing:
        return app  # by a container, which needs no more of it
    from ..wire.messages import Resolve, Resolved
    from .client import ask, new_request

    try:
        answer = await ask(get_keeper(), Resolve(new_request(), name, ""), Resolved)
    except NotFoundError:
        if not create_if_missing:
            raise
        from .deployment import deploy

        await deploy(app, None, "", "rolling")
    else:
        app.app_id = answer.app
    return app


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
        for option in options:
            if option not in WITHOUT_EFFECT:
                raise TypeError(f"App has no parameter {option!r}")
        say_without_effect(options)
        say_of_volumes(volumes)
        self.variables = Variables().over(image, secrets, None)
        self.name = None if name is None else check_name("app", name)
        self.tags = dict(tags or {})
        self.app_id: str | None = None  # while it runs, and from a deploy on
        self.is_running = False  # in a block of this program
        self.functions: dict[str, Function[..., Any]] = {}
        self.classes: dict[str, Cls] = {}
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
        self, _function: None = None, **options: Unpack[FunctionOptions]
    ) -> Callable[[Callable[P, R] | Method[P, R]], Function[P, R]]:
        """Declare a function of the app.

        Scaling: `min_containers` are kept warm, `max_containers` never exceeded, `buffer_containers` idle extra ones
        while the function is active, `scaledown_window` (2..3600 s) the longest a surplus one idles. Failures:
        `retries` (a count, 1 s apart, or `Retries`), `timeout` in seconds for each attempt, `startup_timeout` for
        loading user code. Resources of a container: `cpu` cores reserved, `memory` MiB reserved and enforced. Variables
        of its environment: those of `image`, then of `secrets`, then of `env`. With `single_use_containers` each runs
        one input. `name` is the function's own where it is not given, and `is_generator` is found out. A function that
        is not at the top level of a module needs `serialized=True`: then it travels by value, as what is in no file (of
        a notebook, say) does anyhow. Raises `InvalidError` for what can't be.
        """
        if _function is not None:
            raise InvalidError("@app.function needs parentheses: write @app.function()")
        declaration = Declaration.read("@app.function", self.variables, options, FunctionOptions)

        def decorate(raw: Callable[P, R] | Method[P, R]) -> Function[P, R]:
            function: Function[P, R] = self._declare(raw, declaration, options)
            return function

        return decorate

    def _declare(self, raw: Any, declaration: Declaration, options: FunctionOptions) -> Any:
        if isinstance(raw, type):
            raise TypeError(f"@app.function is for functions, and {raw.__name__} is a class: use @app.cls")
        if isinstance(raw, Function):
            raise InvalidError(f"@app.function: {raw.name} is a function of an app already: one decorator is enough")
        if isinstance(raw, LocalEntrypoint):
            raise InvalidError(
                f"@app.function: {raw.name} is a local entrypoint, which runs here: make the function another one, and "
                "call it from the entrypoint"
            )
        batching = None
        if isinstance(raw, Method):
            if raw.batching is None:
                raise InvalidError(f"@app.function: {raw.name} is under @upswell.method(), which is for classes")
            batching = raw.batching
        concurrency = marked_concurrency(raw, batching)
        raw = raw.raw if isinstance(raw, Method) else raw
        if not callable(raw):
            raise TypeError(f"@app.function is for functions, not {raw!r}")
        name = options.get("name") or getattr(raw, "__name__", "<lambda>")
        require(name != "<lambda>", f"@app.function: {raw!r} has no name: give it one, as in @app.function(name='f')")
        name = check_name("function", name)
        serialized = options.get("serialized", False)
        if "." in getattr(raw, "__qualname__", "") and not serialized and not is_typed_in(raw):
            raise InvalidError(
                f"@app.function: {raw.__qualname__} is not at the top level of its module, so containers can't import "
                "it: move it there, or declare it with serialized=True"
            )
        chosen = options.get("is_generator")
        generator = is_generating(raw) if chosen is None else chosen
        retries = declaration.spec.retries
        require(not (generator and retries), f"@app.function: {name} is a generator, which can't have retries")
        if concurrency != Concurrency():
            declaration = declaration.with_concurrency(concurrency)
        if schedule := checked_schedule(options.get("schedule"), name, raw, generator):
            declaration = declaration.with_schedule(schedule)
        interface = Interface(is_generator=generator, is_async=gives_coroutine(raw))
        pool = Pool(name, raw, declaration, serialized=serialized, interface=interface)
        function: Function[..., Any] = Function(pool, raw, is_generator=generator)
        self._make_way(name, raw)
        self.functions[name] = function
        return function

    @dataclass_transform(kw_only_default=True, field_specifiers=(parameter,))
    def cls(self, _class: None = None, **options: Unpack[ClassOptions]) -> Callable[[type[T]], type[T]]:
        """Declare a class of the app: `@upswell.method()` makes a method of it callable through an object.

        Options are those of `@app.function()`, less `name`, `schedule` and `is_generator`; each set of parameters has
        a pool of its own, to which they apply. Raises `InvalidError` for what can't be.
        """
        if _class is not None:
            raise InvalidError("@app.cls needs parentheses: write @app.cls()")
        declaration = Declaration.read("@app.cls", self.variables, options, ClassOptions)

        def decorate(raw: type[T]) -> type[T]:
            known = declare_class(raw, declaration, options.get("serialized", False))
            self._make_way(known.pool.name, raw)
            self.classes[known.pool.name] = known
            return raw

        return decorate

    def _make_way(self, name: str, raw: Callable[..., Any]) -> None:
        """One name is one pool."""
        if (name in self.functions or name in self.classes) and not is_typed_in(raw):  # a cell may be run again
            warnings.warn(f"{name} is declared twice in this app, and the later one wins", stacklevel=4)
        self.functions.pop(name, None)
        self.classes.pop(name, None)

    def local_entrypoint(
        self, _function: None = None, *, name: str | None = None
    ) -> Callable[[Callable[..., Any]], LocalEntrypoint]:
        """Declare what `upswell run` calls in the user's own process; options come from its signature."""
        if _function is not None:
            raise InvalidError("@app.local_entrypoint needs parentheses: write @app.local_entrypoint()")

        def decorate(raw: Callable[..., Any]) -> LocalEntrypoint:
            if isinstance(raw, Function):
                raise InvalidError(
                    f"@app.local_entrypoint: {raw.name} is a function of an app, which runs in containers: make the "
                    "entrypoint another one, and call the function from it"
                )
            if isinstance(raw, type) or not hasattr(raw, "__name__"):
                raise TypeError(f"@app.local_entrypoint is for functions, not {raw!r}")
            chosen = name or raw.__name__
            if chosen in self.registered_entrypoints:
                raise InvalidError(f"@app.local_entrypoint: there is an entrypoint {chosen!r} in this app already")
            entrypoint = self.registered_entrypoints[chosen] = LocalEntrypoint(self, raw, chosen)
            return entrypoint

        return decorate

    def include(self, other: App, *, inherit_tags: bool = True) -> App:
        """Add what the other app has to this one; a name in both is an `InvalidError`. Returns this app."""
        if not isinstance(other, App):
            raise TypeError(f"App.include takes another App, not {other!r}")
        for name in (*other.functions, *other.classes):
            taken = name in self.functions or name in self.classes
            require(not taken, f"both apps have a function or class {name!r}: give one another name")
        self.functions.update(other.functions)
        self.classes.update(other.classes)
        if inherit_tags:
            self.tags = {**other.tags, **self.tags}
        return self

    # -- running -----------------------------------------------------------------------------------

    def run(self, *, detach: bool = False, **_: Any) -> Running:
        """Run the app for as long as a `with` or `async with` block lasts.

        With `detach`, it runs on the server that keeps apps, and goes on there after the block until its calls have
        ended or it is stopped.
        """
        return Running(self, detach)

    @dual
    async def deploy(
        self,
        *,
        name: str | None = None,
        tag: str = "",
        strategy: Strategy = "rolling",
        environment_name: str | None = None,
    ) -> App:
        """Have the server keep the app and serve its functions by name; returns this app, with its id.

        What the app's code needs of this machine is sent along. `name` is in place of the app's own, and `tag` stands
        in the list of versions. Containers of the version before are replaced as new ones become ready ("rolling"), or
        all at once ("recreate"). A deploy that changes nothing makes no version and says so; settings that were
        changed as the app ran go back to those declared. Raises `InvalidError` for an app without a name or with too
        much code.
        """
        from .deployment import deploy

        deployment = await deploy(self, name, tag, strategy)
        if deployment.unchanged:
            print(f"upswell: {deployment.name} is unchanged: version {deployment.version} is served", file=sys.stderr)
        return self

    lookup = Dual(_lookup)

    @dual
    async def stop(self) -> None:
        """Stop the deployed or detached app: what waits is cancelled, containers end. `NotFoundError` when it is."""
        require(not self.is_running, f"{self!r} runs for as long as its block: leave that")
        require(self.app_id is not None, f"{self!r} is not deployed: to stop one by its name, look it up first")
        from ..wire.messages import Done, StopApp
        from .client import ask, new_request

        await ask(get_keeper(), StopApp(new_request(), self.app_id or ""), Done)
        self.unbind()

    @property
    def pools(self) -> list[Pool]:
        """The plain pools of the app's functions and classes."""
        functions, classes = self.functions.values(), self.classes.values()
        return [*(function.pool for function in functions), *(known.pool for known in classes)]

    @property
    def is_async(self) -> bool:
        """Whether something of the app is asynchronous."""
        functions, classes = self.functions.values(), self.classes.values()
        return any(function.is_async for function in functions) or any(known.is_async for known in classes)

    def bind(self, app_id: str) -> Home:
        """The app runs under that id: what it has takes inputs from now on."""
        self.app_id = app_id
        home = Home(app_id, self.name or "")
        for pool in self.pools:
            pool.serve(home, None)
        return home

    def serve(self, home: Home, records: Iterable[FunctionRecord]) -> None:
        """The app runs where its code was sent to: what it has takes inputs from now on, there."""
        self.app_id = home.app_id
        known = {record.name: record for record in records}
        for pool in self.pools:
            pool.serve(home, known[pool.name])

    def unbind(self) -> None:
        """The app runs no more."""
        self.app_id = None
        for pool in self.pools:
            pool.serve(None, None)

    def watch(self, callback: Callable[[Progress], None]) -> None:
        """Have `callback` told, in another thread, how the running app's functions progress."""
        for home in {pool.home for pool in self.pools if pool.home is not None}:
            home.client.watch(home.app_id, callback)

    def __repr__(self) -> str:
        state = "running" if self.is_running else "deployed" if self.app_id else "not running"
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"App({self.name!r}, {len(self.functions)} functions{classes}, {state})"


def checked_schedule(schedule: object, name: str, raw: Callable[..., Any], is_generator: bool) -> Cron | Period | None:
    """The schedule, if the function can have it; else `InvalidError`."""
    if schedule is None:
        return None
    where = f"@app.function: the schedule of {name}"
    if not isinstance(schedule, Cron | Period):
        raise InvalidError(f"{where} must be upswell.Cron or upswell.Period, not {schedule!r}")
    require(not is_generator, f"{where} can't be: {name} is a generator, and nobody takes what it yields")
    from inspect import signature  # by few programs

    for one in signature(raw).parameters.values():
        needed = one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        require(not needed, f"{where} calls it without arguments, and {one.name!r} has no default: give it one")
    return schedule


class Running(DualBlock[App]):
    """The block in which an app runs."""

    def __init__(self, app: App, detach: bool) -> None:
        self._app = app
        self._detach = detach
        # As it was before the block.
        self._app_id: str | None = None
        self._pools: list[tuple[Pool, Home | None, FunctionRecord | None]] = []

    async def _open(self) -> App:
        app = self._app
        if context.importing:
            raise context.ImportEnds
        require(context.server is None, "app.run() is for the program outside: inside a container its app runs already")
        require(not app.is_running, f"{app!r} is running already")
        self._app_id, self._pools = app.app_id, [(pool, pool.home, pool.served) for pool in app.pools]
        if self._detach:
            from .deployment import detach

            self._client = await detach(app)
        else:
            self._client = await self._open_here()
        app.is_running = True
        return app

    async def _open_here(self) -> Client:
        app = self._app
        for pool in app.pools:
            if pool.spec.schedule is not None:
                say_once("schedule= has no effect while a program runs its app: deploy it")
        client = join_client()  # whose server boots while the rest is made ready
        try:
            from ..wire.messages import OpenApp
            from .client import new_id

            app_id = new_id("ap")
            home = app.bind(app_id)
            records = [pool.record(home) for pool in app.pools]
            files: tuple[tuple[str, str], ...] = ()
            if not sees_our_files():
                from .deployment import send_code

                sent, source, _ = await send_code(client, app, records, f"{app.name or 'the app'} can't run there: ")
                records, files = list(sent), source.files
                app.serve(home, records)
            complete = [record for record in records if record.interface.is_complete]
            client.declare(OpenApp(app_id, home.app_name, complete, files))
        except BaseException:
            self._restore()
            leave_client()
            raise
        return client

    async def _close(self, failed: bool) -> None:
        app, client = self._app, self._client
        app_id = app.app_id or ""
        inbox = client.open_inbox(app_id)
        try:
            from ..wire.messages import CloseApp

            client.undeclare(app_id)
            client.send(CloseApp(app_id))
            if not client.is_broken:
                await inbox.sleep(CLOSE_SECONDS)
        except Exception:
            if not failed:
                raise
        finally:
            inbox.close()
            app.is_running = False
            if self._detach:
                words = f"{app_id} goes on until its calls have ended; `upswell app stop {app_id}` stops it"
                print(f"upswell: {words}", file=sys.stderr)
            self._restore()
            if not self._detach:
                leave_client()

    def _restore(self) -> None:
        """A deployed app is deployed again, as far as this program sees it."""
        self._app.app_id = self._app_id
        for pool, home, record in self._pools:
            pool.serve(home, record)
