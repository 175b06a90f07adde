"""Spawns that come by a spool: the server takes them as calls that it has accepted, before whatever else is said."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from upswell import store as s
from upswell.errors import StoreError
from upswell.home import DATABASE, SPOOLS
from upswell.server.spools import LOOK_AGAIN_SECONDS, MAX_SPOOLS
from upswell.spec import Limits
from upswell.stores import file
from upswell.stores.file import back_up
from upswell.stores.reading import Reader
from upswell.stores.spools import absorb
from upswell.wire import messages as m
from upswell.wire import spool as spools
from upswell.wire.spool import MOST_RECORDS, SpoolReader, SpoolWriter, monotonic_now

from .stage import Peer, Stage, record, stage
from .test_kept_apps import deploy, killed, outcomes, served, spawn, statistics


@pytest.fixture
def spool(home: Path) -> Iterator[SpoolWriter]:
    """That of a program."""
    (home / SPOOLS).mkdir(exist_ok=True)
    writer = SpoolWriter(str(home / SPOOLS / "sp-1"))
    yield writer
    writer.close()


def write(spool: SpoolWriter, function: str, *calls: str) -> None:
    for call in calls:
        spool.write(m.Spawned(call, function, "", 1000.0), call.encode())


async def permit(peer: Peer, function: str, call: str) -> int:
    """What the server permits as it takes a spawn."""
    await spawn(peer, call, function)
    return (await peer.expect(m.Accepted))[0].permit


async def function_of(here: Stage) -> str:
    await deploy(here.client, record("f"))
    return (await served(here.client)).id


async def backlog(peer: Peer, function: str) -> int:
    return (await statistics(peer, function)).backlog


async def listed(peer: Peer) -> set[str]:
    """The ids of all calls."""
    await peer.send(m.List(7, m.ListCalls(), 100))
    return {row.id for row in (await peer.expect(m.Listed))[0].rows if isinstance(row, m.CallInfo)}


async def run_all(here: Stage, function: str, count: int) -> list[bytes]:
    """A container runs so many inputs, one by one; returns what they were."""
    container = await here.container(await here.started(function))
    given = []
    for _ in range(count):
        assign, payload = await container.expect(m.Assign)
        given.append(payload)
        await container.send(m.Results(assign.range, assign.start, 1, 0.001, 0.001), payload=payload + b" and out")
    return given


async def test_only_a_neighbour_is_told_of_a_place(home: Path) -> None:
    async with stage(home=home) as here:
        assert (await here.neighbour()).spools == str(home / SPOOLS)
        function = await function_of(here)
        await spawn(here.client, "fc-1", function)
        assert (await here.client_inside(await here.started(function))).spools == ""
        inside = await here.client_inside(await here.started(function))
        await inside.send(m.LookAt("sp-1"))
        assert "may not do what is for the own user" in (await inside.expect(m.Denied))[0].reason


async def test_there_is_a_limit_to_spools(home: Path) -> None:
    async with stage(home=home) as here:
        neighbour = await here.neighbour()
        writers = [SpoolWriter(str(home / SPOOLS / f"sp-{number}")) for number in range(MAX_SPOOLS)]
        await neighbour.send(*[m.LookAt(writer.name) for writer in writers])
        await listed(neighbour)
        assert (await here.neighbour()).spools == ""
        for writer in writers:
            writer.close()
        (await here.neighbour()).close()  # after a client has left it is seen who else has
        await here.until(lambda: not list((home / SPOOLS).iterdir()))
        assert (await here.neighbour()).spools == str(home / SPOOLS)


async def test_what_is_written_runs_in_order_and_can_be_collected(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        function = await function_of(here)
        write(spool, function, "fc-1", "fc-2", "fc-3")
        await here.client.send(m.LookAt(spool.name))
        assert await run_all(here, function, 3) == [b"fc-1", b"fc-2", b"fc-3"]
        for call in ("fc-1", "fc-2", "fc-3"):
            [(message, payload)] = await outcomes(here.client, call)
            assert (type(message), payload) == (m.Outputs, call.encode() + b" and out")
        assert await listed(here.client) == {"fc-1", "fc-2", "fc-3"}


async def test_it_is_known_to_whoever_asks_afterwards_though_nobody_has_rung(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        function, other = await function_of(here), await here.neighbour()
        await here.client.send(m.LookAt(spool.name))
        assert await listed(other) == set()
        write(spool, function, "fc-1")
        assert await listed(other) == {"fc-1"}
        write(spool, function, "fc-2")
        await other.send(m.Cancel("fc-2", request=5))
        assert (await other.expect(m.Done))[0].error is None
        [(failed, _)] = await outcomes(other, "fc-2")
        assert isinstance(failed, m.Failed)
        assert failed.error.kind == "cancelled"
        write(spool, function, "fc-3")
        await other.send(m.Collect("fc-3", 0, -1))
        await other.expect(m.CallDescribed)
        write(spool, function, "fc-4")
        assert await backlog(other, function) == 3


async def test_what_has_come_is_looked_for_again_until_nothing_comes(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        function = await function_of(here)
        write(spool, function, "fc-1")
        await here.client.send(m.LookAt(spool.name))
        await here.until(lambda: spool._head()[2])
        write(spool, function, "fc-2")
        until = spool._head()[2]
        assert here.server._spools is not None
        looks = here.server._spools._looks

        def at_rest() -> bool:
            here.clock.advance(LOOK_AGAIN_SECONDS)
            return not looks

        await here.until(at_rest)
        assert monotonic_now() >= until
        assert here.server._runtime.plane.room_for_spawned(function) == 1_000_000 - 2


async def test_what_was_written_while_a_look_was_promised_is_found(
    home: Path, spool: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upswell.server.spools.PROMISED_SECONDS", 3600.0)
    async with stage(home=home) as here:
        function = await function_of(here)
        write(spool, function, "fc-0")
        await here.client.send(m.LookAt(spool.name))
        await here.until(lambda: spool._head()[2])
        for number in range(1, 5):
            here.clock.advance(LOOK_AGAIN_SECONDS)  # nothing is there
            write(spool, function, f"fc-{number}")
            assert spool.is_watched
            here.clock.advance(LOOK_AGAIN_SECONDS)
            assert here.server._runtime.plane.room_for_spawned(function) == 1_000_000 - number - 1


async def test_it_outlives_the_server_kept_by_it_or_not(home: Path, spool: SpoolWriter) -> None:
    async with killed(home) as here:
        function = await function_of(here)
        write(spool, function, "fc-1")
        await here.client.send(m.LookAt(spool.name))
        assert await listed(here.client) == {"fc-1"}
        write(spool, function, "fc-2")
        await statistics(here.client, function)  # so that it was taken, and is not kept yet
        write(spool, function, "fc-3")
    write(spool, function, "fc-4")
    async with stage(home=home) as here:
        assert await listed(here.client) == {"fc-1", "fc-2", "fc-3", "fc-4"}
        write(spool, function, "fc-5")
        assert await backlog(here.client, function) == 5
        assert await run_all(here, function, 5) == [b"fc-1", b"fc-2", b"fc-3", b"fc-4", b"fc-5"]
        assert len(await listed(here.client)) == 5


async def test_what_the_store_has_and_the_head_does_not_say_comes_once(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        function = await function_of(here)
        write(spool, function, "fc-1", "fc-2")
        await here.client.send(m.LookAt(spool.name))
        assert await listed(here.client) == {"fc-1", "fc-2"}
    with open(spool.path, "r+b") as file:
        file.write(bytes(8))
    write(spool, function, "fc-3")
    async with stage(home=home) as here:
        assert await backlog(here.client, function) == 3


async def test_a_call_that_comes_by_the_connection_too_is_one(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        function = await function_of(here)
        write(spool, function, "fc-1")
        await here.client.send(m.LookAt(spool.name))
        assert await permit(here.client, function, "fc-1") == 0
        assert await permit(here.client, function, "fc-2")
        write(spool, function, "fc-2", "fc-3")
        assert await backlog(here.client, function) == 3
        assert await listed(here.client) == {"fc-1", "fc-2", "fc-3"}
        assert spool._head()[0] == 3


async def test_a_spawn_is_permitted_while_the_function_has_room_for_all_that_may_come(
    home: Path, spool: SpoolWriter
) -> None:
    async with stage(Limits(spawned_pending=2 * MOST_RECORDS + 2), home=home) as here:
        function = await function_of(here)
        await here.client.send(m.LookAt(spool.name))
        given = await permit(here.client, function, "fc-1")
        assert given == spool.permit > 0
        assert await permit(here.client, function, "fc-2") == given
        write(spool, function, "fc-3")
        assert await backlog(here.client, function) == 3
        assert spool.permit not in (given, 0)
        assert await permit(here.client, function, "fc-4") == 0
    async with stage(Limits(spawned_pending=4), home=home) as here:
        await spawn(here.client, "fc-5", function)
        assert "its limit is 4" in (await here.client.expect(m.Refused))[0].error.message
        write(spool, function, "fc-6")  # by somebody who had not looked
        assert await backlog(here.client, function) == 5


async def test_a_permit_ends_with_the_server_and_before_a_function_does(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f"), record("g"))
        function = (await served(here.client)).id
        await here.client.send(m.LookAt(spool.name))
        given = await permit(here.client, function, "fc-1")
        await deploy(here.client, record("f"))
        assert spool.permit not in (given, 0)
        later = await permit(here.client, function, "fc-2")
        assert later == spool.permit
    assert spool.permit == 0
    async with stage(home=home) as here:
        await here.until(lambda: spool.permit)
        assert spool.permit not in (given, later)


async def test_a_spawn_of_a_function_that_is_gone_fails_and_says_so(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        await deploy(here.client, record("f"), record("g"))
        function = (await served(here.client, "g")).id
        write(spool, function, "fc-1")
        await here.client.send(m.LookAt(spool.name))
        assert await backlog(here.client, function) == 1
        write(spool, function, "fc-2")
        await deploy(here.client, record("f"))
        write(spool, function, "fc-3")
        for call, words in (
            ("fc-1", "no part of version 2"),
            ("fc-2", "no part of"),
            ("fc-3", "no function g any more"),
        ):
            [(failed, _)] = await outcomes(here.client, call)
            assert isinstance(failed, m.Failed)
            assert words in failed.error.message
        assert await listed(here.client) == {"fc-1", "fc-2", "fc-3"}


async def test_what_is_no_spawn_is_said_in_the_log_and_left_out(
    home: Path, spool: SpoolWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "upswell")
    with monkeypatch.context() as patch:
        patch.setattr(spools, "encode", lambda message, payload: b"rubbish")
        write(spool, "ap-1/f", "fc-1")
    async with stage(home=home) as here:
        function = await function_of(here)
        with monkeypatch.context() as patch:
            patch.setattr(spools, "encode", lambda message, payload: b"rubbish")
            write(spool, function, "fc-2")
        write(spool, function, "fc-3")
        await here.client.send(m.LookAt(spool.name))
        assert await listed(here.client) == {"fc-3"}
        assert "record 2 of the spool sp-1 is no spawn" in caplog.text
        assert spool._head()[0] == 3


async def test_a_name_that_is_no_spool_s(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with stage(home=home) as here:
        await here.client.send(m.LookAt("sp-nowhere"))
        assert await listed(here.client) == set()
        assert "the spool sp-nowhere can't be read: No such file" in caplog.text
        for name in ("../upswell.db", "sp-../x", "", "sp-", "sp-" + 400 * "x"):
            other = await here.neighbour()
            await other.send(m.LookAt(name))
            assert "no spool" in await other.dismissed()


async def test_an_abandoned_spool_is_emptied_and_removed(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        function, client = await function_of(here), await here.neighbour()
        await client.send(m.LookAt(spool.name))
        assert await listed(client) == set()
        write(spool, function, "fc-1")
        (await here.neighbour()).close()
        assert await listed(client) == {"fc-1"}
        write(spool, function, "fc-2")
        spool.close()
        client.close()
        await here.until(lambda: not Path(spool.path).exists())
        assert await listed(here.client) == {"fc-1", "fc-2"}
        assert here.server._spools is not None
        assert not here.server._spools._looks


async def test_one_that_is_abandoned_as_the_server_ends(home: Path, spool: SpoolWriter) -> None:
    wrong: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with stage(home=home) as here:
        await deploy(here.client, record("f"))
        await here.client.send(m.LookAt(spool.name))
        await here.has_taken_all()
        spool.close()
        assert here.server._spools is not None
        here.server._spools.sweep()  # it is done away with once that is kept
        here.server.ended.set()
    await asyncio.sleep(0)  # what is kept as the store is closed is heard of afterwards
    assert not wrong


async def test_one_that_was_abandoned_while_no_server_ran(home: Path, spool: SpoolWriter) -> None:
    async with stage(home=home) as here:
        function = await function_of(here)
    write(spool, function, "fc-1")
    spool.close()
    async with stage(home=home) as here:
        await here.until(lambda: not Path(spool.path).exists())
        assert await listed(here.client) == {"fc-1"}


async def test_a_backup_has_it_with_a_server_and_without(home: Path, spool: SpoolWriter, tmp_path: Path) -> None:
    async with stage(home=home) as here:
        function = await function_of(here)
        await here.client.send(m.LookAt(spool.name))
        write(spool, function, "fc-1")
        await here.client.send(m.BackUp(4, str(tmp_path / "copy.db")))
        assert (await here.client.expect(m.Done))[0].error is None
    assert [call.id for call in calls_in(tmp_path / "copy.db")] == ["fc-1"]
    write(spool, function, "fc-2")
    back_up(home, str(tmp_path / "later.db"))
    assert [call.id for call in calls_in(tmp_path / "later.db")] == ["fc-2", "fc-1"]
    assert SpoolReader(spool.path).is_all_kept()


async def test_no_copy_goes_without_what_there_is_no_room_for(
    home: Path, spool: SpoolWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absorb_without_room(connection: apsw.Connection, folder: Path) -> None:
        connection.pragma("max_page_count", 1)  # that is, as many as there are
        absorb(connection, folder)

    async with stage(home=home) as here:
        function = await function_of(here)
    for number in range(9):
        spool.write(m.Spawned(f"fc-{number}", function, "", 1000.0), bytes(8000))
    with monkeypatch.context() as patched:
        patched.setattr(file, "absorb", absorb_without_room)
        with pytest.raises(StoreError, match="full"):
            back_up(home, str(tmp_path / "copy.db"))
        assert not (tmp_path / "copy.db").exists()
        file.open_for_writing(str(home / DATABASE)).close()  # and a server begins all the same
    back_up(home, str(tmp_path / "copy.db"))
    assert len(calls_in(tmp_path / "copy.db")) == 9


def calls_in(path: Path) -> list[s.CallRecord]:
    reader = Reader(str(path))
    try:
        return reader.calls(10, 0)
    finally:
        reader.close()
