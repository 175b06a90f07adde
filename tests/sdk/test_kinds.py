"""Of which kind a function is, beside what `inspect` says."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import upswell
from upswell.sdk import kinds


def plain(x: int) -> int:
    return x


def generator(x: int) -> Iterator[int]:
    yield x


async def coroutine(x: int) -> int:
    return x


async def async_generator(x: int) -> AsyncIterator[int]:
    yield x


class Callables:
    async def method(self) -> None: ...

    async def __call__(self) -> None: ...


@functools.wraps(coroutine)
def wrapped(x: int) -> object:
    return x


marked = upswell.concurrent(max_inputs=2)(functools.wraps(coroutine)(lambda x: x))
marked_coroutine = upswell.enter()(Callables.method)

EVERYTHING = (
    *(plain, generator, coroutine, async_generator, wrapped, marked, marked_coroutine, len, int),
    *(functools.partial(one, 1) for one in (plain, generator, coroutine, async_generator)),
    *(Callables().method, Callables()),
)


@pytest.mark.parametrize("one", EVERYTHING, ids=[str(number) for number in range(len(EVERYTHING))])
def test_it_is_as_inspect_has_it(one: Callable[..., Any]) -> None:
    assert kinds.gives_coroutine(one) == inspect.iscoroutinefunction(one)
    assert kinds.is_asynchronous(one) == (inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one))
    assert kinds.is_generating(one) == (inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one))


def test_the_flags_are_those_of_inspect() -> None:
    flags = kinds.GENERATOR, kinds.COROUTINE, kinds.ASYNC_GENERATOR
    assert flags == (inspect.CO_GENERATOR, inspect.CO_COROUTINE, inspect.CO_ASYNC_GENERATOR)


@pytest.mark.skipif(not hasattr(inspect, "markcoroutinefunction"), reason="from Python 3.12 on")
def test_a_function_that_was_marked_as_asynchronous_is() -> None:
    mark = inspect.markcoroutinefunction  # type: ignore[attr-defined,unused-ignore]
    assert kinds.gives_coroutine(mark(lambda: coroutine(1)))
