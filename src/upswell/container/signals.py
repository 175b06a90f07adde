"""Handlers of signals, set at the price of a system call.

`signal.signal` looks for what was the handler before among the members of an enumeration. Where that is a function it
is none of them, which takes an exception to find out: a twelfth of all that a container does before its first input.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from collections.abc import Callable
from types import FrameType

# By names of this module: to look up those of another copies pages in each container that does.
_set, _set_wakeup_fd = _signal.signal, _signal.set_wakeup_fd
_CHILD_ENDED, _DEFAULT = int(_signal.SIGCHLD), _signal.SIG_DFL


def handle(number: int, handler: Callable[[int, FrameType | None], object]) -> None:
    """Have the main thread run `handler` when the signal comes."""
    _set(number, handler)


def forget_children() -> None:
    """In a forked child: leave it to the kernel what the end of a child does, and wake nobody."""
    _set_wakeup_fd(-1)
    _set(_CHILD_ENDED, _DEFAULT)
