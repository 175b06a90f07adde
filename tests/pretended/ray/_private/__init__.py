"""What Ray does not promise to keep."""

from . import state

__all__ = ["state"]
