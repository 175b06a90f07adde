"""Handlers of signals, set at the price of a system call.

`signal.signal` looks for what was the handler before among the members of an enumeration. Where that is a function it
is none of them, which takes an exception to find out: a twelfth of all that a container does before its first input.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from collections.abc import Callable
from types import FrameType


def handle(number: int, handler: Callable[[int, FrameType | None], object]) -> None:
    """Have the main thread run `handler` when the signal comes."""
    _signal.signal(number, handler)


def default(number: int) -> None:
    """Leave it to the kernel what the signal does."""
    _signal.signal(number, _signal.SIG_DFL)
