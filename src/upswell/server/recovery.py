"""What a store has kept, as events for a fresh plane: a server goes on where the last one ended."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ..core import events as e
from ..store import Snapshot


def recovered(snapshot: Snapshot) -> Iterator[e.Event]:
    """Functions first, then what was laid over their settings, then their calls: warm containers start meanwhile."""
    served = chain.from_iterable(version.functions for _, version in snapshot.apps)
    functions = {record.id: record for record in chain(served, snapshot.derived)}
    for record in functions.values():
        yield e.FunctionDeclared(record.id, record.standing_spec, ephemeral=False)
    for function, settings in snapshot.settings:
        if function in functions:
            yield e.SettingsUpdated(function, settings)
    for call in snapshot.calls:
        yield e.CallRestored(call)
