"""A server with a home is killed while its containers run: they go on, and the next server has their results."""

import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from upswell.wire import messages as m

from .kept import KeptServer

ROUNDS, INPUTS = 5, 30


@pytest.fixture(params=["local"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeptServer]:
    one = KeptServer(tmp_path, request.param)
    yield one
    await one.stop()


@pytest.mark.parametrize("server", ["local", "spawn", "ray"], indirect=True)
async def test_inputs_go_on(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "wait", most=3)
    await server.spawn(client, function, list(range(3)))
    begun = dict(await server.until_begun(3))
    client = await server.again()
    server.go(0)
    found = await server.outcomes(client, 1)
    assert found == {0: (0, begun[0])}
    server.kill()
    server.go(1, 2)
    client = await server.start()
    found = await server.outcomes(client, 3)
    assert found == {x: (x, process) for x, process in begun.items()}
    assert len(server.begun()) == 3, "none was run twice, or elsewhere"


@pytest.mark.parametrize("server", ["local", "ray"], indirect=True)
async def test_results_wait_for_the_next_server(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "wait", most=2)
    await server.spawn(client, function, list(range(20)))
    await server.until_begun(2)
    server.kill()
    server.go()
    client = await server.start()
    found = await server.outcomes(client, 20)
    assert {position: value for position, (value, _) in found.items()} == {x: x for x in range(20)}
    begun = [x for x, _ in server.begun()]
    assert sorted(begun) == list(range(20)), "each was run once"


@pytest.mark.parametrize("server", ["local", "ray"], indirect=True)
async def test_no_server_comes(server: KeptServer) -> None:
    server.rejoin_seconds = 0.5
    client = await server.start()
    function = await server.deploy(client, "wait", most=2)
    await server.spawn(client, function, [0, 1])
    first = dict(await server.until_begun(2))
    server.kill()
    await server.only_left()
    client = await server.start()
    await server.until_begun(4)
    server.go()
    found = await server.outcomes(client, 2)
    assert found == {x: (x, process) for x, process in server.begun()[2:]}
    assert not set(first.values()) & {process for _, process in found.values()}


@pytest.mark.parametrize("server", ["local", "ray"], indirect=True)
@pytest.mark.parametrize("when", ["before", "between", "after"])
async def test_a_container_dies_too(server: KeptServer, when: str) -> None:
    client = await server.start()
    function = await server.deploy(client, "wait", most=2)
    await server.spawn(client, function, [0, 1])
    begun = dict(await server.until_begun(2))
    if when == "before":
        os.kill(begun[0], signal.SIGKILL)
    server.kill()
    if when == "between":
        os.kill(begun[0], signal.SIGKILL)
    client = await server.start()
    if when == "after":
        os.kill(begun[0], signal.SIGKILL)
    again = (await server.until_begun(3))[2]
    assert again[0] == 0
    server.go()
    assert await server.outcomes(client, 2) == {0: (0, again[1]), 1: (1, begun[1])}
    assert len(server.begun()) == 3


async def test_a_zygote_and_the_server_die(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "wait", most=2)
    await server.spawn(client, function, [0, 1])
    begun = dict(await server.until_begun(2))
    zygote = psutil.Process(begun[0]).parent()
    root = zygote.parent() if zygote else None
    assert zygote is not None and root is not None
    zygote.kill()
    client = await server.again()
    await server.until_begun(4)
    root.kill()
    client = await server.again()
    begun = dict((await server.until_begun(6))[4:])
    server.go()
    assert await server.outcomes(client, 2) == {x: (x, process) for x, process in begun.items()}


async def test_asynchronous_inputs_go_on(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "wait_async", max_inputs=4, target_inputs=4)
    await server.spawn(client, function, list(range(6)))
    begun = await server.until_begun(4)
    client = await server.again()
    server.go()
    assert await server.outcomes(client, 6) == {x: (x, begun[0][1]) for x in range(6)}
    assert sorted(x for x, _ in server.begun()) == list(range(6))


async def test_batches_go_on(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "together", batch_size=3, batch_wait_ms=60_000)
    await server.spawn(client, function, [0, 1])
    await server.spawn(client, function, [2, 3, 4, 5], "fc-2")
    begun = await server.until_begun(3)
    client = await server.again()
    server.go()
    assert await server.outcomes(client, 2) == {0: (0, begun[0][1]), 1: (1, begun[0][1])}
    assert await server.outcomes(client, 4, "fc-2") == {x - 2: (x, begun[0][1]) for x in range(2, 6)}
    assert sorted(x for x, _ in server.begun()) == list(range(6))


async def test_large_results_are_handed_over(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "large")
    await server.spawn(client, function, list(range(3)))
    await server.until_begun(1)
    server.kill()
    server.go()
    client = await server.start()
    found = await server.outcomes(client, 3)
    assert [(len(found[x]), found[x][-1]) for x in range(3)] == [((1 << 20) + 1, x) for x in range(3)]
    assert [x for x, _ in server.begun()] == list(range(3))


async def test_a_second_server_leaves_the_first_alone(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "wait")
    await server.spawn(client, function, [0])
    ((_, process),) = await server.until_begun(1)
    before = set(server.processes())
    assert server.refused_second() != 0
    await server.only_left(before)
    server.go()
    assert await server.outcomes(client, 1) == {0: (0, process)}


async def test_an_orderly_stop_ends_containers(server: KeptServer) -> None:
    client = await server.start()
    function = await server.deploy(client, "wait")
    await server.spawn(client, function, [0])
    await server.until_begun(1)
    await server.stop()
    client = await server.start()
    server.go()
    found = await server.outcomes(client, 1)
    assert found == {0: (0, server.begun()[1][1])}


@pytest.mark.parametrize("server", ["local", "ray"], indirect=True)
async def test_whatever_is_killed(server: KeptServer, seed: int = 0) -> None:
    """By seed: the server, who forks containers, containers, several at once; all is told, and nothing left."""
    chance = random.Random(seed)
    client = await server.start()
    function = await server.deploy(client, "nap", most=3)
    for round in range(ROUNDS):
        call, before = f"fc-{round}", len(server.begun())
        await server.spawn(client, function, list(range(round * INPUTS, (round + 1) * INPUTS)), call)
        await server.until_begun(1 + chance.randrange(before + 20))  # of which there will be so many more at least
        victims = chance.sample(["server", "root", "zygote", "container", "container"], chance.randint(1, 3))
        for victim in victims:
            server.kill_one(victim, chance)
        client = await server.start_again_if_killed(client)
    for round in range(ROUNDS):
        found = await server.outcomes(client, INPUTS, f"fc-{round}")
        failed = {x: one.message for x, one in found.items() if isinstance(one, m.ErrorRecord)}
        assert all("container died" in reason for reason in failed.values()), failed
        assert {x: one for x, one in found.items() if x not in failed} == {
            x: round * INPUTS + x for x in range(INPUTS) if x not in failed
        }
