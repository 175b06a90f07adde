"""What user code imports: apps, functions, calls, and the client of the server.

Declaring an app needs little of it. What runs one is named through this package, as `sdk.client` and the like are, and
imported as it is first named: while the private server boots, and in containers not before one calls another function.
"""

from types import ModuleType
from typing import TYPE_CHECKING

from .._cold_start import load

if TYPE_CHECKING:
    from . import call as call
    from . import client as client
    from . import mapping as mapping
    from . import pump as pump
    from . import streaming as streaming

LATE = ("client", "call", "mapping", "pump", "streaming")


def complete() -> None:
    """Import all of that now."""
    for name in LATE:
        load(f"{__name__}.{name}")


def __getattr__(name: str) -> ModuleType:
    if name not in LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(f"{__name__}.{name}")
