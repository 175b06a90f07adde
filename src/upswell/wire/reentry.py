"""Locks and signals: a handler runs in the midst of what its thread was doing, and would wait for ever for a lock that
this holds. It is told so instead, as Python tells who prints from a handler in the midst of a print.
"""

from __future__ import annotations

import threading
from typing import Any

from ..errors import ExecutionError


def lock() -> Any:
    """One for `unheld`, which has to know by whom it is held."""
    return threading.RLock()


def unheld(lock: Any) -> Any:
    """The lock, to be taken by `with`; `ExecutionError` where this thread has it already."""
    if lock._is_owned():
        raise ExecutionError(
            "a signal has come as this thread was speaking to the server, which its handler can't do in the midst of "
            "that: let another thread do it, as in threading.Thread(target=call.cancel).start()"
        )
    return lock
