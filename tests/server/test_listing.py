"""What a server says is on it, against what a client and played containers have made happen."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from upswell.server import listing
from upswell.spec import AutoscalerSettings, Cron, Period
from upswell.stores.sqlite import SqliteStore
from upswell.wire import messages as m

from .stage import Peer, Stage, record, stage

NOON = 1_800_014_400.0  # a moment, at which the calendar stands still: 2027-01-15, 12:00 UTC


async def listed(peer: Peer, subject: object, limit: int = m.MAX_ROWS) -> tuple[list[object], bool]:
    """All rows, and whether there are more."""
    await peer.send(m.List(7, subject, limit))  # type: ignore[arg-type]
    rows: list[object] = []
    while True:
        answer, _ = await peer.expect(m.Listed)
        assert answer.request == 7 and len(answer.rows) <= listing.PAGE_ROWS
        rows += answer.rows
        if answer.last:
            return rows, answer.more


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Stage]:
    """A server with a home, on which an app is open that has f, with a container that runs an input, and g."""
    async with stage(home=tmp_path, calendar=lambda: NOON) as on_stage:
        settings = AutoscalerSettings(min_containers=1, max_containers=1)
        await on_stage.client.send(m.OpenApp("ap-1", "app", [record("f", settings=settings), record("g")]))
        await on_stage.has_taken_all()
        container = await on_stage.container(await on_stage.started("ap-1/f"))
        await on_stage.client.send(m.Submit("fc-1", "ap-1/f", "map", 0, 5, False))
        assign, _ = await container.expect(m.Assign)
        await container.send(m.Results(assign.range, 0, 1, 0.5, 0.1))
        await on_stage.client.expect(m.Outputs)
        yield on_stage


async def test_functions(here: Stage) -> None:
    (f, g), more = await listed(here.client, m.ListFunctions("ap-1"))
    assert isinstance(f, m.FunctionInfo) and isinstance(g, m.FunctionInfo) and not more
    assert (f.id, f.app, f.app_name, f.name) == ("ap-1/f", "ap-1", "app", "f")
    assert (f.backlog, f.running, f.headroom, f.succeeded, f.failed) == (3, 1, 0, 1, 0)
    assert (f.starting, f.ready, f.wanted, f.rule) == (0, 1, 1, "max_containers")
    assert f.settings == AutoscalerSettings(
        min_containers=1, max_containers=1, buffer_containers=0, scaledown_window=60
    )
    assert f.reason.endswith("; max_containers is 1")
    assert (g.backlog, g.ready, g.rule, g.schedule, g.next_fire_at) == (0, 0, "idle", "", None)
    assert (await listed(here.client, m.ListFunctions(active=True)))[0] == [f]
    assert (await listed(here.client, m.ListFunctions("ap-none")))[0] == []


async def test_apps_and_versions(here: Stage) -> None:
    for name in ("f", "g"):
        await here.client.send(m.Deploy(1, "ap-2", "kept", (record(name, "ap-2"),), (), tag=f"with {name}"))
        await here.client.expect(m.Deployed)
    (kept, opened), _ = await listed(here.client, m.ListApps())
    assert kept == m.AppInfo("ap-2", "kept", "deployed", 2, NOON, 1, 0, 0)
    assert opened == m.AppInfo("ap-1", "app", "running", 0, NOON, 2, 1, 3)
    assert (await listed(here.client, m.ListVersions("ap-2")))[0] == [
        m.VersionInfo("ap-2", 2, "with g", NOON, True),
        m.VersionInfo("ap-2", 1, "with f", NOON, False),
    ]
    assert (await listed(here.client, m.ListVersions("ap-2"), limit=1))[1]
    await here.client.send(m.StopApp(2, "kept"))
    await here.client.expect(m.Done)
    assert (await listed(here.client, m.ListApps()))[0] == [
        opened,
        m.AppInfo("ap-2", "kept", "stopped", 0, None, 0, 0, 0),
    ]


async def test_schedules(here: Stage) -> None:
    daily, hourly = Cron("0 9 * * *", "Europe/Berlin"), Period(hours=1, minutes=30)
    functions = (record("f", "ap-2", schedule=daily), record("g", "ap-2", schedule=hourly))
    await here.client.send(m.Deploy(1, "ap-2", "kept", functions, ()))
    await here.client.expect(m.Deployed)
    rows, _ = await listed(here.client, m.ListFunctions("ap-2"))
    assert [(row.schedule, row.next_fire_at) for row in rows if isinstance(row, m.FunctionInfo)] == [
        ("Cron('0 9 * * *', 'Europe/Berlin')", NOON + 20 * 3600),
        ("Period(hours=1, minutes=30)", NOON + 5400),
    ]


async def test_containers(here: Stage) -> None:
    (one,), _ = await listed(here.client, m.ListContainers())
    assert isinstance(one, m.ContainerInfo)
    assert (one.id, one.app, one.app_name, one.function) == (*here.played, "ap-1", "app", "f")
    assert (one.state, one.version, one.started_at, one.running) == ("ready", 0, NOON, 1)
    assert (await listed(here.client, m.ListContainers("ap-2")))[0] == []


async def test_a_container_is_stopped(here: Stage) -> None:
    (name,) = here.played
    await here.client.send(m.StopContainer(1, name))
    assert (await here.client.expect(m.Done))[0].error is None
    assert here.engine.killed == [name]
    here.peers[1].close()  # its end of the connection
    second = await here.container(await here.started("ap-1/f"))
    assign, _ = await second.expect(m.Assign)
    while assign.start != 1:  # others may come first, as it takes a moment to end
        await second.send(m.Results(assign.range, assign.start, 1, 0.5, 0.1))
        assign, _ = await second.expect(m.Assign)
    await here.client.send(m.StopContainer(2, name))
    error = (await here.client.expect(m.Done))[0].error
    assert error is not None and error.kind == "missing"


async def test_calls(here: Stage) -> None:
    """Those that a client waits for and those that are kept, however they ended, the newest first."""
    await here.client.send(m.Deploy(1, "ap-2", "kept", (record("g", "ap-2"),), ()))
    await here.client.expect(m.Deployed)
    await here.client.send(m.Submit("fc-2", "ap-2/g", "spawn", 0, 2, True))
    container = await here.container(await here.started("ap-2/g"))
    for position in range(2):
        assign, _ = await container.expect(m.Assign)
        if position:
            error = m.ErrorRecord("user", "builtins.ValueError", "no")
            await container.send(m.Failure(assign.range, position, 0.1, 0.1, error))
        else:
            await container.send(m.Results(assign.range, 0, 1, 0.1, 0.1))
    await here.client.send(m.Collect("fc-2", 0, -1))
    await here.client.expect(m.Failed)
    rows, _ = await listed(here.client, m.ListCalls())
    kept = m.CallInfo("fc-2", "ap-2", "kept", "g", "spawn", "finished", 2, 2, 1, True, NOON, NOON)
    passing = m.CallInfo("fc-1", "ap-1", "app", "f", "map", "running", 5, 1, 0, False, NOON, None)
    assert sorted(rows, key=str) == sorted([kept, passing], key=str)
    assert (await listed(here.client, m.ListCalls("ap-1")))[0] == [passing]
    assert (await listed(here.client, m.ListCalls("ap-2")))[0] == [kept]
    assert (await listed(here.client, m.ListCalls(call="fc-2")))[0] == [kept]
    assert (await listed(here.client, m.ListCalls(call="fc-3")))[0] == []
    assert await listed(here.client, m.ListCalls(), limit=1) == ([rows[0]], True)
    await here.client.send(m.Cancel("fc-1"))
    (cancelled,), _ = await listed(here.client, m.ListCalls("ap-1"))
    assert isinstance(cancelled, m.CallInfo)
    assert (cancelled.state, cancelled.done, cancelled.failed) == ("cancelled", 4, 3)


async def test_a_long_listing_holds_nobody_up(here: Stage) -> None:
    """Who asks something else meanwhile is answered before it is over, and several listings share the time."""
    many = [record(f"f{number}", "ap-3") for number in range(9_000)]
    await here.client.send(m.OpenApp("ap-3", "large", many))
    await here.has_taken_all()
    await here.client.send(m.List(1, m.ListFunctions()), m.List(2, m.ListFunctions("ap-1")), m.Inquire(3, "ap-1/f"))
    came: list[tuple[int, int, bool]] = []
    while (1, True) not in {(request, last) for request, _, last in came}:
        frame = await here.client.receive()
        assert frame is not None
        if isinstance(frame[0], m.Listed):
            came.append((frame[0].request, len(frame[0].rows), frame[0].last))
        elif isinstance(frame[0], m.Statistics):
            came.append((frame[0].request, 0, True))
    assert came[-1][0] == 1 and {request for request, _, _ in came[:-1]} == {1, 2, 3}
    pages = [rows for request, rows, _ in came if request == 1]
    assert sum(pages) == 9_002 and max(pages) <= listing.PAGE_ROWS


async def test_a_limit_is_kept(here: Stage) -> None:
    assert len((await listed(here.client, m.ListFunctions(), limit=2))[0]) == 2
    assert (await listed(here.client, m.ListFunctions(), limit=2))[1] is False
    assert (await listed(here.client, m.ListFunctions(), limit=1))[1] is True
    assert await listed(here.client, m.ListApps(), limit=0) == ([], True)


@pytest.mark.parametrize(
    "message", [m.List(1, m.ListApps(), -1), m.List(1, m.ListApps(), m.MAX_ROWS + 1), m.StopContainer(1, "")]
)
async def test_what_may_not_be_asked(here: Stage, message: m.Message) -> None:
    peer = await here.neighbour()
    await peer.send(message)
    assert await peer.dismissed()


async def test_too_many_listings(here: Stage) -> None:
    await here.client.send(m.OpenApp("ap-3", "large", [record(f"f{number}", "ap-3") for number in range(3_000)]))
    await here.has_taken_all()
    peer = await here.neighbour()
    await peer.send(*(m.List(number, m.ListFunctions()) for number in range(listing.WAITING_AT_MOST + 1)))
    assert "listings are under way" in await peer.dismissed()
    assert len((await listed(here.client, m.ListFunctions("ap-1")))[0]) == 2


async def test_who_lists_what_can_not_be_read_is_told_and_others_are_answered(here: Stage) -> None:
    assert isinstance(here.server._store, SqliteStore)
    here.server._store._reader.close()  # as good as a disk that fails
    unlucky, other = await here.neighbour(), await here.neighbour()
    await unlucky.send(m.List(1, m.ListApps()))
    assert "upswell.db can't be used" in await unlucky.dismissed()
    (row,), _ = await listed(other, m.ListContainers())
    assert isinstance(row, m.ContainerInfo)
