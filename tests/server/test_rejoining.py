"""Containers that an earlier server has left, over the wire: the test is the containers, and both servers' client."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from upswell.engine import ContainerFound, ContainerOutput
from upswell.server.receipts import SAY_SECONDS
from upswell.server.rejoining import CALLERS_SECONDS, LOOK_SECONDS, LOST_SECONDS, RETURN_SECONDS
from upswell.spec import AutoscalerSettings, Retries
from upswell.wire import messages as m

from .stage import Peer, Stage, record, stage


async def first_life(home: Path, inputs: int = 3) -> tuple[ContainerFound, m.Assign]:
    """A server with a container that has been granted a range of a spawned call; then it is gone."""
    async with stage(home=home) as here:
        await here.client.send(
            m.Deploy(1, "ap-new", "census", (record("f", settings=AutoscalerSettings(max_containers=1)),), ())
        )
        deployed, _ = await here.client.expect(m.Deployed)
        function = f"{deployed.app}/f"
        await here.client.send(m.Submit("fc-1", function, "spawn", 0, inputs, True), payload=b"in")
        await here.client.expect(m.Accepted)
        name = await here.started(function)
        container = await here.container(name)
        assign, _ = await container.expect(m.Assign)
        return ContainerFound(name, here.engine.tokens[name], function, deployed.version), assign


async def call(here: Stage, found: ContainerFound) -> Peer:
    """The container calls."""
    peer = await here.stranger()
    await peer.send(m.Hello(m.PROTOCOL, "container", found.token, os.getpid()))
    return peer


def returning(found: ContainerFound, *said: m.Message) -> tuple[Callable[[Stage], Awaitable[None]], list[Peer]]:
    """What a container does while a server begins, and its connection then."""
    peers: list[Peer] = []

    async def arrive(here: Stage) -> None:
        peers.append(await call(here, found))
        await peers[0].send(*said, payload=b"out")

    return arrive, peers


def holding(assign: m.Assign) -> m.Holding:
    return m.Holding(assign.range, assign.call, assign.first, assign.start, assign.stop)


async def patience(here: Stage) -> None:
    """Nobody calls."""
    await here.until(lambda: here.clock._alarms)
    here.clock.advance(RETURN_SECONDS)


async def test_a_range_goes_on(home: Path) -> None:
    found, assign = await first_life(home)
    arrive, peers = returning(found, m.Rejoin([holding(assign)]))
    async with stage(home=home, found=[found], arrive=arrive) as here:
        assert list(here.engine.tokens) == [found.container], "no other was started"
        await here.client.send(m.Collect("fc-1", 0, -1))
        count = assign.stop - assign.start
        await peers[0].send(m.Results(assign.range, assign.start, count, 0.1, 0.1), payload=b"out")
        assert await here.client.expect(m.Outputs) == (m.Outputs("fc-1", 0, count), b"out")
        further, payload = await peers[0].expect(m.Assign)
        assert (further.start, payload) == (assign.stop, b"in"), "it is sent what it had: it has forgotten it"
        inside = await here.client_inside(found.container)
        assert not inside.closed


async def test_what_it_says_at_once_is_handled(home: Path) -> None:
    found, assign = await first_life(home, 1)
    arrive, _ = returning(found, m.Rejoin([holding(assign)]), m.Results(assign.range, 0, 1, 0.1, 0.1))
    async with stage(home=home, found=[found], arrive=arrive) as here:
        await here.client.send(m.Collect("fc-1", 0, -1))
        assert await here.client.expect(m.Outputs) == (m.Outputs("fc-1", 0, 1), b"out")


async def test_what_is_settled_already_is_not_settled_again(home: Path) -> None:
    found, assign = await first_life(home, 1)
    results = m.Results(assign.range, 0, 1, 0.1, 0.1)
    arrive, _ = returning(found, m.Rejoin([holding(assign)]), results)
    async with stage(home=home, found=[found], arrive=arrive) as here:
        await here.client.send(m.Collect("fc-1", 0, -1))
        await here.client.expect(m.Outputs)
    arrive, peers = returning(found, m.Rejoin([holding(assign)]), results)
    async with stage(home=home, found=[found], arrive=arrive) as here:
        await here.client.send(m.Collect("fc-1", 0, -1))
        assert await here.client.expect(m.Outputs) == (m.Outputs("fc-1", 0, 1), b"out")
        assert await here.client.expect(m.CallDescribed) == (m.CallDescribed("fc-1", 1), b"")
        here.clock.advance(SAY_SECONDS)
        assert await peers[0].expect(m.Processed) == (m.Processed(1), b"")


async def test_it_comes_late(home: Path) -> None:
    found, assign = await first_life(home, 1)
    async with stage(home=home, found=[found], arrive=patience) as here:
        other = await here.container(await here.started(found.function))
        granted, _ = await other.expect(m.Assign)
        late = await call(here, found)
        await late.send(m.Rejoin([holding(assign)]))
        assert await late.expect(m.CancelRange) == (m.CancelRange(assign.range), b"")
        await other.send(m.Results(granted.range, 0, 1, 0.1, 0.1), payload=b"of the other")
        await here.client.send(m.Collect("fc-1", 0, -1))
        assert (await here.client.expect(m.Outputs))[1] == b"of the other"


async def test_one_that_had_just_been_started(home: Path) -> None:
    found, _ = await first_life(home, 1)
    arrive, peers = returning(found, m.Ready())
    async with stage(home=home, found=[found], arrive=arrive) as here:
        assert (await peers[0].expect(m.Assign))[0].call == "fc-1"
        assert list(here.engine.tokens) == [found.container]


async def test_one_that_was_not_told_yet_what_it_is(home: Path) -> None:
    found, _ = await first_life(home, 1)
    peers: list[Peer] = []

    async def arrive(here: Stage) -> None:
        peers.append(await call(here, found))
        assert (await peers[0].expect(m.Load))[0].function.id == found.function
        await peers[0].send(m.Ready())

    async with stage(home=home, found=[found], arrive=arrive) as here:
        assert (await peers[0].expect(m.Assign))[0].call == "fc-1"
        assert list(here.engine.tokens) == [found.container], "no other was started"


async def test_one_that_was_not_told_yet_what_it_is_and_whose_app_comes_later(home: Path) -> None:
    found, _ = await first_life(home, 1)
    of_client = replace_function(found, "ap-2/f")
    peers: list[Peer] = []

    async def arrive(here: Stage) -> None:
        peers.append(await call(here, of_client))
        await patience(here)

    async with stage(home=home, found=[of_client], arrive=arrive) as here:
        await here.client.send(m.OpenApp("ap-2", "app", [record("f", "ap-2")]))
        await here.has_taken_all()
        here.clock.advance(LOOK_SECONDS)
        assert (await peers[0].expect(m.Load))[0].function.id == of_client.function
        await peers[0].send(m.Ready())
        await here.client.send(m.Submit("fc-2", "ap-2/f", "map", 0, 1, True), payload=b"in")
        assert (await peers[0].expect(m.Assign))[0].call == "fc-2"


async def test_a_call_that_is_not_kept_is_waited_for(home: Path) -> None:
    found, assign = await first_life(home, 1)
    attached = m.Holding(assign.range + 1, "fc-attached", 0, 0, 1)
    arrive, peers = returning(found, m.Rejoin([holding(assign), attached]))
    async with stage(home=home, found=[found], arrive=arrive) as here:
        here.clock.advance(CALLERS_SECONDS - 0.5)
        assert not peers[0].is_dismissed()
        here.clock.advance(1.0)
        # Another container may have the kept range by then; nobody comes for the other.
        cancelled = {(await peers[0].expect(m.CancelRange))[0].range}
        assert attached.range in cancelled or attached.range == (await peers[0].expect(m.CancelRange))[0].range


async def test_one_of_a_version_that_had_the_same_containers_goes_on(home: Path) -> None:
    found, assign = await first_life(home)
    again = record("f", settings=AutoscalerSettings(max_containers=1), retries=Retries(max_retries=2))
    async with stage(home=home) as here:
        await here.client.send(m.Deploy(1, "ap-new", "census", (again,), ()))
        assert (await here.client.expect(m.Deployed))[0].version == 2
    arrive, _ = returning(found, m.Rejoin([holding(assign)]))
    async with stage(home=home, found=[found], arrive=arrive) as here:
        await here.client.send(m.List(1, m.ListContainers()))
        (row,) = (await here.client.expect(m.Listed))[0].rows
        assert isinstance(row, m.ContainerInfo)
        assert (row.id, row.state, row.version) == (found.container, "ready", 1)


async def test_one_without_a_function_is_killed(home: Path) -> None:
    found, _ = await first_life(home, 1)
    stranger = replace_function(found, "ap-gone/f")
    arrive, _ = returning(stranger, m.Rejoin([]))
    async with stage(home=home, found=[stranger], arrive=arrive) as here:
        here.clock.advance(CALLERS_SECONDS + 0.5)
        assert here.engine.killed == [stranger.container]


async def test_one_that_never_calls_is_killed(home: Path) -> None:
    found, _ = await first_life(home, 1)
    async with stage(home=home, found=[found], arrive=patience) as here:
        here.clock.advance(LOST_SECONDS)
        assert found.container in here.engine.killed


async def test_it_dies_before_it_calls(home: Path) -> None:
    found, _ = await first_life(home, 1)

    async def arrive(here: Stage) -> None:
        here.engine.end(found.container, -9)

    async with stage(home=home, found=[found], arrive=arrive) as here:
        other = await here.container(await here.started(found.function))
        await other.expect(m.Assign)


async def test_what_it_writes_meanwhile_is_kept(home: Path) -> None:
    found, assign = await first_life(home, 1)

    async def arrive(here: Stage) -> None:
        here.engine._report(ContainerOutput(found.container, 1, "while nobody looked\n"))
        await (await call(here, found)).send(m.Rejoin([holding(assign)]))

    async with stage(home=home, found=[found], arrive=arrive):
        pass
    assert any("while nobody looked" in path.read_text("utf-8", "replace") for path in (home / "logs").rglob("*.*"))


@pytest.mark.parametrize(
    "said",
    [
        m.Results(1, 0, 1, 0.1, 0.1),
        m.Rejoin([m.Holding(1, "fc-1", 3, 2, 5)]),
        m.Rejoin([m.Holding(1, "fc-1", 0, 2, 2)]),
        m.Rejoin([m.Holding(1, "", 0, 0, 1)]),
    ],
)
async def test_what_it_may_not_say(home: Path, said: m.Message) -> None:
    found, _ = await first_life(home, 1)
    async with stage(home=home, found=[found], arrive=patience) as here:
        peer = await call(here, found)
        await peer.send(said)
        assert await peer.dismissed()


async def test_a_stranger_with_its_name(home: Path) -> None:
    found, _ = await first_life(home, 1)
    async with stage(home=home, found=[found], arrive=patience) as here:
        peer = await call(here, replace_token(found, f"{found.container}.0123"))
        assert "token" in await peer.dismissed()


def replace_function(found: ContainerFound, function: str) -> ContainerFound:
    return ContainerFound(found.container, found.token, function, found.version)


def replace_token(found: ContainerFound, token: str) -> ContainerFound:
    return ContainerFound(found.container, token, found.function, found.version)
