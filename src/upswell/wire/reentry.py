"""Locks for which no signal handler waits for ever: it interrupts its thread, and that may hold the lock just then. It
gets an exception instead, as it does from Python where it prints and has interrupted a print.
"""

from __future__ import annotations

import threading
from typing import Any

from ..errors import ExecutionError


def lock() -> Any:
    """A lock that knows which thread holds it, for `unheld`."""
    return threading.RLock()


def unheld(lock: Any) -> Any:
    """The lock, to be taken by `with`; `ExecutionError` where this thread has it already."""
    if lock._is_owned():
        raise ExecutionError(
            "a signal has come as this thread was speaking to the server, which its handler can't do in the midst of "
            "that: let another thread do it, as in threading.Thread(target=call.cancel).start()"
        )
    return lock
