"""When a container's silence becomes too long. A pure function of what is known of it.

A container enforces the time limit of its inputs itself; this is for those that can't any more.
"""

from __future__ import annotations

from ..spec import FunctionSpec
from .agenda import NEVER
from .model import Container, State

TIMEOUT_GRACE_SECONDS = 5.0  # the core ends an input this much later than its container should have


def due_at(container: Container, spec: FunctionSpec) -> float:
    """The moment at which to end it unless it is heard before; `NEVER` while it may be silent."""
    if container.state is State.STARTING:
        return container.started_at + spec.startup_timeout
    if container.state is State.READY and container.running:
        return container.heard_at + spec.timeout + TIMEOUT_GRACE_SECONDS
    return NEVER
