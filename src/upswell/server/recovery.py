"""What a store has kept, as events for a fresh plane and as schedules: a server goes on where the last one ended."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import asdict

from ..core import events as e
from ..core.schedules import Schedules
from ..spec import FunctionRecord, SettingsUpdate
from ..store import Snapshot, Version


def served_functions(snapshot: Snapshot) -> Iterator[tuple[FunctionRecord, Version]]:
    """The functions of all apps that are served, with the version they are of."""
    for _, version in snapshot.apps:
        for record in version.functions:
            yield record, version


def recovered(snapshot: Snapshot) -> Iterator[e.Event]:
    """Functions first, then what was laid over their settings, then their calls: warm containers start meanwhile."""
    functions = [record for record, _ in served_functions(snapshot)]
    for record in functions:
        yield e.FunctionDeclared(record.id, record.spec, ephemeral=False)
    known = {record.id for record in functions}
    for function, settings in snapshot.settings:
        if function in known:
            yield e.SettingsUpdated(function, SettingsUpdate.of(**asdict(settings)))
    for call in snapshot.calls:
        yield e.CallRestored(call)


def recovered_schedules(snapshot: Snapshot) -> Schedules:
    """The schedules of the functions that are served; what was missed is due at once."""
    schedules, fires = Schedules(), dict(snapshot.fires)
    for record, version in served_functions(snapshot):
        if record.spec.schedule is not None:
            schedules.put(record.id, record.spec.schedule, version.deployed_at, fires.get(record.id))
    return schedules
