"""When a container's silence becomes too long. A pure function of what is known of it.

A container enforces the time limit of its inputs itself; this is for those that can't any more, and for those that take
too long to start or to exit.
"""

from __future__ import annotations

from ..spec import CANCEL_GRACE_SECONDS, EXIT_GRACE_SECONDS
from .agenda import NEVER
from .model import Container, KilledFor, State

TIMEOUT_GRACE_SECONDS = 5.0  # the core ends an input this much later than its container should have


def due_at(container: Container) -> float:
    """The moment at which to end it unless it is heard before; `NEVER` while it may be silent."""
    match container.state:
        case State.READY | State.RETIRING if container.inputs:
            return container.heard_at + container.spec.timeout + TIMEOUT_GRACE_SECONDS
        case State.STARTING:
            return container.started_at + container.spec.startup_timeout
        case State.ENDING if not container.killed_for:
            return container.heard_at + _grace_seconds(container)
    return NEVER


def exceeded(container: Container) -> tuple[KilledFor, str]:
    """What it is killed for when that moment has come, and why in words."""
    spec = container.spec
    match container.state:
        case State.STARTING:
            return "start", f"it exceeded startup_timeout={spec.startup_timeout:g} s"
        case State.READY | State.RETIRING:
            return "timeout", f"it exceeded timeout={spec.timeout:g} s"
        case State.ENDING:
            return "cancelled", f"it did not exit within {_grace_seconds(container):g} s"


def _grace_seconds(container: Container) -> float:
    """How long it may take to exit: what it runs is cancelled first, or there are but its exit hooks."""
    return CANCEL_GRACE_SECONDS if container.ranges else EXIT_GRACE_SECONDS
