"""A server that begins with what another one has kept."""

from __future__ import annotations

from upswell import store as s
from upswell.core import commands as c
from upswell.core.plane import Plane
from upswell.core.snapshot import SavedCall, SavedSegment
from upswell.server.recovery import recovered
from upswell.spec import AutoscalerSettings, Cron, Environment, FunctionRecord, FunctionSpec, Period, SettingsUpdate

ENVIRONMENT = Environment(kind="module", origin="a", module="a", main=False, sys_path=(), directory=".")


def function(name: str, spec: FunctionSpec) -> FunctionRecord:
    return FunctionRecord(id=f"ap-1/{name}", app_name="a", name=name, spec=spec, environment=ENVIRONMENT)


def call(name: str, target: str) -> SavedCall:
    return SavedCall(name, target, "spawn", 5, 5, False, (SavedSegment(0, 5, ((3, 5),)),))


SNAPSHOT = s.Snapshot(
    first_id=1 << 32,
    apps=(
        (
            s.AppRecord("ap-1", "a", 2),
            s.Version(
                "ap-1",
                2,
                "",
                1000.0,
                (
                    function("warm", FunctionSpec(settings=AutoscalerSettings(min_containers=1))),
                    function("hourly", FunctionSpec(schedule=Period(hours=1))),
                    function("nightly", FunctionSpec(schedule=Cron("0 0 * * *"))),
                ),
            ),
        ),
    ),
    derived=(function("warm@2", FunctionSpec(settings=AutoscalerSettings(min_containers=2))),),
    settings=(
        ("ap-1/gone", SettingsUpdate(min_containers=9)),
        ("ap-1/warm", SettingsUpdate(min_containers=3)),
    ),
    fires=(("ap-1/hourly", 8200.0),),
    calls=(call("fc-1", "ap-1/hourly"), call("fc-2", "ap-1/gone")),
)


def test_functions_settings_and_calls_are_there_again() -> None:
    plane = Plane(cores=2, first_id=SNAPSHOT.first_id)
    commands = [command for event in recovered(SNAPSHOT) for command in plane.handle(event, 0.0)]
    warm, hourly = plane.statistics("ap-1/warm"), plane.statistics("ap-1/hourly")
    assert warm is not None
    assert hourly is not None
    assert (warm.settings.min_containers, warm.containers) == (3, 3)
    assert plane.statistics("ap-1/warm@2") is not None
    assert hourly.backlog == 2
    assert plane.statistics("ap-1/gone") is None
    ended = [command.call for command in commands if isinstance(command, c.FinishCall)]
    assert ended == ["fc-2"], "its function is gone"
