"""Apps and calls that outlive their client and their server, over the wire, with containers that the test plays."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from upswell import code
from upswell.server import calls, serve
from upswell.server.connections import GRACE_SECONDS
from upswell.spec import AutoscalerSettings, FunctionRecord, Limits, Period, SettingsUpdate, code_digest
from upswell.stores.sqlite import SqliteStore
from upswell.wire import messages as m

from .stage import PATIENCE_SECONDS, Peer, Stage, record, stage


async def deploy(peer: Peer, *functions: FunctionRecord, name: str = "census", **more: object) -> m.Deployed:
    await peer.send(m.Deploy(1, "ap-new", name, functions, (), **more))  # type: ignore[arg-type]
    return (await peer.expect(m.Deployed))[0]


async def served(peer: Peer, name: str = "f", app: str = "census") -> FunctionRecord:
    await peer.send(m.Resolve(2, app, name))
    function = (await peer.expect(m.Resolved))[0].function
    assert function is not None
    return function


async def spawn(peer: Peer, call: str, function: str, first: int = 0, count: int = 1, last: bool = True) -> None:
    await peer.send(m.Submit(call, function, "spawn", first, count, last), payload=b"in")


async def statistics(peer: Peer, function: str, update: SettingsUpdate | None = None) -> m.Statistics:
    await peer.send(m.Inquire(3, function, update))
    return (await peer.expect(m.Statistics))[0]


async def outcomes(peer: Peer, call: str, inputs: int = 1) -> list[tuple[m.Message, bytes]]:
    """What became of so many inputs of a call."""
    await peer.send(m.Collect(call, 0, -1))
    frames: list[tuple[m.Message, bytes]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while inputs > 0 and (frame := await peer.receive()):
            if isinstance(frame[0], m.Outputs | m.Failed):
                frames.append(frame)
                inputs -= max(1, frame[0].count)
    return frames


@asynccontextmanager
async def killed(home: Path, calendar: Callable[[], float] = time.time) -> AsyncIterator[Stage]:
    """A server with that home which at the end is gone as after a kill: its files are as they are at that moment."""
    async with stage(home=home, calendar=calendar) as here:
        yield here
        copy = home.parent / "as-it-was"
        assert here.server._home == home
        copy.mkdir(exist_ok=True)
        for file in home.glob("upswell.db*"):
            (copy / file.name).write_bytes(file.read_bytes())
        spools = {file: file.read_bytes() for file in home.glob("spools/*")}
    for file in home.glob("upswell.db*"):
        file.unlink()
    for file in copy.iterdir():
        file.rename(home / file.name)
    for file, content in spools.items():
        with file.open("r+b" if file.exists() else "wb") as stream:  # the same file, which a program may have open
            stream.write(content)


async def test_a_deployed_function_is_called_by_name(home: Path) -> None:
    async with stage(home=home) as here:
        deployed = await deploy(here.client, record("f"))
        assert (deployed.error, deployed.version, deployed.unchanged) == (None, 1, False)
        function = await served(here.client)
        await here.client.send(m.Submit("fc-1", function.id, "remote", 0, 1, True), payload=b"in")
        container = await here.container(await here.started(function.id))
        assign, given = await container.expect(m.Assign)
        await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=given + b" and out")
        assert (await here.client.expect(m.Outputs))[1] == b"in and out"


async def test_names_that_are_not_there(home: Path) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f"))
        for app, name, version, words in [
            ("censsus", "f", 0, "there is census"),
            ("census", "g", 0, "it has f"),
            ("census", "f", 7, "version 1, not in version 7"),
        ]:
            await here.client.send(m.Resolve(2, app, name, version))
            error = (await here.client.expect(m.Resolved))[0].error
            assert error is not None
            assert (error.kind, words in error.message) == ("missing", True), error.message


async def test_values_of_variables_are_not_told(home: Path) -> None:
    function = record("f")
    environment = replace(function.environment, variables=(("KEY", "secret"),))
    async with stage(home=home) as here:
        await deploy(here.client, replace(function, environment=environment))
        assert (await served(here.client)).environment.variables == ()


async def test_the_same_once_more_is_no_new_version_but_takes_overrides_away(home: Path) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=4)))
        function = await served(here.client)
        await statistics(here.client, function.id, SettingsUpdate(max_containers=7))
        again = await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=4)))
        assert (again.version, again.unchanged) == (1, True)
        assert (await statistics(here.client, function.id)).settings.max_containers == 4


async def test_changed_settings_merge_outlive_the_server_and_end_with_the_next_deploy(home: Path) -> None:
    shop = replace(record("Shop", settings=AutoscalerSettings(max_containers=4)), kind="class")
    async with killed(home) as here:
        await deploy(here.client, shop)
        plain = (await served(here.client, "Shop")).id
        ulm = replace(shop, id=f"{plain}@ulm", parameters=b"ulm")
        bonn = replace(shop, id=f"{plain}@bonn", parameters=b"bonn")
        await here.client.send(*[m.Declare(plain.partition("/")[0], one) for one in (ulm, bonn)])
        for update in (SettingsUpdate(max_containers=7), SettingsUpdate(buffer_containers=2)):
            await statistics(here.client, ulm.id, update)
        changed = (await statistics(here.client, ulm.id)).settings
        assert (changed.max_containers, changed.buffer_containers) == (7, 2)
    async with stage(home=home) as here:
        for function, wanted in ((ulm.id, changed), (bonn.id, shop.spec.settings), (plain, shop.spec.settings)):
            assert (await statistics(here.client, function)).settings == wanted
        await deploy(here.client, shop)
        assert (await statistics(here.client, ulm.id)).settings == shop.spec.settings


async def test_nothing_that_came_after_a_deploy_comes_back_with_the_next_one_after_a_stop(home: Path) -> None:
    moment = 1_000.0
    shop = replace(record("Shop", settings=AutoscalerSettings(max_containers=4)), kind="class")
    ticking = record("tick", schedule=Period(seconds=100))
    async with killed(home, calendar=lambda: moment) as here:
        await deploy(here.client, shop, ticking)
        plain = (await served(here.client, "Shop")).id
        ulm = replace(shop, id=f"{plain}@ulm", parameters=b"ulm")
        await here.client.send(m.Declare(plain.partition("/")[0], ulm))
        await statistics(here.client, plain, SettingsUpdate(max_containers=7))
        moment = 1_150.0
        here.clock.advance(150.0)
        await here.until(lambda: len(here.server._services.dispatcher.calls) == 1)
        await here.client.send(m.StopApp(5, "census"))
        await here.client.expect(m.Done)
        moment = 5_000.0
        await deploy(here.client, shop, ticking)
    async with stage(home=home, calendar=lambda: moment) as here:
        assert (await statistics(here.client, plain)).settings == shop.spec.settings
        assert ulm.id not in here.server._services.dispatcher.functions
        tick = (await served(here.client, "tick")).id
        assert here.server._services.apps._timetable.next(tick) == 5_100.0


async def test_a_new_version_keeps_ids_and_what_waits(home: Path) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f"), record("g"))
        function, other = await served(here.client), await served(here.client, "g")
        await spawn(here.client, "fc-1", function.id)
        await spawn(here.client, "fc-2", other.id)
        await here.client.expect(m.Accepted)
        await here.client.expect(m.Accepted)
        newer = await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=1)))
        assert (newer.version, newer.app) == (2, function.id.partition("/")[0])
        assert (await statistics(here.client, function.id)).backlog == 1
        ((failed, _),) = await outcomes(here.client, "fc-2")
        assert isinstance(failed, m.Failed)
        assert "no part of version 2" in failed.error.message
        await here.client.send(m.Rollback(4, "census"))
        assert (await here.client.expect(m.Deployed))[0].version == 3
        assert (await served(here.client, "g")).id == other.id


async def test_only_what_would_be_another_container_is_replaced(home: Path) -> None:
    warm = AutoscalerSettings(min_containers=1)
    plain = [record(name, settings=warm) for name in ("f", "g", "h")]
    scaled = record("f", settings=AutoscalerSettings(min_containers=1, max_containers=3))
    slower = replace(plain[1], spec=replace(plain[1].spec, timeout=17.0))
    async with stage(home=home) as here:
        await deploy(here.client, *plain)
        f, g, h = [(await served(here.client, name)).id for name in ("f", "g", "h")]
        before = {function: await here.container(await here.started(function)) for function in (f, g, h)}
        assert (await deploy(here.client, scaled, slower, plain[2])).version == 2
        assert (await statistics(here.client, f)).settings.max_containers == 3
        await here.until(lambda: len(here.engine.functions) == 4)
        await here.container(await here.started(g))
        assert await before[g].receive() == (m.Drain("version 2 replaces version 1"), b"")
        for function in (f, h):
            await spawn(here.client, f"fc-{function}", function)
            answer = await before[function].receive()
            assert answer is not None and isinstance(answer[0], m.Assign), "it goes on"
        assert len(here.engine.functions) == 4, "no other container was started"
        assert (await deploy(here.client, scaled, slower, plain[2])).unchanged
        await here.client.send(m.Rollback(4, "census"))
        assert (await here.client.expect(m.Deployed))[0].version == 3
        await here.until(lambda: len(here.engine.functions) == 5)
        assert here.engine.functions[await here.started(g)] == g


async def test_back_to_what_is_served_is_no_new_version_but_takes_overrides_away(home: Path) -> None:
    async with stage(home=home) as here:
        for most in (4, 5):
            await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=most)))
        function = await served(here.client)
        for version, wanted in ((2, (2, True)), (1, (3, False)), (1, (3, True)), (3, (3, True)), (2, (4, False))):
            await statistics(here.client, function.id, SettingsUpdate(max_containers=7))
            await here.client.send(m.Rollback(4, "census", version))
            done, _ = await here.client.expect(m.Deployed)
            assert (done.version, done.unchanged) == wanted
            now = (await statistics(here.client, function.id)).settings
            assert now.max_containers == (4 if done.version == 3 else 5)


async def test_what_has_ended_before_a_restart_may_be_offered_again(home: Path) -> None:
    """As by a client that was not told that it was accepted: whoever collects it is told how many inputs it has."""
    async with stage(home=home) as here:
        await deploy(here.client, record("f"))
        function = await served(here.client)
        await spawn(here.client, "fc-1", function.id)
        container = await here.container(await here.started(function.id))
        assign, _ = await container.expect(m.Assign)
        await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=b"out")
        await outcomes(here.client, "fc-1")
    async with stage(home=home) as here:
        await spawn(here.client, "fc-1", function.id)
        await here.client.expect(m.Accepted)
        ((output, _),) = await outcomes(here.client, "fc-1")
        assert isinstance(output, m.Outputs)
        assert (await here.client.expect(m.CallDescribed))[0].total == 1


async def test_what_is_accepted_is_there_after_a_kill(home: Path) -> None:
    async with killed(home) as here:
        await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=1)))
        function = await served(here.client)
        await statistics(here.client, function.id, SettingsUpdate(buffer_containers=3))
        await spawn(here.client, "fc-1", function.id, 0, 3, last=False)
        await spawn(here.client, "fc-1", function.id, 3, 2)
        for _ in range(2):
            await here.client.expect(m.Accepted)
        container = await here.container(await here.started(function.id))
        assign, _ = await container.expect(m.Assign)
        assert (assign.start, assign.stop) == (0, 1)
        await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=b"first")
        await here.client.send(m.Collect("fc-1", 0, -1))
        assert (await here.client.expect(m.Outputs))[1] == b"first"
    async with stage(home=home) as here:
        assert (await served(here.client)).id == function.id
        now = await statistics(here.client, function.id)
        assert (now.backlog, now.settings.buffer_containers, now.settings.max_containers) == (4, 3, 1)
        ((output, payload),) = await outcomes(here.client, "fc-1")
        assert isinstance(output, m.Outputs)
        assert (output.first, payload) == (0, b"first")
        container = await here.container(await here.started(function.id))
        position = 1
        while position < 5:
            assign, _ = await container.expect(m.Assign)
            assert assign.start == position, "what has an outcome is not run again"
            await container.send(
                m.Results(assign.range, assign.start, assign.stop - assign.start, 0.001, 0.001), payload=b"later"
            )
            position = assign.stop
        seen = 0
        while seen < 4:
            seen += (await here.client.expect(m.Outputs))[0].count


async def test_segments_offered_twice_are_taken_once(home: Path) -> None:
    async with killed(home) as here:
        await deploy(here.client, record("f"))
        function = await served(here.client)
        await spawn(here.client, "fc-1", function.id, 0, 3, last=False)
        await here.client.expect(m.Accepted)
    async with stage(home=home) as here:
        for first, last in ((0, False), (3, True)):
            await spawn(here.client, "fc-1", function.id, first, 3, last)
            assert (await here.client.expect(m.Accepted))[0].first == first
        assert (await statistics(here.client, function.id)).backlog == 6


async def test_over_the_limit_is_refused_and_taken_when_there_is_room(home: Path) -> None:
    async with stage(Limits(spawned_pending=10), home) as here:
        await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=1)))
        function = await served(here.client)
        await spawn(here.client, "fc-1", function.id, 0, 8, last=False)
        await here.client.expect(m.Accepted)
        await spawn(here.client, "fc-1", function.id, 8, 8, last=False)
        await spawn(here.client, "fc-1", function.id, 16, 8)
        for first in (8, 16):
            refused = (await here.client.expect(m.Refused))[0]
            assert (refused.first, refused.error.kind) == (first, "exhausted")
        container = await here.container(await here.started(function.id))
        done = 0
        while done < 8:
            assign, _ = await container.expect(m.Assign)
            count = assign.stop - assign.start
            await container.send(m.Results(assign.range, assign.start, count, 0.001, 0.001), payload=b"out")
            done += count
        await here.client.expect(m.Invited)
        await spawn(here.client, "fc-1", function.id, 8, 8)
        assert (await here.client.expect(m.Accepted))[0].first == 8


async def test_a_schedule_fires_once_for_what_was_missed(home: Path) -> None:
    now = 1_000_000.0
    async with killed(home, lambda: now) as here:
        await deploy(here.client, record("f", schedule=Period(hours=1)))
        function = await served(here.client)
        assert (await statistics(here.client, function.id)).backlog == 0
        now += 3600
        here.clock.advance(31)
        await here.started(function.id)
    async with stage(home=home, calendar=lambda: now) as here:
        assert (await statistics(here.client, function.id)).backlog == 1, "the fire is kept with its call"
    now += 5 * 3600 + 10
    async with stage(home=home, calendar=lambda: now) as here:
        await here.until(lambda: here.server._services.runtime.plane.statistics(function.id).backlog == 2)  # type: ignore[union-attr]
        here.clock.advance(31)
        assert (await statistics(here.client, function.id)).backlog == 2


async def test_a_stopped_app_is_gone_and_its_results_are_not(home: Path) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f"))
        function = await served(here.client)
        await spawn(here.client, "fc-1", function.id)
        await here.client.expect(m.Accepted)
        await here.client.send(m.StopApp(5, "census"))
        assert (await here.client.expect(m.Done))[0].error is None
        ((failed, _),) = await outcomes(here.client, "fc-1")
        assert isinstance(failed, m.Failed)
        assert failed.error.kind == "cancelled"
        await here.client.send(m.Resolve(2, "census", "f"))
        assert (await here.client.expect(m.Resolved))[0].error is not None
        again = await deploy(here.client, record("f"))
        assert (again.app, again.version) == (function.id.partition("/")[0], 2)


async def test_a_detached_app_ends_with_its_last_call(home: Path) -> None:
    async with stage(home=home) as here:
        other = await here.neighbour()
        deployed = await deploy(other, record("f"), detached=True)
        await spawn(other, "fc-1", f"{deployed.app}/f")
        await other.expect(m.Accepted)
        other.close()
        container = await here.container(await here.started(f"{deployed.app}/f"))
        assign, _ = await container.expect(m.Assign)
        await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=b"out")
        await container.expect(m.Drain)
        ((output, payload),) = await outcomes(here.client, "fc-1")
        assert (output, payload) == (m.Outputs("fc-1", 0, 1), b"out")


async def detached_app_of_an_earlier_life(home: Path) -> str:
    """One that has a call which waits, and whose client is gone with the server."""
    async with stage(home=home) as here:
        deployed = await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=1)), detached=True)
        await spawn(here.client, "fc-1", f"{deployed.app}/f")
        await here.client.expect(m.Accepted)
        return deployed.app


async def finish(here: Stage, app: str) -> None:
    """Its call ends."""
    container = await here.container(await here.started(f"{app}/f"))
    assign, _ = await container.expect(m.Assign)
    await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=b"out")
    assert (await outcomes(here.client, "fc-1"))[0][1] == b"out"
    await here.until(lambda: "fc-1" not in here.server._services.dispatcher.calls)


async def test_a_detached_app_whose_client_comes_back_after_a_restart_is_its_own_again(home: Path) -> None:
    app = await detached_app_of_an_earlier_life(home)
    async with stage(home=home) as here:
        client = await here.neighbour()
        await client.send(m.AttendApp(app))
        await finish(here, app)
        here.clock.advance(GRACE_SECONDS + 1)
        assert (await statistics(client, f"{app}/f")).error is None, "its client may want more of it"
        here.engine.write(await here.started(f"{app}/f"), 1, "said\n")
        assert (await client.expect(m.Log))[0].text == "said\n"
        await client.send(m.CloseApp(app))
        await here.until(lambda: here.server._services.dispatcher.apps[app].closing)


async def test_a_detached_app_whose_client_does_not_come_back_ends_a_little_after_its_last_call(home: Path) -> None:
    app = await detached_app_of_an_earlier_life(home)
    async with stage(home=home) as here:
        await finish(here, app)
        assert (await statistics(here.client, f"{app}/f")).error is None, "its client may be on its way"
        here.clock.advance(GRACE_SECONDS)
        await here.until(lambda: here.server._services.dispatcher.apps[app].closing)
    async with stage(home=home) as here:
        assert app not in here.server._services.dispatcher.apps


async def ended(here: Stage, call: str) -> int:
    """With how many inputs the call has ended, as whoever collects it is told."""
    await here.client.send(m.Collect(call, 0, -1))
    while (described := (await here.client.expect(m.CallDescribed))[0]).total < 0:
        pass
    return described.total


async def test_a_call_whose_program_leaves_in_the_middle_ends_with_what_was_taken(home: Path) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f"))
        function, client = (await served(here.client)).id, await here.neighbour()
        for first in (0, 5):
            await spawn(client, "fc-1", function, first, 5, last=False)
            await client.expect(m.Accepted)
        await spawn(client, "fc-2", function, 0, 5, last=True)
        await client.expect(m.Accepted)
        client.close()
        assert await ended(here, "fc-1") == 10
        returned = await here.neighbour()
        await spawn(returned, "fc-1", function, 10, 5, last=False)
        await returned.send(m.EndInputs("fc-1", 15))
        assert "has ended" in (await returned.expect(m.Refused))[0].error.message
        assert (await statistics(returned, function)).error is None, "it is let in all the same"
        container = await here.container(await here.started(function))
        left = 15
        while left:
            assign, _ = await container.expect(m.Assign)
            many = assign.stop - assign.start
            left -= many
            await container.send(m.Results(assign.range, assign.start, many, 0.001, 0.001), payload=b"out")
        await here.until(lambda: not here.server._services.dispatcher.calls)
        assert [here.server._store.call(call).total for call in ("fc-1", "fc-2")] == [10, 5]  # type: ignore[union-attr]


async def test_a_call_without_inputs_has_ended_as_it_is_kept(home: Path) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f"))
        function = (await served(here.client)).id
        await spawn(here.client, "fc-1", function, 0, 0)
        await here.client.expect(m.Accepted)
        assert await ended(here, "fc-1") == 0
        await here.client.send(m.Cancel("fc-1"))
        await spawn(here.client, "fc-2", "ap-none/f", 0, 0)
        assert "there is no function f" in (await here.client.expect(m.Refused))[0].error.message
        assert not here.server._services.dispatcher.calls
    async with stage(home=home) as here:
        await spawn(here.client, "fc-1", function, 0, 0)  # once more, as its client has not heard of it
        await here.client.expect(m.Accepted)
        assert await ended(here, "fc-1") == 0
        await here.client.send(m.List(1, m.ListCalls(), 10))
        (row,) = (await here.client.expect(m.Listed))[0].rows
        assert isinstance(row, m.CallInfo)
        assert (row.id, row.state, row.inputs, row.is_whole) == ("fc-1", "finished", 0, True)
        assert not here.server._services.dispatcher.calls


async def test_a_call_that_its_program_has_left_ends_once_the_disk_has_room(home: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with stage(home=home) as here:
        await deploy(here.client, record("f"))
        function, client = (await served(here.client)).id, await here.neighbour()
        await spawn(client, "fc-1", function, 0, 5, last=False)
        await client.expect(m.Accepted)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))  # as on a full disk
        try:
            client.close()
            await here.until(lambda: here.server._store.trouble)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert await ended(here, "fc-1") == 5
        assert here.server._store.call("fc-1").total == 5  # type: ignore[union-attr]


async def test_a_call_that_never_came_to_be_is_forgotten_with_its_program(home: Path) -> None:
    async with stage(Limits(spawned_pending=5), home=home) as here:
        await deploy(here.client, record("f"))
        function, client = (await served(here.client)).id, await here.neighbour()
        await spawn(here.client, "fc-1", function, 0, 5)
        await here.client.expect(m.Accepted)
        await spawn(client, "fc-2", function, 0, 5, last=False)
        client.close()  # while what it has offered is being kept
        calls = here.server._services.dispatcher.calls
        await here.until(lambda: "fc-2" in calls)
        await here.until(lambda: "fc-2" not in calls)


async def test_a_call_of_an_earlier_life_ends_if_nobody_comes_back_to_it(home: Path) -> None:
    async with killed(home) as here:
        await deploy(here.client, record("f"))
        function = (await served(here.client)).id
        for call in ("fc-1", "fc-2", "fc-3"):
            await spawn(here.client, call, function, 0, 5, last=False)
            await here.client.expect(m.Accepted)
    async with stage(home=home) as here:
        returned = await here.neighbour()
        await spawn(returned, "fc-2", function, 5, 5, last=False)
        await returned.expect(m.Accepted)
        await returned.send(m.AttendCall("fc-3"), m.AttendCall("fc-4"))
        await statistics(returned, function)
        here.clock.advance(GRACE_SECONDS)
        assert await ended(here, "fc-1") == 5
        for call, first in (("fc-2", 10), ("fc-3", 5)):
            await spawn(returned, call, function, first, 5, last=True)
            await returned.expect(m.Accepted)
            assert await ended(here, call) == first + 5


async def test_code_is_sent_once_and_held_to_its_digest(home: Path) -> None:
    content = b"print(1)"
    digest = sha256(content).hexdigest()
    files = (("main.py", digest),)
    function = record("f")
    function = replace(function, environment=replace(function.environment, code=code_digest(files)))
    async with stage(home=home) as here:
        await here.client.send(m.OfferFiles(1, [digest]))
        assert (await here.client.expect(m.MissingFiles))[0].digests == [digest]
        await here.client.send(m.Deploy(2, "ap-new", "census", (function,), files))
        refused = (await here.client.expect(m.Deployed))[0].error
        assert refused is not None
        assert "main.py" in refused.message
        await here.client.send(m.PutFile(digest), payload=content)
        await here.client.send(m.Deploy(2, "ap-new", "census", (function,), files))
        assert (await here.client.expect(m.Deployed))[0].version == 1
        await here.client.send(m.OfferFiles(1, [digest]))
        assert (await here.client.expect(m.MissingFiles))[0].digests == []
        await here.client.send(m.PutFile(digest), payload=b"something else")
        assert "which they are not" in await here.client.dismissed()
    tree = home / "code" / "trees" / code_digest(files)
    assert (tree / "main.py").read_bytes() == content
    (tree / "main.py").unlink()
    tree.rmdir()
    async with stage(home=home):
        assert (tree / "main.py").read_bytes() == content, "the store has it too"


async def test_code_that_is_not_served_goes_and_is_there_again_when_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(home=home) as here:
        trees = []
        for content in (b"print(1)", b"print(2)"):
            digest = sha256(content).hexdigest()
            files = (("main.py", digest),)
            trees.append(home / "code" / "trees" / code_digest(files))
            function = record("f")
            function = replace(function, environment=replace(function.environment, code=code_digest(files)))
            await here.client.send(m.PutFile(digest), payload=content)
            await here.client.send(m.Deploy(2, "ap-new", "census", (function,), files))
            assert (await here.client.expect(m.Deployed))[0].error is None
        monkeypatch.setattr(code, "KEPT_SECONDS", -1.0)
        here.clock.advance(serve.CODE_SWEEP_SECONDS)
        await here.until(lambda: not trees[0].exists())
        assert (trees[1] / "main.py").read_bytes() == b"print(2)"
        await here.client.send(m.Rollback(3, "census"))
        assert (await here.client.expect(m.Deployed))[0].version == 3
        assert (trees[0] / "main.py").read_bytes() == b"print(1)", "the store has it"


async def test_a_cancellation_that_is_answered_holds(home: Path) -> None:
    async with killed(home) as here:
        await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=1)))
        function = await served(here.client)
        await spawn(here.client, "fc-1", function.id)
        await here.client.expect(m.Accepted)
        await here.client.send(m.Cancel("fc-1", request=7), m.Cancel("fc-unknown", request=8))
        assert sorted([(await here.client.expect(m.Done))[0].request for _ in range(2)]) == [7, 8]
    async with stage(home=home) as here:
        failed, _ = (await outcomes(here.client, "fc-1"))[0]
        assert isinstance(failed, m.Failed) and failed.error.kind == "cancelled"


async def finished(here: Stage) -> None:
    """A call that is over."""
    await deploy(here.client, record("f", settings=AutoscalerSettings(max_containers=1)))
    function = await served(here.client)
    await spawn(here.client, "fc-1", function.id)
    container = await here.container(await here.started(function.id))
    assign, _ = await container.expect(m.Assign)
    await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=b"result")
    ((_, result),) = await outcomes(here.client, "fc-1")
    assert result == b"result"


def fail_to_read(here: Stage) -> None:
    """From now on as with a disk that fails."""
    assert isinstance(here.server._store, SqliteStore)
    here.server._store._reader.close()


async def test_who_asks_for_what_can_not_be_read_is_told(home: Path) -> None:
    async with stage(home=home) as here:
        await finished(here)
        peer, other = await here.neighbour(), await here.neighbour()
        fail_to_read(here)
        await peer.send(m.Collect("fc-1", 0, -1))
        assert "upswell.db can't be used" in await peer.dismissed()
        await other.send(m.DescribeServer(1))
        await other.expect(m.ServerDescribed)


async def test_who_still_collects_what_can_not_be_read_any_more_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(home=home) as here:
        await finished(here)
        monkeypatch.setattr(calls, "COLLECTED_BYTES", 0)  # so that it waits for the collector
        await here.client.send(m.Collect("fc-1", 0, -1), m.DescribeServer(1))
        await here.client.expect(m.ServerDescribed)
        monkeypatch.undo()
        fail_to_read(here)
        here.clock.advance(calls.LOOK_AGAIN_SECONDS)
        assert "upswell.db can't be used" in await here.client.dismissed()
