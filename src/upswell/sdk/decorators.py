"""What stands above a function or a class besides the app's own decorators: `method`, `enter`, `exit`, `concurrent`,
`batched`. They mark; `App.function` and `App.cls` read the marks, so a wrong order can be named where it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, NoReturn, ParamSpec, TypeVar, overload

from ..errors import InvalidError
from ..spec import Concurrency
from .kinds import is_asynchronous, is_generating
from .options import batching_of, concurrency_of

if TYPE_CHECKING:
    from .function import Function

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Hook = TypeVar("Hook", bound=Callable[..., Any])
Kind = Literal["enter", "exit"]

HOOK_MARK = "__upswell_hook__"
CONCURRENCY_MARK = "__upswell_concurrency__"
CLASS_MARK = "__upswell__"  # in the dictionary of a class of an app: its `Cls`
VERBS = frozenset("remote remote_gen local map starmap for_each spawn spawn_map".split())


class Method(Generic[P, R]):
    """A function in a class body that is called through its object: there, it is a `Function` of the object's pool."""

    def __init__(self, raw: Callable[..., Any], is_generator: bool | None, batching: Concurrency | None) -> None:
        self.raw = raw
        self.is_generator = is_generating(raw) if is_generator is None else is_generator
        self.is_async = is_asynchronous(raw)
        self.batching = batching
        self.name = raw.__name__
        self.__doc__, self.__wrapped__ = raw.__doc__, raw

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Method[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Function[P, R]: ...
    def __get__(self, instance: object, owner: type) -> Method[P, R] | Function[P, R]:
        if instance is None:
            return self
        from .cls import handle_of

        return handle_of(instance, self)

    def __getattr__(self, name: str) -> NoReturn:
        if name in VERBS:
            where = self.raw.__qualname__
            owner, _, method = where.rpartition(".")
            raise AttributeError(
                f"{where} has no .{name}: make an object of the class first, as in {owner}(...).{method}.{name}(...)"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _refuse_call(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"{self.raw.__qualname__} is not called directly: use .remote(...) or .local(...) on an object's method"
        )

    if not TYPE_CHECKING:  # for type checkers it is none of the functions that decorators take
        __call__ = _refuse_call


class _MethodDecorator:
    """`Any` first: the object itself is no argument of the call."""

    def __init__(self, is_generator: bool | None) -> None:
        self._is_generator = is_generator

    @overload
    def __call__(self, raw: Method[P, R]) -> Method[P, R]: ...
    @overload
    def __call__(self, raw: Callable[Concatenate[Any, P], R]) -> Method[P, R]: ...
    def __call__(self, raw: Any) -> Any:
        _refuse_handle(raw, "@upswell.method", "a method of a class takes no @app.function()")
        if isinstance(raw, Method):
            return raw  # @batched has made it one
        _require_function(raw, "@upswell.method")
        if CONCURRENCY_MARK in vars(raw):
            raise concurrent_on_method(raw)
        return Method(raw, self._is_generator, None)


def method(_function: None = None, *, is_generator: bool | None = None) -> _MethodDecorator:
    """Make a function in a class body callable from outside, as `obj.NAME.remote(...)` and its kin.

    `is_generator` is found out where it is not given. Raises `InvalidError` for what is no method.
    """
    _require_parentheses(_function, "method")
    return _MethodDecorator(is_generator)


def enter(_function: None = None, *, snap: bool = False) -> Callable[[Hook], Hook]:
    """Run this method, plain or asynchronous, as a container starts, before its first input.

    There may be several: they run in the order of their definition, those of base classes first. The time they take is
    start-up time, limited by `startup_timeout`. `snap` is accepted and has no effect: there are no snapshots.
    """
    _require_parentheses(_function, "enter")
    return _hook("enter")


def exit(_function: None = None) -> Callable[[Hook], Hook]:
    """Run this method, plain or asynchronous, as a container ends, for at most 30 s; not after a crash.

    There may be several, as with `enter`; what one raises is shown, and the next runs all the same.
    """
    _require_parentheses(_function, "exit")
    return _hook("exit")


def concurrent(_target: None = None, *, max_inputs: int, target_inputs: int | None = None) -> Callable[[T], T]:
    """Let a container run up to `max_inputs` inputs at once: synchronous code in threads, asynchronous as tasks.

    The autoscaler aims at `target_inputs` for each container (by default `max_inputs`). It stands under
    `@app.function()` or `@app.cls()`. Raises `InvalidError` for what can't be, and for a wrong order of decorators.
    """
    _require_parentheses(_target, "concurrent")
    concurrency = concurrency_of("@upswell.concurrent", max_inputs, target_inputs)

    def mark(target: T) -> T:
        _refuse_handle(target, "@upswell.concurrent", "put @upswell.concurrent(...) below @app.function()")
        if isinstance(target, type) and CLASS_MARK in vars(target):
            raise InvalidError(
                f"@upswell.concurrent is above @app.cls() of {target.__name__}: put it between @app.cls() and the class"
            )
        if isinstance(target, Method) and target.batching is None:
            raise concurrent_on_method(target.raw)
        if not isinstance(target, Method | type):
            _require_function(target, "@upswell.concurrent")
        setattr(target, CONCURRENCY_MARK, concurrency)
        return target

    return mark


class _BatchedDecorator:
    """Every argument arrives as a list, so what is said of arguments here is lost to a type checker."""

    def __init__(self, batching: Concurrency) -> None:
        self._batching = batching

    @overload
    def __call__(self, raw: Callable[..., Coroutine[Any, Any, list[R]]]) -> Method[..., Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, raw: Callable[..., list[R]]) -> Method[..., R]: ...
    def __call__(self, raw: Any) -> Any:
        _refuse_handle(raw, "@upswell.batched", "put @upswell.batched(...) below @app.function()")
        if isinstance(raw, type):
            raise InvalidError(f"@upswell.batched belongs on the one method of {raw.__name__}, not on the class")
        concurrency = getattr(raw, CONCURRENCY_MARK, None)
        if isinstance(raw, Method):
            raw = raw.raw
        _require_function(raw, "@upswell.batched")
        if is_generating(raw):
            raise InvalidError(
                f"@upswell.batched: {raw.__qualname__} is a generator, and a batch is returned as a list"
            )
        batched = Method[..., Any](raw, False, self._batching)
        if concurrency is not None:
            setattr(batched, CONCURRENCY_MARK, concurrency)
        return batched


def batched(_target: None = None, *, max_batch_size: int, wait_ms: int) -> _BatchedDecorator:
    """Run inputs in batches of up to `max_batch_size` (1..1000), formed within `wait_ms` (0..600,000) milliseconds.

    Every argument arrives as a list, and a list of as many results must be returned. It stands under `@app.function()`
    or on the only method of a class. Raises `InvalidError` for what can't be, and for a wrong order of decorators.
    """
    _require_parentheses(_target, "batched")
    return _BatchedDecorator(batching_of("@upswell.batched", Concurrency(), max_batch_size, wait_ms))


def marked_concurrency(target: object, batching: Concurrency | None) -> Concurrency:
    """What `@concurrent` says of a function or (or of its bases) a class, with the batches that `batching` says."""
    concurrency = getattr(target, CONCURRENCY_MARK, None) or Concurrency()
    if batching is None:
        return concurrency
    return batching_of("@upswell.batched", concurrency, batching.batch_size, batching.batch_wait_ms)


def _hook(kind: Kind) -> Callable[[Hook], Hook]:
    def mark(raw: Hook) -> Hook:
        if isinstance(raw, Method):
            raise InvalidError(f"@upswell.{kind}: {raw.name} is called by the container, so it can't be a @method too")
        _require_function(raw, f"@upswell.{kind}")
        setattr(raw, HOOK_MARK, kind)
        return raw

    return mark


def concurrent_on_method(raw: Callable[..., Any]) -> InvalidError:
    """The error for `@concurrent` on a method."""
    owner = raw.__qualname__.rpartition(".")[0]
    return InvalidError(
        f"@upswell.concurrent is on the method {raw.__qualname__}, and all methods of an object share its containers: "
        f"put it on the class {owner}, below @app.cls()"
    )


def _refuse_handle(target: object, decorator: str, advice: str) -> None:
    from .function import Function

    if isinstance(target, Function):
        raise InvalidError(f"{decorator}: {target.name} is a function of an app already: {advice}")


def _require_function(raw: object, decorator: str) -> None:
    if not isinstance(raw, FunctionType):
        raise TypeError(f"{decorator} is for functions, not {raw!r}")


def _require_parentheses(given: object, name: str) -> None:
    if given is not None:
        raise InvalidError(f"@upswell.{name} needs parentheses: write @upswell.{name}()")
