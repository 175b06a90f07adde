"""What stands below `@app.function()`: `concurrent` and `batched`. They mark, and the app reads the marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import InvalidError
from ..spec import Concurrency

T = TypeVar("T", bound=Callable[..., Any])

CONCURRENCY_MARK = "__upswell_concurrency__"


def concurrent(*, max_inputs: int, target_inputs: int | None = None) -> Callable[[T], T]:
    """Let a container run up to `max_inputs` inputs at once: synchronous code in threads, asynchronous as tasks.

    The autoscaler aims at `target_inputs` for each container (by default `max_inputs`). It stands under
    `@app.function()`. Raises `InvalidError` for what can't be.
    """
    return _marking("concurrent", max_inputs=max_inputs, target_inputs=target_inputs or max_inputs)


def batched(*, max_batch_size: int, wait_ms: int) -> Callable[[T], T]:
    """Run inputs in batches of up to `max_batch_size` (1..1000), formed within `wait_ms` (0..600,000) milliseconds.

    Every argument arrives as a list, and a list of as many results must be returned. It stands under
    `@app.function()`. Raises `InvalidError` for what can't be.
    """
    return _marking("batched", batch_size=max_batch_size, batch_wait_ms=wait_ms)


def marked_concurrency(raw: Callable[..., Any]) -> Concurrency:
    """What the decorators say of a function."""
    return Concurrency(**getattr(raw, CONCURRENCY_MARK, {}))


def _marking(decorator: str, **settings: int) -> Callable[[T], T]:
    try:
        Concurrency(**settings)
    except InvalidError as error:
        raise InvalidError(f"@upswell.{decorator}: {error}") from None

    def mark(raw: T) -> T:
        setattr(raw, CONCURRENCY_MARK, {**getattr(raw, CONCURRENCY_MARK, {}), **settings})
        return raw

    return mark
