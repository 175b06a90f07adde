"""What a store has kept, as events for a fresh plane: a server goes on where the last one ended."""

from __future__ import annotations

from collections.abc import Iterator

from ..core import events as e
from ..spec import FunctionRecord, app_of
from ..store import Snapshot


def recovered(snapshot: Snapshot) -> Iterator[e.FunctionDeclared | e.SettingsUpdated | e.CallRestored]:
    """Functions first, then what was laid over their settings, then their calls: warm containers start meanwhile."""
    apps = {app.id for app, _ in snapshot.apps}
    functions: dict[str, FunctionRecord] = {}
    for _, version in snapshot.apps:
        functions |= {record.id: record for record in version.functions}
    functions |= {record.id: record for record in snapshot.derived if app_of(record.id) in apps}
    for record in functions.values():
        yield e.FunctionDeclared(record.id, record.standing_spec, ephemeral=False, version=record.version)
    for function, settings in snapshot.settings:
        if function in functions:
            yield e.SettingsUpdated(function, settings)
    for call in snapshot.calls:
        yield e.CallRestored(call)
