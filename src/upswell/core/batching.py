"""When inputs form a batch. Pure functions of numbers.

A batch is due when as many inputs wait as it holds, or when the oldest has waited as long as it may. It is formed only
for a container that has a place for it, so inputs that wait for a place meanwhile make it larger.
"""

from __future__ import annotations

from ..spec import Concurrency


def due_at(waiting: int, oldest_since: float, concurrency: Concurrency) -> float:
    """The moment from which the inputs that wait are worth a batch; `oldest_since` is when the first of them came."""
    if waiting >= concurrency.batch_size:
        return oldest_since
    return oldest_since + concurrency.batch_wait_ms / 1000
