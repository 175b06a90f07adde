"""Clients with a session, which may lose their connection: over the wire, with containers that the test plays."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from pickle import PickleBuffer

import pytest

from upswell.server import connections, runtime
from upswell.server.connections import FRAME_SECONDS, GRACE_SECONDS
from upswell.spec import AutoscalerSettings
from upswell.wire import messages as m
from upswell.wire.buffers import Block
from upswell.wire.codec import encode
from upswell.wire.delivery import UNCOUNTED

from .stage import PATIENCE_SECONDS, Peer, Stage, record, stage


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    def fail() -> None:
        raise

    monkeypatch.setattr(runtime, "give_up", fail)
    async with stage(home=tmp_path) as on_stage:
        yield on_stage


class Client:
    """A client as the SDK has one, which counts the frames of its session."""

    def __init__(self, here: Stage, home: Path, session: str = "s" * 32) -> None:
        self.session = session
        self.received = 0
        self._here = here
        self._path = home / "server.sock"
        self.peer: Peer

    async def come(self, token: str = "") -> m.Welcome:
        """Connect, for the first time or again."""
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.setblocking(False)
        await asyncio.get_running_loop().sock_connect(stream, str(self._path))
        self.peer = Peer(stream)
        self._here.peers.append(self.peer)
        await self.peer.send(m.Hello(m.PROTOCOL, "client", token, os.getpid(), self.session, self.received))
        return (await self.peer.expect(m.Welcome))[0]

    async def expect(self, kind: type[m.Message]) -> tuple[m.Message, bytes]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while frame := await self.peer.receive():
                self.received += not isinstance(frame[0], UNCOUNTED)
                if isinstance(frame[0], kind):
                    return frame
        raise AssertionError(f"no {kind.__name__} came")

    def leave(self) -> None:
        self.peer.close()


async def mapped(here: Stage, home: Path, inputs: int = 1) -> tuple[Client, Peer, m.Assign]:
    """A client with an app and a map that a container has begun."""
    client = Client(here, home)
    await client.come()
    settings = AutoscalerSettings(max_containers=1)
    await client.peer.send(m.OpenApp("ap-1", "app", [record("f", settings=settings)]))
    await client.peer.send(m.Submit("fc-1", "ap-1/f", "map", 0, inputs, True), payload=b"in")
    container = await here.container(await here.started("ap-1/f"))
    assign, _ = await container.expect(m.Assign)
    return client, container, assign


async def test_who_comes_back_gets_what_came_meanwhile(here: Stage, tmp_path: Path) -> None:
    client, container, assign = await mapped(here, tmp_path)
    client.leave()
    await container.send(m.Results(assign.range, 0, 1, 0.1, 0.1), payload=b"out")
    welcome = await client.come()
    assert (welcome.keeps_session, welcome.resumed, welcome.received) == (True, True, 2)
    outputs, payload = await client.expect(m.Outputs)
    assert isinstance(outputs, m.Outputs)
    assert (outputs.call, outputs.first, outputs.count, payload) == ("fc-1", 0, 1, b"out")


async def test_what_was_sent_and_did_not_arrive_comes_again(here: Stage, tmp_path: Path) -> None:
    client, container, assign = await mapped(here, tmp_path)
    block = Block.write([PickleBuffer(bytearray(1 << 20))])
    buffers = block.buffers
    await container.send(m.Results(assign.range, 0, 1, 0.1, 0.1, buffers), payload=b"out")
    outputs, _ = await client.peer.expect(m.Outputs)  # it came, and the client died of something before it counted it
    client.leave()
    block.close()
    await client.come()
    again, _ = await client.expect(m.Outputs)
    assert again == outputs
    assert isinstance(again, m.Outputs)
    assert again.buffers is not None
    Block.adopt(again.buffers).close()


def pidfds() -> int:
    """How many descriptors this process has that tell of another one's end."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found += os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[pidfd]"
    return found


async def test_a_server_that_ends_watches_nobody(tmp_path: Path) -> None:
    before = pidfds()
    async with stage(home=tmp_path) as here:
        client, _container, _assign = await mapped(here, tmp_path)
        client.leave()
        await here.until(lambda: pidfds() > before)
    assert pidfds() == before


async def test_who_comes_back_while_the_old_stream_seems_open(here: Stage, tmp_path: Path) -> None:
    client, container, assign = await mapped(here, tmp_path)
    old = client.peer
    assert (await client.come()).resumed
    await container.send(m.Results(assign.range, 0, 1, 0.1, 0.1), payload=b"out")
    await client.expect(m.Outputs)
    assert await old.dismissed() == ""


async def test_who_does_not_come_back_is_waited_for(here: Stage, tmp_path: Path) -> None:
    client, container, _assign = await mapped(here, tmp_path)
    client.leave()
    await here.until(lambda: here.server._sessions["s" * 32]._transport is None)  # type: ignore[index]
    here.clock.advance(GRACE_SECONDS - 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await container.expect(m.CancelRange)
    here.clock.advance(2)
    await container.expect(m.CancelRange)
    assert not (await client.come()).resumed


async def test_who_has_ended_is_not_waited_for(here: Stage, tmp_path: Path) -> None:
    client, container, _assign = await mapped(here, tmp_path)
    await client.peer.send(m.Bye("done"))
    client.leave()
    await container.expect(m.CancelRange)


async def test_a_process_that_has_died_is_not_waited_for(here: Stage, tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from upswell.wire.channel import dial; from upswell.wire import messages as m;"
        f"channel = dial('unix:{tmp_path / 'server.sock'}');"
        "channel.send(m.Hello(m.PROTOCOL, 'client', '', os.getpid(), 'session'));"
        "channel.send(m.OpenApp('ap-1', 'app', []));"
        "channel.receive(); print('there', flush=True); channel.shutdown(); time.sleep(100)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert process.stdout is not None and await process.stdout.readline() == b"there\n"
    apps = here.server._services.dispatcher.apps
    await here.until(lambda: here.server._sessions["session"]._transport is None)  # type: ignore[index]
    assert "ap-1" in apps, "its process lives, so it may come back"
    process.kill()
    await here.until(lambda: "ap-1" not in apps)
    await process.wait()


@pytest.mark.parametrize(("session", "token"), [("another", ""), ("s" * 32, "another token"), ("", "")])
async def test_another_is_not_taken_for_it(here: Stage, tmp_path: Path, session: str, token: str) -> None:
    client, _container, _assign = await mapped(here, tmp_path)
    client.leave()
    other = Client(here, tmp_path, session)
    welcome = await other.come(token)
    assert not welcome.resumed and welcome.keeps_session == bool(session)


async def test_more_than_is_kept(here: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_KEPT_BYTES", 1000)
    client, container, assign = await mapped(here, tmp_path, 2)
    client.leave()
    await here.until(lambda: here.server._sessions["s" * 32]._transport is None)  # type: ignore[index]
    await container.send(m.Results(assign.range, 0, 1, 0.1, 0.1), payload=bytes(2000))
    await here.until(lambda: "s" * 32 not in (here.server._sessions or {}))
    assert not (await client.come()).resumed


async def test_a_count_that_can_not_be(here: Stage, tmp_path: Path) -> None:
    client, container, _assign = await mapped(here, tmp_path)
    client.leave()
    client.received = 100
    await client.come()
    assert "100 frames of this session can't have come" in await client.peer.dismissed()
    await container.expect(m.CancelRange)


# -- a server that was started again ---------------------------------------------------------------


def part(first: int, count: int, unsettled: list[tuple[int, int]], left: int = 0, **more: object) -> m.Restore:
    return m.Restore("fc-9", "ap-1/f", first, count, unsettled, left, 20, int(more.pop("total", -1)), **more)  # type: ignore[arg-type, call-overload]


async def reopened(here: Stage, home: Path) -> Client:
    client = Client(here, home)
    await client.come()
    await client.peer.send(m.OpenApp("ap-1", "app", [record("f", settings=AutoscalerSettings(max_containers=1))]))
    return client


async def test_a_map_goes_on_with_what_is_unsettled(here: Stage, tmp_path: Path) -> None:
    client = await reopened(here, tmp_path)
    await client.peer.send(part(2, 8, [(3, 4), (6, 8)], 1), payload=b"two to ten")
    await client.peer.send(part(12, 8, [(12, 20)]), payload=b"twelve to twenty")
    await client.peer.send(m.Submit("fc-9", "ap-1/f", "map", 20, 1, True), payload=b"twenty")
    container = await here.container(await here.started("ap-1/f"))
    ran: list[int] = []
    segments = {2: b"two to ten", 12: b"twelve to twenty", 20: b"twenty"}
    while len(ran) < 12:
        assign, payload = await container.expect(m.Assign)
        assert payload in (b"", segments[assign.first])
        ran += range(assign.start, assign.stop)
        for position in range(assign.start, assign.stop):
            await container.send(m.Results(assign.range, position, 1, 0.001, 0.001), payload=b"out")
            outputs, _ = await client.expect(m.Outputs)
            assert isinstance(outputs, m.Outputs) and outputs.first == position
    assert sorted(ran) == [3, 6, 7, *range(12, 21)]
    await here.until(lambda: not here.server._services.dispatcher.calls)


async def test_a_map_goes_on_of_which_nothing_is_unsettled(here: Stage, tmp_path: Path) -> None:
    client = await reopened(here, tmp_path)
    await client.peer.send(part(20, 0, []))
    await client.peer.send(m.Submit("fc-9", "ap-1/f", "map", 20, 1, True), payload=b"twenty")
    container = await here.container(await here.started("ap-1/f"))
    assign, _ = await container.expect(m.Assign)
    assert (assign.start, assign.stop) == (20, 21)


async def test_a_map_whose_client_leaves_half_way_is_forgotten(here: Stage, tmp_path: Path) -> None:
    client = await reopened(here, tmp_path)
    await client.peer.send(part(2, 8, [(3, 4)], 1), payload=b"two to ten")
    await client.peer.send(m.Bye("done"))
    client.leave()
    await here.until(lambda: "ap-1" not in here.server._services.dispatcher.apps)
    assert not here.server._services.dispatcher.calls


async def test_a_map_that_is_still_being_cancelled_does_not_go_on(here: Stage, tmp_path: Path) -> None:
    client, _container, _assign = await mapped(here, tmp_path)
    await client.peer.send(m.Restore("fc-1", "ap-1/f", 0, 1, [(0, 1)], 0, 1, 1), payload=b"in")
    refused, _ = await client.expect(m.Refused)
    assert isinstance(refused, m.Refused) and refused.error.kind == "lost"


@pytest.mark.parametrize(
    ("reason", "parts"),
    [
        ("no part of the segment", [part(2, 8, [(1, 4)])]),
        ("no part of the segment", [part(2, 8, [(4, 11)])]),
        ("no part of the segment", [part(2, 8, [(4, 6), (5, 7)])]),
        ("no part of the segment", [part(2, 8, [(5, 5)])]),
        ("nothing to do", [part(2, 8, [])]),
        ("none up to 21", [part(19, 2, [(19, 20)])]),
        ("without inputs", [part(2, 0, [], 1)]),
        ("has 20 inputs", [part(2, 8, [(3, 4)], total=19)]),
        ("out of order", [part(2, 8, [(3, 4)], 1), part(9, 8, [(9, 10)])]),
        ("another one than before", [part(2, 8, [(3, 4)], 1), part(10, 8, [(10, 11)], method="other")]),
        ("more than 1,000", [m.Restore("fc-9", "ap-1/f", 0, 2000, [(0, 1500)], 0, 2000, -1)]),
    ],
)
async def test_what_a_client_may_not_restore(here: Stage, tmp_path: Path, reason: str, parts: list[m.Restore]) -> None:
    client = await reopened(here, tmp_path)
    await client.peer.send(*parts)
    assert reason in await client.peer.dismissed()


class Container:
    """One that reaches the server over a network, and may come back."""

    def __init__(self, here: Stage, name: str) -> None:
        self.received = 0
        self.peer: Peer
        self._here = here
        self._token = here.engine.tokens[name]
        here.played.add(name)

    async def come(self) -> m.Welcome:
        """Call, for the first time or again."""
        self.peer = await self._here.stranger()
        await self.peer.send(m.Hello(m.PROTOCOL, "container", self._token, os.getpid(), "c" * 32, self.received))
        return (await self.peer.expect(m.Welcome))[0]

    async def expect(self, kind: type[m.Message]) -> m.Message:
        """The next frame, which is one of these."""
        frame = await self.peer.receive()
        assert frame is not None and isinstance(frame[0], kind)
        self.received += not isinstance(frame[0], UNCOUNTED)
        return frame[0]


async def waiting_container(here: Stage, home: Path) -> tuple[Client, str, Container]:
    """A client with an app of one container, which has called and has nothing to do yet."""
    client = Client(here, home)
    await client.come()
    settings = AutoscalerSettings(max_containers=1, min_containers=1)
    await client.peer.send(m.OpenApp("ap-1", "app", [record("f", settings=settings)]))
    name = await here.started("ap-1/f")
    container = Container(here, name)
    welcome = await container.come()
    assert (welcome.keeps_session, welcome.resumed) == (True, False)
    await container.expect(m.Load)
    await container.peer.send(m.Ready())
    return client, name, container


async def test_a_container_that_comes_back_goes_on(here: Stage, tmp_path: Path) -> None:
    client, name, container = await waiting_container(here, tmp_path)
    container.peer.close()
    await client.peer.send(m.Submit("fc-1", "ap-1/f", "map", 0, 1, True), payload=b"in")
    here.clock.advance(GRACE_SECONDS - 1)
    welcome = await container.come()
    assert welcome.resumed, "it is the same server, which has what it said"
    assign = await container.expect(m.Assign)
    assert isinstance(assign, m.Assign), "granted meanwhile, and not loaded again"
    await container.peer.send(m.Results(assign.range, 0, 1, 0.1, 0.1), payload=b"out")
    await client.expect(m.Outputs)
    assert here.engine.killed == []
    assert list(here.engine.tokens) == [name]
    here.engine.end(name, 0)


async def test_a_container_that_does_not_come_back_is_killed(here: Stage, tmp_path: Path) -> None:
    _, name, container = await waiting_container(here, tmp_path)
    container.peer.close()
    await here.until(lambda: any(one._transport is None for one in (here.server._sessions or {}).values()))
    here.clock.advance(GRACE_SECONDS + 0.1)
    await here.until(lambda: here.engine.killed)
    assert here.engine.killed == [name]


async def test_a_container_that_is_away_as_the_server_ends_comes_back_and_is_told(here: Stage, tmp_path: Path) -> None:
    """Clients do not: for them the server is gone."""
    _, name, container = await waiting_container(here, tmp_path)
    client = await here.client_inside(name)
    container.peer.close()
    await here.until(lambda: any(one._transport is None for one in (here.server._sessions or {}).values()))
    here.server.ended.set()
    await here.until(lambda: here.server._services.dispatcher.stopping)
    with socket.socket(socket.AF_UNIX) as neighbour, pytest.raises(OSError):
        neighbour.connect(str(tmp_path / "server.sock"))
    stranger = await here.stranger()
    await stranger.send(m.Hello(m.PROTOCOL, "client", here.engine.tokens[name], os.getpid()))
    assert await stranger.receive() is None, "nothing keeps it from looking for the next one"
    assert (await container.come()).resumed
    drain = await container.expect(m.Drain)
    assert isinstance(drain, m.Drain) and not client.is_dismissed()
    here.engine.end(name, 0)


@pytest.mark.parametrize("is_away", [True, False])
async def test_a_container_that_has_ended_is_not_waited_for(here: Stage, tmp_path: Path, is_away: bool) -> None:
    client, name, container = await waiting_container(here, tmp_path)
    await client.peer.send(m.Submit("fc-1", "ap-1/f", "map", 0, 1, True), payload=b"in")
    assign = await container.expect(m.Assign)
    if is_away:
        container.peer.close()
        await here.until(lambda: any(one._transport is None for one in (here.server._sessions or {}).values()))
    here.engine.end(name, -9)
    if not is_away:
        assert isinstance(assign, m.Assign)
        await container.peer.send(m.Results(assign.range, 0, 1, 0.1, 0.1), payload=b"its last")
        assert (await client.expect(m.Outputs))[1] == b"its last", "what it has said is heard"
        here.clock.advance(connections.LAST_WORDS_SECONDS + 0.1)  # nothing says that its stream has ended
    assert await here.started("ap-1/f") != name, "another takes its place"


async def test_a_session_of_another_container_is_nobodys(here: Stage, tmp_path: Path) -> None:
    _, name, container = await waiting_container(here, tmp_path)
    stranger = await here.stranger()
    await stranger.send(m.Hello(m.PROTOCOL, "container", "co-1.guessed", os.getpid(), "c" * 32))
    assert "token is not valid" in await stranger.dismissed()
    await container.peer.send(m.Returned(1, 1))
    assert not container.peer.is_dismissed()
    here.engine.end(name, 0)


async def test_a_stream_that_goes_on_with_a_session_is_watched_once(here: Stage, tmp_path: Path) -> None:
    client = Client(here, tmp_path)
    await client.come()
    client.leave()
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.setblocking(False)
    await asyncio.get_running_loop().sock_connect(stream, str(tmp_path / "server.sock"))
    peer = Peer(stream)
    here.peers.append(peer)
    hello = encode(m.Hello(m.PROTOCOL, "client", "", os.getpid(), client.session, client.received))
    await peer.send_bytes(hello[:10])
    for _ in range(5):  # turns of the loop: it is let in, and read
        await here.has_taken_all()
    await peer.send_bytes(hello[10:] + encode(m.Submit("fc-1", "ap-1/f", "map", 0, 1, True), bytes(100_000))[:90_000])
    assert (await peer.expect(m.Welcome))[0].resumed
    await here.has_taken_all()
    here.clock.advance(FRAME_SECONDS)  # since the first bytes of the greeting, when nobody knew whose they are
    assert "bytes of a frame came" in await peer.dismissed()
