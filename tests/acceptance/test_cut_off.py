"""The network between a server and the nodes of its cluster breaks: for a moment nothing is lost, nor done twice."""

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pretended import make_certificate
from upswell.errors import ConnectionError
from upswell.server.tokens import TokenFile
from upswell.wire import messages as m
from upswell.wire.channel import dial

from .kept import KeptServer
from .processes import reserve_port
from .proxy import Proxy

HERE, AS_NODES_SEE_IT = "127.0.0.1", "127.0.0.2"
ROUNDS, INPUTS = 6, 300


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Scene:
    """A server to which leases and containers come by another address of this machine: two ways that can be cut."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        self._reserved = socket.socket()
        self.port = port = reserve_port(self._reserved)
        tls = ["--tls-cert", str(certificate / "certificate.pem"), "--tls-key", str(certificate / "key.pem")]
        options = ["--listen", f"{HERE}:{port}", "--ray-host", AS_NODES_SEE_IT, *tls]
        self.server = KeptServer(folder, "ray", options=options)
        self.ways = [Proxy((AS_NODES_SEE_IT, port), (HERE, port), lambda _: None)]

    async def start(self) -> "KeptServer":
        """Its client is `peer`."""
        self.peer = await self.server.start()
        port = json.loads((self.server.home / "leases.json").read_text())["port"]
        self.ways.append(Proxy((AS_NODES_SEE_IT, port), (HERE, port), lambda _: None))
        return self.server

    def cut(self) -> None:
        for way in self.ways:
            way.cut()

    async def close(self) -> None:
        await self.server.stop()
        self._reserved.close()
        for way in self.ways:
            way.__exit__()


@pytest.fixture
async def scene(tmp_path: Path, certificate: Path) -> AsyncIterator[Scene]:
    one = Scene(tmp_path, certificate)
    yield one
    await one.close()


async def test_containers_go_on(scene: Scene) -> None:
    server = await scene.start()
    function = await server.deploy(scene.peer, "wait", most=2)
    await server.spawn(scene.peer, function, [0, 1])
    begun = dict(await server.until_begun(2))
    scene.cut()
    server.go(0)
    assert await server.outcomes(scene.peer, 1) == {0: (0, begun[0])}
    for way in scene.ways:
        way.stop()
    scene.cut()
    server.go()
    for way in scene.ways:
        way.resume()
    assert await server.outcomes(scene.peer, 2) == {x: (x, process) for x, process in begun.items()}
    assert len(server.begun()) == 2, "none was run twice, or elsewhere"


async def test_under_load_nothing_is_done_twice(scene: Scene, seed: int = 1) -> None:
    chance, server = random.Random(seed), await scene.start()
    function = await server.deploy(scene.peer, "nap", most=3)
    await server.spawn(scene.peer, function, list(range(INPUTS)))
    for _ in range(ROUNDS):
        await server.until_begun(min(INPUTS, len(server.begun()) + chance.randint(1, INPUTS // ROUNDS)))
        chance.choice(scene.ways).cut()
    assert await server.outcomes(scene.peer, INPUTS) == {x: x for x in range(INPUTS)}
    assert sorted(x for x, _ in server.begun()) == list(range(INPUTS))


async def test_large_results_arrive_whole(scene: Scene) -> None:
    server = await scene.start()
    function = await server.deploy(scene.peer, "large", most=2)
    await server.spawn(scene.peer, function, list(range(6)))
    await server.until_begun(2)
    server.go()
    for count in (3, 4, 5, 6):
        scene.cut()
        await server.until_begun(count)
    scene.cut()
    found = await server.outcomes(scene.peer, 6)
    assert [(len(found[x]), found[x][-1]) for x in range(6)] == [((1 << 20) + 1, x) for x in range(6)]
    assert sorted(x for x, _ in server.begun()) == list(range(6))


async def test_the_server_dies_while_it_is_cut_off(scene: Scene) -> None:
    server = await scene.start()
    function = await server.deploy(scene.peer, "wait", most=2)
    await server.spawn(scene.peer, function, [0, 1, 2])
    begun = dict(await server.until_begun(2))
    for way in scene.ways:
        way.stop()
    scene.cut()
    server.kill()
    server.go(0)
    for way in scene.ways:
        way.resume()
    client = await server.start()
    server.go()
    found = await server.outcomes(client, 3)
    assert {x: found[x] for x in (0, 1)} == {x: (x, process) for x, process in begun.items()}
    assert sorted(x for x, _ in server.begun()) == [0, 1, 2]


async def test_who_comes_before_the_containers_do_finds_the_apps(scene: Scene, certificate: Path) -> None:
    scene.server.is_patient = False
    server = await scene.start()
    function = await server.deploy(scene.peer, "wait", most=1)
    await server.spawn(scene.peer, function, [0])
    await server.until_begun(1)
    _, token = TokenFile(server.home).create("client", time.time())
    for way in scene.ways:
        way.stop()
    scene.cut()
    server.kill()
    starting = asyncio.create_task(server.start())

    def resolve() -> m.Message:
        while True:
            try:
                channel = dial(f"tls://{HERE}:{scene.port}", ca=str(certificate / "certificate.pem"))
                break
            except ConnectionError:
                time.sleep(0.01)
        channel.send(m.Hello(m.PROTOCOL, "client", token, os.getpid()))
        ((welcome, _),) = channel.receive()
        assert isinstance(welcome, m.Welcome)
        channel.send(m.Resolve(1, "kept", "wait"))
        ((resolved, _),) = channel.receive()
        channel.close()
        return resolved

    resolved = await asyncio.to_thread(resolve)
    assert isinstance(resolved, m.Resolved) and resolved.error is None and resolved.app == "ap-1"
    for way in scene.ways:
        way.resume()
    client = await starting
    server.go()
    assert {*await server.outcomes(client, 1)} == {0}


async def test_a_container_dies_while_it_is_cut_off(scene: Scene) -> None:
    server = await scene.start()
    function = await server.deploy(scene.peer, "wait", most=2)
    await server.spawn(scene.peer, function, [0, 1])
    begun = dict(await server.until_begun(2))
    containers = {process.pid: process for process in server.processes()}
    scene.ways[0].stop()  # that of containers
    scene.ways[0].cut()
    containers[begun[0]].kill()
    containers[begun[0]].wait()
    scene.ways[0].resume()
    scene.ways[0].cut()
    again = (await server.until_begun(3))[2]
    server.go()
    assert again[0] == 0
    assert await server.outcomes(scene.peer, 2) == {0: (0, again[1]), 1: (1, begun[1])}
