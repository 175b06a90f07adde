"""Classes of an app: what `@app.cls()` makes of a class, and how its objects reach their pools.

The class stays the class it was. It gets the constructor and the verbs of `Obj`; an object of it is made here without
running any user code, and stands for a pool of containers that each hold such an object.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, Self, TypeVar, Unpack, dataclass_transform

from .. import sdk
from ..errors import InvalidError, ParameterError
from ..spec import AutoscalerSettings, Concurrency, FunctionSpec, Interface, check_name, require
from .decorators import CLASS_MARK, CONCURRENCY_MARK, HOOK_MARK, Kind, Method, concurrent_on_method, marked_concurrency
from .dual import Dual, dual
from .environment import is_typed_in
from .frames import their_frames
from .function import Function
from .kinds import gives_coroutine
from .options import Declaration, PoolOptions
from .pool import Autoscaler, FunctionStats, Pool
from .variables import Variables

P = ParamSpec("P")
R = TypeVar("R")

KINDS: Final = {kind.__name__: kind for kind in (str, int, bytes, bool)}  # of parameters


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()  # stands for a default that there is none of


class Parameter:
    """A parameter of a class; what an object was made with lies in the object itself and hides this."""

    def __init__(self, default: Any, init: bool) -> None:
        self.default = default
        self.init = init
        self.name = ""
        self.kind: type = str

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        if self.default is MISSING:
            raise AttributeError(f"{owner.__name__}.{self.name} has no value yet")
        return self.default

    def check(self, owner: str, value: object) -> None:
        """Raise `ParameterError` unless the value is of the parameter's type."""
        if type(value) is not self.kind:
            raise ParameterError(f"{owner}: parameter {self.name!r} must be {self.kind.__name__}, not {value!r}")


def parameter(*, default: Any = MISSING, init: bool = True) -> Any:
    """Declare a parameter of a class, as in `size: int = upswell.parameter(default=3)`; each set has a pool of its own.

    The annotation must be `str`, `int`, `bytes` or `bool`. With `init=False` it is no parameter, only an attribute that
    type checkers know.
    """
    return Parameter(default, init)


@dataclass_transform(kw_only_default=True, field_specifiers=(parameter,))
class Obj:
    """What an object of an app's class can do besides its methods, and its class besides making objects.

    Every class gets it from `@app.cls()`. One that derives from it itself lets type checkers know, too.
    """

    def __init__(self, *args: Any, **parameters: Any) -> None:
        Cls.of(type(self)).furnish(self, args, parameters)

    @property
    def get_current_stats(self) -> Dual[[], FunctionStats]:
        """The backlog, containers, running inputs and free places of the object's pool, now."""
        return link_of(self).pool.get_current_stats

    @property
    def update_autoscaler(self) -> Dual[..., AutoscalerSettings]:
        """Change how the object's pool scales; `None` leaves a setting as it is. Returns the settings in force."""
        return link_of(self).pool.update_autoscaler

    @property
    def autoscaler(self) -> Autoscaler:
        """The settings by which the object's pool scales, and their change."""
        return link_of(self).pool.autoscaler

    @classmethod
    def with_options(cls, **options: Unpack[PoolOptions]) -> type[Self]:
        """The same class with these options in place of what it was declared with, for objects with other pools."""
        return Cls.of(cls).with_options(**options)

    @classmethod
    def with_concurrency(cls, *, max_inputs: int, target_inputs: int | None = None) -> type[Self]:
        """The same class where a container takes up to `max_inputs` at once, and the autoscaler aims at the target."""
        return Cls.of(cls).with_concurrency(max_inputs=max_inputs, target_inputs=target_inputs)

    @classmethod
    def with_batching(cls, *, max_batch_size: int, wait_ms: int) -> type[Self]:
        """The same class where a container takes inputs in batches, formed within `wait_ms` milliseconds."""
        return Cls.of(cls).with_batching(max_batch_size=max_batch_size, wait_ms=wait_ms)

    def __reduce__(self) -> Any:
        pool = link_of(self).pool
        return restore, (Cls.of(type(self)).declared, pool.spec, pool.own_variables, pool.parameters)


# What `@app.cls()` gives a class, except where it has something of that name itself.
GIVEN: Final = tuple(name for name in vars(Obj) if name in ("__init__", "__reduce__") or not name.startswith("_"))


class Cls:
    """What is known of a class of an app: its parameters and methods, and the pool that its objects begin from."""

    def __init__(self, raw: type, pool: Pool, declared: type) -> None:
        self.raw = raw
        self.pool = pool  # its parameters are the defaults, or None where some have none
        self.declared = declared  # the class that `@app.cls()` stood above
        self.parameters = _parameters(raw)
        self.methods: dict[str, Method[..., Any]] = _members(raw, lambda value: isinstance(value, Method))

    @classmethod
    def of(cls, raw: type) -> Cls:
        """What is known of a class; `InvalidError` where it is no class of an app."""
        known = vars(raw).get(CLASS_MARK)
        if not isinstance(known, cls):
            raise InvalidError(f"{raw.__qualname__} is no class of an app: decorate it with @app.cls()")
        return known

    @classmethod
    def from_name(
        cls, app_name: str, name: str, *, version: int | None = None, environment_name: str | None = None
    ) -> Cls:
        """The class `name` of the deployed app `app_name`: call it with the parameters of an object.

        Nothing is asked before it is used; then `NotFoundError` where there is no such app or class, or where another
        `version` than that is served. Raises `InvalidError` for what can't be a name.
        """
        from .named import NamedClass, Names

        return NamedClass(Names.checked(app_name, "class", name, version))

    def __call__(self, *args: Any, **parameters: Any) -> Any:
        """An object with these parameters; `ParameterError` for one that is missing, unknown or of the wrong type."""
        with their_frames:
            return self.raw(*args, **parameters)

    @dual
    async def hydrate(self) -> Self:
        """Find the class at its server now rather than when it is used first, and return it.

        Raises `NotFoundError` where a deployed app has none of that name.
        """
        await self._resolved()
        return self

    async def _resolved(self) -> None:
        """Ask the server what it is, where the class is known by name alone."""

    def with_options(self, **options: Unpack[PoolOptions]) -> type[Any]:
        """The class with these options in place of what it was declared with."""
        return self.derive(self.pool.with_options(f"{self.pool.name}.with_options", options))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> type[Any]:
        """The class where a container takes up to `max_inputs` at once, and the autoscaler aims at the target."""
        where = f"{self.pool.name}.with_concurrency"
        return self.derive(self.pool.with_concurrency(where, max_inputs, target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> type[Any]:
        """The class where a container takes inputs in batches, formed within `wait_ms` milliseconds."""
        where = f"{self.pool.name}.with_batching"
        require(len(self.methods) == 1, f"{where}: a class with batches has one method, not {len(self.methods)}")
        return self.derive(self.pool.with_batching(where, max_batch_size, wait_ms))

    @property
    def interface(self) -> Interface:
        """How objects of the class are made and used, for those who know it by name only."""
        import pickle

        parameters = [
            (one.name, one.kind.__name__, *([] if one.default is MISSING else [one.default]))
            for one in self.parameters.values()
        ]
        return Interface(
            is_complete=self.pool.is_complete,
            methods=tuple((name, method.is_generator) for name, method in self.methods.items()),
            parameters=pickle.dumps(parameters, 5),
        )

    @property
    def is_async(self) -> bool:
        """Whether a method or a hook is asynchronous."""
        hooks = (getattr(self.raw, name) for name in (*hooks_of(self.raw, "enter"), *hooks_of(self.raw, "exit")))
        return any(method.is_async for method in self.methods.values()) or any(map(gives_coroutine, hooks))

    def furnish(self, instance: object, args: Sequence[object], given: Mapping[str, object]) -> None:
        """Make a bare instance an object with these parameters."""
        name = self.pool.name
        if args:
            raise ParameterError(f"{name} takes its parameters by name, as in {name}({self._example()})")
        if unknown := [one for one in given if one not in self.parameters]:
            there = f"there are: {', '.join(self.parameters)}" if self.parameters else "it has none"
            raise ParameterError(f"{name} has no parameter {unknown[0]!r}; {there}")
        values = {one.name: given.get(one.name, one.default) for one in self.parameters.values()}
        for one in self.parameters.values():
            if values[one.name] is MISSING:
                raise ParameterError(f"{name}: parameter {one.name!r} is missing, and it has no default")
            one.check(name, values[one.name])
        self.place(instance, self.pool.derive(parameters=values))

    def place(self, instance: object, pool: Pool, *, entered: bool = False) -> None:
        """Tie an instance to a pool, and give it the pool's parameters."""
        vars(instance).update(pool.parameters or {})
        vars(instance)[CLASS_MARK] = Link(pool, entered)

    def derive(self, pool: Pool) -> type[Any]:
        """A class like this one whose objects begin from another pool."""
        if pool is self.pool:
            return self.raw
        names = {name: getattr(self.raw, name) for name in ("__module__", "__qualname__", "__doc__")}
        derived = types.new_class(self.raw.__name__, (self.raw,), exec_body=lambda body: body.update(names))
        setattr(derived, CLASS_MARK, Cls(derived, pool, self.declared))
        return derived

    def _example(self) -> str:
        return ", ".join(f"{name}=..." for name in self.parameters)


# The objects whose start-up hooks this code is a part of: it may use their methods.
entering: ContextVar[tuple[Link, ...]] = ContextVar("entering", default=())


class Link:
    """What ties an object to its pool, and whether its start-up hooks have run here."""

    def __init__(self, pool: Pool, entered: bool) -> None:
        self.pool = pool
        self._entered = entered  # true from the beginning inside a container, which runs the hooks itself
        self._entering = threading.Lock()
        self._entry: Any = None  # the task that runs the hooks, for asynchronous methods
        self._handles: dict[Method[Any, Any], Function[Any, Any]] = {}

    def handle(self, instance: object, method: Method[P, R]) -> Function[P, R]:
        """The method of the object, with every verb."""
        if method not in self._handles:
            here = self._here_async if method.is_async else self._here
            self._handles[method] = Function(
                self.pool,
                method.raw,
                method=method.name,
                is_generator=method.is_generator,
                here=here(instance, method.raw.__get__(instance)),
                origin=instance,
            )
        return self._handles[method]

    def _here(self, instance: object, bound: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._enter(instance)
            return bound(*args, **kwargs)

        return call

    def _here_async(self, instance: object, bound: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._enter_async(instance)
            return await bound(*args, **kwargs)

        async def generate(*args: Any, **kwargs: Any) -> Any:
            await self._enter_async(instance)
            async for value in bound(*args, **kwargs):
                yield value

        from inspect import isasyncgenfunction

        return generate if isasyncgenfunction(bound) else call

    def _enter(self, instance: object) -> None:
        """Run the start-up hooks in this thread, asynchronous ones on a loop of ours."""
        from inspect import isawaitable

        if self in entering.get():
            return
        with self._entering:
            if self._entered:
                return
            token = entering.set((*entering.get(), self))
            try:
                for name in hooks_of(type(instance), "enter"):
                    outcome = getattr(instance, name)()
                    if isawaitable(outcome):
                        import asyncio

                        asyncio.run_coroutine_threadsafe(_awaited(outcome), sdk.pump.background_loop()).result()
            finally:
                entering.reset(token)
            self._entered = True

    async def _enter_async(self, instance: object) -> None:
        """Run the start-up hooks on the running loop."""
        import asyncio

        if self._entered or self in entering.get():
            return
        if self._entry is None:
            self._entry = asyncio.ensure_future(self._run_hooks(instance))
        await asyncio.shield(self._entry)

    async def _run_hooks(self, instance: object) -> None:
        from inspect import isawaitable

        entering.set((*entering.get(), self))
        try:
            for name in hooks_of(type(instance), "enter"):
                outcome = getattr(instance, name)()
                if isawaitable(outcome):
                    await outcome
            self._entered = True
        finally:
            self._entry = None


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def link_of(instance: object) -> Link:
    """What ties the object to its pool; `InvalidError` where its class is no class of an app."""
    link = vars(instance).get(CLASS_MARK)
    if not isinstance(link, Link):
        Cls.of(type(instance))
        raise InvalidError(f"this object of {type(instance).__name__} was not made by calling its class")
    return link


def handle_of(instance: object, method: Method[P, R]) -> Function[P, R]:
    """The method of an object, with every verb."""
    return link_of(instance).handle(instance, method)


def restore(
    declared: type,
    spec: FunctionSpec,
    variables: Variables | None,
    parameters: Mapping[str, Any],
    key: str | None = None,
) -> Any:
    """The object of those options and parameters as it was elsewhere, its variables those of its class if not given."""
    known = Cls.of(declared)
    instance: object = object.__new__(declared)
    known.place(instance, known.pool.restore(spec, variables, parameters, key), entered=key is not None)
    return instance


def hooks_of(raw: type, kind: Kind) -> list[str]:
    """The names of the hooks in the order of their definition, those of base classes first."""
    return list(_members(raw, lambda value: getattr(value, HOOK_MARK, None) == kind))


def declare_class(raw: Any, declaration: Declaration, serialized: bool) -> Cls:
    """Make the class a class of an app; raises `TypeError` or `InvalidError` for what can't be."""
    if not isinstance(raw, type):
        name = getattr(raw, "__name__", repr(raw))
        raise TypeError(f"@app.cls is for classes, and {name} is none: use @app.function")
    name = check_name("class", raw.__name__)
    where = f"@app.cls: {raw.__qualname__}"
    require(CLASS_MARK not in vars(raw), f"{where} is a class of an app already")
    require(bool(raw.__dictoffset__), f"{where} has __slots__, and its objects need room for their parameters")
    if "." in raw.__qualname__ and not serialized and not is_typed_in(raw):
        raise InvalidError(
            f"{where} is not at the top level of its module, so containers can't import it: move it there, or declare "
            "it with serialized=True"
        )
    if raw.__init__ not in (object.__init__, Obj.__init__):  # type: ignore[misc]
        raise InvalidError(
            f"{where} has an __init__ of its own, which no container could call: declare parameters with "
            "upswell.parameter(), and set up in a method under @upswell.enter()"
        )
    parameters, methods = _parameters(raw), _methods(where, raw)
    batching = [method.batching for method in methods.values() if method.batching is not None]
    require(not batching or len(methods) == 1, f"{where}: @upswell.batched belongs on the only method of a class")
    generators = [one for one, method in methods.items() if method.is_generator]
    if declaration.spec.retries and generators:
        raise InvalidError(f"{where}: {generators[0]} is a generator, which can't have retries")
    concurrency = marked_concurrency(raw, batching[0] if batching else None)
    if concurrency != Concurrency():
        declaration = declaration.with_concurrency(concurrency)
    defaults = {one.name: one.default for one in parameters.values()}
    complete = MISSING not in defaults.values()
    pool = Pool(name, raw, declaration, serialized=serialized, parameters=defaults if complete else None)
    for given in GIVEN:
        if getattr(raw, given, None) is getattr(object, given, None):
            setattr(raw, given, vars(Obj)[given])
    known = Cls(raw, pool, raw)
    pool.interface = known.interface
    setattr(raw, CLASS_MARK, known)
    return known


def _methods(where: str, raw: type) -> dict[str, Method[..., Any]]:
    for name, value in _members(raw, lambda value: True).items():
        if isinstance(value, Function):
            raise InvalidError(
                f"{where}: {name} is under @app.function(), which is for functions: use @upswell.method()"
            )
        if isinstance(value, Method | types.FunctionType) and CONCURRENCY_MARK in vars(value):
            raise concurrent_on_method(value.raw if isinstance(value, Method) else value)
    return _members(raw, lambda value: isinstance(value, Method))


def _parameters(raw: type) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for owner in reversed(raw.__mro__):
        for name, one in vars(owner).items():
            if isinstance(one, Parameter) and one.init:
                one.kind = _kind(owner, name)
                if one.default is not MISSING:
                    one.check(owner.__name__, one.default)
                found[name] = one
    return found


def _kind(owner: type, name: str) -> type:
    """The type that the parameter's annotation names."""
    import inspect  # by classes only, as it takes long

    annotation = inspect.get_annotations(owner).get(name)
    if isinstance(annotation, str) and annotation not in KINDS:
        try:
            annotation = eval(annotation, dict(vars(sys.modules[owner.__module__])))
        except Exception:
            pass  # a name for type checkers only
    kind = KINDS.get(annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
    if kind is None or annotation not in (kind, kind.__name__):
        said = "no annotation" if annotation is None else f"the annotation {inspect.formatannotation(annotation)}"
        raise InvalidError(f"parameter {owner.__qualname__}.{name} has {said}: use one of {', '.join(KINDS)}")
    return kind


def _members(raw: type, wanted: Callable[[Any], bool]) -> dict[str, Any]:
    """What the class has of a sort, in the order of definition, base classes first; overridden ones once."""
    from inspect import getattr_static

    names = dict.fromkeys(name for owner in reversed(raw.__mro__) for name in vars(owner))
    members = {name: getattr_static(raw, name) for name in names}
    return {name: value for name, value in members.items() if wanted(value)}
