"""How the verbs of a function are typed: what an asynchronous function gives is what comes of it when it is awaited.

`Function[P, R]` has the parameters and the return type of the user's function as `local` gives it; where that is a
coroutine, containers await it. Nothing here does anything but hand out what a verb is made of.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .dual import Dual

if TYPE_CHECKING:
    from .call import FunctionCall
    from .function import Function, Map
    from .streaming import RemoteGenerator

P = ParamSpec("P")
R = TypeVar("R")


class Verb:
    """An attribute of every function that is made, for the function, by `make`, when it is first used."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def _of(self, function: Any) -> Any:
        if function is None:
            return self
        made = vars(function)[self._name] = self._make(function)  # where Python finds it from now on
        return made


class Outcome(Verb):
    """A verb with the function's parameters that gives what the function gives."""

    @overload
    def __get__(self, function: Function[P, Coroutine[Any, Any, R]], owner: type) -> Dual[P, R]: ...
    @overload
    def __get__(self, function: Function[P, R], owner: type) -> Dual[P, R]: ...
    def __get__(self, function: Any, owner: type) -> Any:
        return self._of(function)


class Yielded(Verb):
    """A verb with the function's parameters that yields what the function yields."""

    @overload
    def __get__(self, function: Function[P, Generator[R, Any, Any]], owner: type) -> RemoteGenerator[P, R]: ...
    @overload
    def __get__(self, function: Function[P, Iterator[R]], owner: type) -> RemoteGenerator[P, R]: ...
    @overload
    def __get__(self, function: Function[P, AsyncGenerator[R, Any]], owner: type) -> RemoteGenerator[P, R]: ...
    @overload
    def __get__(self, function: Function[P, AsyncIterator[R]], owner: type) -> RemoteGenerator[P, R]: ...
    @overload
    def __get__(self, function: Function[P, R], owner: type) -> RemoteGenerator[P, Any]: ...
    def __get__(self, function: Any, owner: type) -> Any:
        return self._of(function)


class Spawned(Verb):
    """A verb with the function's parameters that gives a call."""

    @overload
    def __get__(self, function: Function[P, Coroutine[Any, Any, R]], owner: type) -> Dual[P, FunctionCall[R]]: ...
    @overload
    def __get__(self, function: Function[P, R], owner: type) -> Dual[P, FunctionCall[R]]: ...
    def __get__(self, function: Any, owner: type) -> Any:
        return self._of(function)


class SpawnedMap(Verb):
    """A verb that takes iterables and gives a call."""

    @overload
    def __get__(self, function: Function[P, Coroutine[Any, Any, R]], owner: type) -> Dual[..., FunctionCall[R]]: ...
    @overload
    def __get__(self, function: Function[P, R], owner: type) -> Dual[..., FunctionCall[R]]: ...
    def __get__(self, function: Any, owner: type) -> Any:
        return self._of(function)


class Maps(Verb):
    """A verb that maps."""

    @overload
    def __get__(self, function: Function[P, Coroutine[Any, Any, R]], owner: type) -> Map[R]: ...
    @overload
    def __get__(self, function: Function[P, R], owner: type) -> Map[R]: ...
    def __get__(self, function: Any, owner: type) -> Any:
        return self._of(function)
