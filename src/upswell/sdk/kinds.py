"""Of which kind a function is: plain, a generator, asynchronous. As `inspect` has it, of which no program needs more.

A plain function says so itself; `inspect`, which takes longer to import than all that declares an app, is asked about
the rest: what is wrapped, or carries marks.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

GENERATOR, COROUTINE, ASYNC_GENERATOR = 0x20, 0x80, 0x200  # flags of code: `inspect.CO_…`


def gives_coroutine(raw: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    if (flags := _flags(raw)) is not None:
        return bool(flags & COROUTINE)
    import inspect

    return inspect.iscoroutinefunction(raw)


def is_asynchronous(raw: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, or an asynchronous generator."""
    if (flags := _flags(raw)) is not None:
        return bool(flags & (COROUTINE | ASYNC_GENERATOR))
    import inspect

    return inspect.iscoroutinefunction(raw) or inspect.isasyncgenfunction(raw)


def is_generating(raw: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, plain or asynchronous."""
    if (flags := _flags(raw)) is not None:
        return bool(flags & (GENERATOR | ASYNC_GENERATOR))
    import inspect

    return inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw)


def _flags(raw: object) -> int | None:
    """Those of a function that nobody has put a mark on; `None` for everything else."""
    return raw.__code__.co_flags if type(raw) is FunctionType and not vars(raw) else None
