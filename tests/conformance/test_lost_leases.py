"""What the engine on a cluster and its leases owe one another when they lose one another, or one of them for good.

The engine, the process that asks for leases, those that hold them, leases and containers are real; Ray is not.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.pretended import PretendedCluster, pretend
from upswell.engines.ray import engine as ray_engine
from upswell.engines.ray import messages as r
from upswell.engines.ray import ray_process, stock
from upswell.engines.ray.door import FILE, HELLO_SECONDS
from upswell.engines.ray.engine import Cluster, RayEngine
from upswell.engines.ray.lease import dial
from upswell.engines.ray.sizing import Shape
from upswell.engines.ray.stock import Lease

from .home import Home, ended, until_seen

CODE = """
    @app.function()
    def square(x):
        return x * x

    @app.function()
    def write(lines):
        for number in range(lines):
            print(number, flush=True)
        return "written"
"""
REJOIN_SECONDS = 20.0


class Scene:
    """A cluster, and engines of one home, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = PretendedCluster(folder / "cluster", 2, 2)
        self.homes: list[Home] = []

    def engine(self, rejoin_seconds: float = REJOIN_SECONDS, certificate: str = "", key: str = "") -> RayEngine:
        settings = Cluster(address=self.cluster.address, prefix="test-", certificate=certificate, key=key)
        return RayEngine(settings, None, self.folder, rejoin_seconds)

    async def open(self, engine: RayEngine | None = None) -> Home:
        home = Home(engine or self.engine(), self.folder)
        home.address = f"unix:@upswell-test-{self.folder.name}-{id(self)}"  # the same for all, as that of a server is
        self.homes.append(home)
        await home.open()
        return home


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)


@pytest.fixture
async def scene(pretended: None, tmp_path: Path) -> AsyncIterator[Scene]:
    one = Scene(tmp_path)
    yield one
    one.cluster.close()
    for home in one.homes:
        await home.close()
        names = [report.container for report in home.exits]
        assert len(names) == len(set(names)), "each exit is reported once"
    await until_seen(lambda: not one.cluster.holders())
    assert not one.cluster.processes(), "and nothing is left"


def lease_of(home: Home) -> Lease:
    """The only one there is."""
    assert isinstance(home.engine, RayEngine)
    (lease,) = [one for stock in home.engine._stocks.values() for one in stock.leases.values()]
    return lease


def process_of(scene: Scene) -> psutil.Process:
    """That of the only lease."""
    (holder,) = scene.cluster.holders()
    (lease,) = holder.children()
    return lease


async def test_what_is_said_arrives_once_whatever_breaks(scene: Scene) -> None:
    home = await scene.open()
    name, container = await home.started(home.function("write", CODE))
    session = lease_of(home).link
    assert session is not None
    lines = 20_000
    container.begin(lines)
    for done in range(1, 8):
        await home.until(lambda done=done: home.text(name, 1).count("\n") >= done * lines // 8)  # type: ignore[misc]
        session.lose()
        home.engine.prepare(home.function("square", CODE))  # said while nobody hears
        await until_seen(lambda: session.is_connected)
    await home.until(lambda: home.text(name, 1).count("\n") >= lines)
    assert home.text(name, 1) == "".join(f"{number}\n" for number in range(lines))
    home.engine.kill(name)
    assert (await home.exit_of(name)).status == -signal.SIGKILL


async def test_orders_wait_for_a_lease_that_is_away(scene: Scene) -> None:
    home = await scene.open()
    function = home.function("square", CODE)
    name, _ = await home.started(function)
    lease, process = lease_of(home), process_of(scene)
    process.suspend()
    assert lease.link is not None
    lease.link.lose()
    home.engine.kill(name)
    other = home.start(function)
    process.resume()
    assert (await home.exit_of(name)).status == -signal.SIGKILL
    assert await (await home.container(other)).run(3) == 9


async def test_a_silent_lease_comes_back_in_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "LOOK_SECONDS", 0.05)
    home = await scene.open()
    name, container = await home.started(home.function("square", CODE))
    lease, process = lease_of(home), process_of(scene)
    process.suspend()
    with monkeypatch.context() as now:
        now.setattr(stock, "SILENCE_SECONDS", 0.5)
        await until_seen(lambda: lease.lost_at is not None)
    process.resume()
    await until_seen(lambda: lease.lost_at is None)
    assert await container.run(4) == 16
    assert not home.exits
    home.engine.kill(name)
    await home.exit_of(name)


async def test_a_silent_lease_does_not_come_back_in_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "LOOK_SECONDS", 0.05)
    home = await scene.open(scene.engine(0.5))
    name, container = await home.started(home.function("square", CODE))
    process = process_of(scene)
    process.suspend()
    with monkeypatch.context() as now:
        now.setattr(stock, "SILENCE_SECONDS", 0.5)
        report = await home.exit_of(name)
    assert report.status == -signal.SIGKILL and "was lost" in report.reason
    process.resume()
    await ended(container.process)
    await ended(process.pid)
    _, container = await home.started(home.function("square", CODE))
    assert await container.run(5) == 25, "and another takes its place"


async def test_a_lease_that_ray_has_lost_is_not_waited_for(scene: Scene) -> None:
    home = await scene.open()
    name, _ = await home.started(home.function("square", CODE))
    scene.cluster.kill_node("node-1" if scene.cluster.holders("node-1") else "node-0")
    assert "lease" in (await home.exit_of(name)).reason


async def test_a_node_where_nobody_listens_is_gone(scene: Scene) -> None:
    """Ray takes its time to find that out; until it has, its actors there count as alive."""
    home = await scene.open()
    name, container = await home.started(home.function("square", CODE))
    process, session = process_of(scene), lease_of(home).link
    assert session is not None and session._link is not None
    process.suspend()
    scene.cluster.close()
    session._link.abort()
    assert "the node is gone" in (await home.exit_of(name)).reason
    process.resume()
    await ended(process.pid)
    await ended(container.process)


async def test_the_process_that_asks_is_stopped_and_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_process, "AGAIN_SECONDS", 0.1)
    home = await scene.open()
    assert isinstance(home.engine, RayEngine)
    name, container = await home.started(home.function("square", CODE))
    driver = psutil.Process(home.engine._ray._process.pid)
    driver.suspend()
    more = [home.start(home.function("square", CODE)) for _ in range(3)]
    assert await container.run(3) == 9, "what runs does not need it"
    driver.resume()
    for other in more:
        assert await (await home.container(other)).run(4) == 16
    driver.kill()
    await until_seen(lambda: home.engine._ray._process.pid != driver.pid)  # type: ignore[attr-defined]
    assert await container.run(5) == 25
    for other in [name, *more]:
        home.engine.kill(other)
        await home.exit_of(other)


async def test_an_engine_after_another_leaves_out_who_does_not_call(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "RETURN_SECONDS", 0.2)
    first = await scene.open()
    _, container = await first.started(first.function("square", CODE))
    process = process_of(scene)
    process.suspend()
    first._server.close()  # so that the next can have its address
    second = await scene.open()
    assert second.found == []
    process.resume()
    await ended(process.pid)
    await ended(container.process)


async def test_who_is_not_known_is_told_to_end_or_nothing(scene: Scene) -> None:
    home = await scene.open()
    assert isinstance(home.engine, RayEngine)
    door = home.engine._door
    for token, answer in ((door.token("9-gone"), r.End()), (door.token("9-other"), None), ("é", None)):
        parcel = r.Parcel("9-gone", token, door.address, home.address, 1.0, Shape(0.0, 0), 1)
        link = await dial(parcel)
        link.send(r.Opened(r.LINK, "9-gone", token, "node", home.address, Shape(0.0, 0), 1))
        assert [message async for message, _ in link.frames()] == ([answer] if answer else [])
        link.abort()


async def test_who_dials_as_the_door_closes_is_sent_away(scene: Scene) -> None:
    home = await scene.open()
    assert isinstance(home.engine, RayEngine)
    door, loop = home.engine._door, asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.setblocking(False)
        await loop.sock_connect(stranger, door.address.removeprefix("unix:"))
        await until_seen(lambda: door._inside)
        await door.close()
        async with asyncio.timeout(HELLO_SECONDS / 2):
            assert await loop.sock_recv(stranger, 1) == b""


async def test_the_port_and_the_secret_are_kept(scene: Scene, certificate: Path) -> None:
    """With TLS, and after an orderly end, which leaves no lease."""
    files = str(certificate / "certificate.pem"), str(certificate / "key.pem")
    found = []
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(2):
            engine = scene.engine(REJOIN_SECONDS, *files)
            home = await scene.open(engine)
            name, container = await home.started(home.function("square", CODE))
            assert await container.run(6) == 36
            lease = lease_of(home)
            assert lease.link is not None
            lease.link.lose()
            await until_seen(lambda lease=lease: lease.lost_at is None and lease.link.is_connected)  # type: ignore[misc]
            home.engine.kill(name)
            await home.exit_of(name)
            found.append((engine._door.address, engine._door.token("1-a")))
            await home.engine.close()
            scene.homes.remove(home)
            home.engine.close = _nothing  # type: ignore[method-assign]
            await home.close()
            if len(found) == 1:  # as long as nobody listens, so that the port is not given to anybody meanwhile
                other.bind(("127.0.0.1", int(found[0][0].rpartition(":")[2])))
        assert found[0] == found[1]
        assert found[0][0].startswith("tls://127.0.0.1:")
        assert (scene.folder / FILE).stat().st_mode & 0o777 == 0o600
        other.listen()
        engine = scene.engine(REJOIN_SECONDS, *files)
        await scene.open(engine)
        assert engine._door.address != found[0][0], "somebody else has it now"


async def _nothing() -> None:
    """It is closed already."""
