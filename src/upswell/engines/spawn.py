"""The spawn engine: like the local one, but each container is a fresh interpreter that imports the user's code itself.

A start costs the imports instead of a millisecond. It is for code that can't be forked, such as a module that starts
threads as it is imported.
"""

from __future__ import annotations

from .local import LocalEngine


class SpawnEngine(LocalEngine):
    """Starts and ends containers on this machine, none forked from another's imports."""

    _fresh = True
