"""Thousands of malformed, misplaced and mutated frames against a real server, over each of its doors (once with TCP,
once with TLS for other machines) and with every identity: whoever sends one is sent away or ignored, an honest client
and an honest container never notice, and the server lives.

`UPSWELL_FUZZ_FRAMES` sets how many; `UPSWELL_FUZZ_SEED` which. A failure prints the seed and the frame.
`make fuzz FRAMES=1000000` runs many.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from tests.acceptance.homes import certificate
from tests.wire import arbitrary
from upswell.home import Serving
from upswell.server import connections, objects, runtime
from upswell.server.tokens import Scope
from upswell.spec import AutoscalerSettings, SettingsUpdate
from upswell.wire import messages as m
from upswell.wire.codec import encode

from .stage import PATIENCE_SECONDS, Peer, Stage, record, stage

FRAMES = int(os.environ.get("UPSWELL_FUZZ_FRAMES", "20000"))
SEED = int(os.environ.get("UPSWELL_FUZZ_SEED", "1"))
FRAMES_AT_MOST = 30  # that one peer sends; most are sent away earlier
FROM_CLIENTS = (
    m.Submit, m.EndInputs, m.Cancel, m.Collect, m.Uncollect, m.Inquire, m.Watch, m.Release, m.OpenApp, m.CloseApp,
    m.UseObject, m.Withdraw, m.Bye, m.List, m.ReadLogs, m.Unfollow, m.StopContainer,
    m.Declare, m.Consumed, m.DescribeGraph, m.DescribeServer, m.Resolve, m.OfferFiles,
    m.PutFile, m.Deploy, m.Rollback, m.StopApp, m.Restore, m.AttendApp,
)  # fmt: skip
FROM_CONTAINERS = (
    m.Ready, m.StartFailed, m.Results, m.Failure, m.Returned, m.Suspended, m.Resumed, m.Release, m.Bye,
    m.Yielded, m.Rejoin,
)  # fmt: skip
IDS = ("fc-honest", "fc-1", "fc-2", "fc-3", "ap-1/bad", "ap-1/good", "ap-1", "ap-2", "ap-none/f")

Role = Callable[[Stage, "Mischief"], Awaitable[tuple[Peer, tuple[type[m.Message], ...]]]]

pytestmark = pytest.mark.timeout(60 + FRAMES // 100)


class Mischief:
    """A source of frames that no honest peer sends."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.sent: deque[bytes] = deque(maxlen=2 * FRAMES_AT_MOST)
        self.ranges: list[m.Assign] = []  # what a bad container was really granted

    def frame(self, kinds: tuple[type[m.Message], ...]) -> bytes:
        """The next one: a message with odd values, mostly near what is right; mutated; or no message at all."""
        random, dice = self.random, self.random.random()
        message = self._near(random.choice(kinds)) if dice < 0.7 else arbitrary.message(random)
        data = encode(message, random.randbytes(random.choice((0, 0, 10, 3000))))
        if dice > 0.85:
            data = self._mutated(data)
        self.sent.append(data)
        return data

    def _near(self, kind: type[m.Message]) -> m.Message:
        """A message whose ids and numbers mostly exist, so that it passes the first checks."""
        random = self.random
        message = arbitrary.message(random, (kind,))
        changes: dict[str, object] = {}
        held = random.choice(self.ranges) if self.ranges else None
        for name in kind.__struct_fields__:
            value = getattr(message, name)
            if random.random() < 0.1:
                continue
            if isinstance(value, str):
                changes[name] = random.choice(IDS)
            elif name == "range" and held:
                changes[name] = held.range
            elif name in ("start", "position", "stop") and held:
                changes[name] = random.choice((held.start, held.start + 1, held.stop))
            elif name in ("first", "count", "total"):
                changes[name] = random.choice((0, 1, 1, 2, 3, 50))
            elif isinstance(value, float):
                changes[name] = random.choice((0.0, 0.01, 5.0))
            elif name == "buffers":
                changes[name] = random.choice((None, None, m.Buffers(os.getpid(), 0, 10), value))
        if kind is m.Submit:
            changes["kind"] = random.choice(("map", "map", "spawn", "remote"))
        if kind is m.Inquire:
            changes["update"] = random.choice((None, AutoscalerSettings(max_containers=3)))
        fields = {name: getattr(message, name) for name in kind.__struct_fields__}
        return kind(**{**fields, **{name: one for name, one in changes.items() if name != "kind" or kind is m.Submit}})

    def _mutated(self, data: bytes) -> bytes:
        random, changed = self.random, bytearray(data)
        match random.randrange(5):
            case 0:
                for _ in range(random.choice((1, 2, 10))):
                    changed[random.randrange(len(changed))] = random.randrange(256)
            case 1:
                del changed[random.randrange(len(changed)) :]
            case 2:
                changed[random.randrange(len(changed)) : 0] = random.randbytes(random.randrange(1, 20))
            case 3:
                changed[:4] = random.choice((0, 3, 5, 1 << 20, 1 << 30, (1 << 32) - 1)).to_bytes(4, "little")
            case _:
                changed = bytearray(random.randbytes(random.randrange(1, 200)))
        return bytes(changed)


@pytest.mark.parametrize("secured", [False, True], ids=["tcp", "tls"])
async def test_nobody_brings_the_server_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secured: bool) -> None:
    mischief = Mischief(2 * SEED + secured)
    home, serving = tmp_path / "home", Serving(listen="127.0.0.1:0")
    home.mkdir()
    if secured:
        chain, key = certificate(tmp_path, "IP:127.0.0.1")
        serving = serving.changed("", str(chain), str(key))

    def fail() -> None:
        raise

    loop = asyncio.get_running_loop()
    defects: list[object] = []
    monkeypatch.setattr(runtime, "give_up", fail)
    monkeypatch.setattr(objects, "give_up", fail)
    loop.set_exception_handler(lambda _, context: defects.append(context))
    async with stage(home=home, serving=serving) as here:
        await open_app(here)
        roles: list[Role]
        roles = [as_stranger, as_client, as_container, as_container, as_neighbour, from_elsewhere, *with_tokens(here)]
        if secured:
            roles = [without_tls, from_elsewhere, *with_tokens(here), *roles]  # most go through that door
        frames = 0
        while frames < FRAMES // 2:
            peer, kinds = await mischief.random.choice(roles)(here, mischief)
            frames += await attack(here, peer, kinds, mischief)
            peer.close()
            here.peers.remove(peer)
            here.clock.advance(mischief.random.choice((0.0, 0.01, connections.FAREWELL_SECONDS, 61.0)))
            here.client.is_dismissed()
            if mischief.random.random() < 0.02:
                await honest_call(here)
            assert not defects, f"seed {SEED}, frame {frames}: {defects[0]}; sent last: {list(mischief.sent)[-3:]!r}"
        await honest_call(here)


async def open_app(here: Stage) -> None:
    bad = record("bad", settings=AutoscalerSettings(min_containers=1, max_containers=2))
    good = record("good", settings=AutoscalerSettings(max_containers=1))
    await here.client.send(m.OpenApp("ap-1", "app", [bad, good]))
    await here.has_taken_all()


async def as_stranger(here: Stage, _: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
    return await here.stranger(), arbitrary.TYPES


async def as_client(here: Stage, _: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
    return await of_a_bad_one(here, here.client_inside), FROM_CLIENTS


async def as_neighbour(here: Stage, _: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
    return await here.neighbour(), FROM_CLIENTS


async def from_elsewhere(here: Stage, _: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
    return await here.remote(None), arbitrary.TYPES


async def without_tls(here: Stage, _: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
    """Somebody whose bytes are no TLS, where there should be some."""
    trusted, here.trusted = here.trusted, None
    peer = await here.remote(None)
    here.trusted = trusted
    return peer, arbitrary.TYPES


def with_tokens(here: Stage) -> list[Role]:
    """Clients from elsewhere, one of each scope, and the same that say they have lost their connection."""
    assert here.front is not None
    made = [here.front.tokens.create(scope, 0.0)[1] for scope in get_args(Scope)]

    def with_token(text: str) -> Role:
        async def role(here: Stage, _: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
            return await here.remote(text), (*FROM_CLIENTS, m.Piece)

        return role

    def come_back(text: str) -> Role:
        async def role(here: Stage, mischief: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
            random, session = mischief.random, f"session {mischief.random.random()}"
            before, peer = await here.remote(None), await here.remote(None)
            await before.send(m.Hello(m.PROTOCOL, "client", text, os.getpid(), session))
            await before.expect(m.Welcome)
            await before.send(*[m.DescribeServer(number) for number in range(random.choice((0, 1, 3)))])
            if random.random() < 0.5:
                before.close()
            received = random.choice((0, 0, 1, 2, 3, 1 << 40))
            await peer.send(m.Hello(m.PROTOCOL, "client", text, os.getpid(), session, received))
            await asyncio.sleep(0)  # it may be back before anybody has noticed that it was away
            before.close()
            here.peers.remove(before)
            return peer, (*FROM_CLIENTS, m.Piece, m.Received)

        return role

    return [make(text) for text in made for make in (with_token, come_back)]


async def as_container(here: Stage, mischief: Mischief) -> tuple[Peer, tuple[type[m.Message], ...]]:
    """A container with something to do: calls that the honest client has given up by the time they are answered."""
    call = f"fc-{mischief.random.randrange(1 << 40)}"
    await here.client.send(m.Submit(call, "ap-1/bad", "map", 0, mischief.random.choice((1, 3, 50)), True), payload=b"x")

    async def at_work(name: str) -> Peer:
        peer = await here.container(name)
        mischief.ranges = [(await peer.expect(m.Assign))[0]]
        return peer

    peer = await of_a_bad_one(here, at_work)
    if mischief.random.random() < 0.7:
        await here.client.send(m.Cancel(call))
    return peer, FROM_CONTAINERS


async def of_a_bad_one(here: Stage, met: Callable[[str], Awaitable[Peer]]) -> Peer:
    """Whoever is met of one that lives on meanwhile: what others have sent before may still have one be ended."""
    while True:
        name = await a_bad_one(here)
        try:
            return await met(name)
        except (AssertionError, KeyError):
            if name in here.engine.tokens and name not in here.engine.dying:
                raise


async def a_bad_one(here: Stage) -> str:
    """A container of the bad function that nobody has played yet; time passes where the pool waits before a start."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            for name in here.engine.tokens.keys() - here.played - here.engine.dying:
                if here.engine.functions[name] == "ap-1/bad":
                    return name
            await here.client.send(m.Inquire(0, "ap-1/bad", SettingsUpdate(min_containers=1)))  # whoever changed that
            here.clock.advance(1.0)
            await here.client.expect(m.Statistics)


async def attack(here: Stage, peer: Peer, kinds: tuple[type[m.Message], ...], mischief: Mischief) -> int:
    """Send until the server has had enough; how many frames that took."""
    for number in range(1, FRAMES_AT_MOST + 1):
        await peer.send_bytes(mischief.frame(kinds))
        await asyncio.sleep(0)
        if mischief.random.random() < 0.3 and peer.is_dismissed():
            return number
    return FRAMES_AT_MOST


async def honest_call(here: Stage) -> None:
    """One whole call, from the client to a container and back, whatever else waits for that container."""
    here.clock.advance(1.0)  # the last one's container left as soon as it had answered: the pool pauses before a start
    await here.client.send(m.Submit("fc-good", "ap-1/good", "remote", 0, 1, True), payload=b"in")
    name = await here.started("ap-1/good")
    container = await here.container(name)
    answering = asyncio.create_task(answer_all(container))
    while True:
        outputs, payload = await here.client.expect(m.Outputs)
        if outputs.call == "fc-good":
            break
    assert payload == b"in and out"
    answering.cancel()
    container.close()
    here.peers.remove(container)
    await here.until(lambda: name not in here.engine.tokens)


async def answer_all(container: Peer) -> None:
    """Be an honest container."""
    segments: dict[tuple[str, int], bytes] = {}
    while frame := await container.receive():
        message, payload = frame
        if isinstance(message, m.Assign):
            given = segments.setdefault((message.call, message.first), payload)
            count = message.stop - message.start
            await container.send(
                m.Results(message.range, message.start, count, 0.001, 0.001), payload=given + b" and out"
            )
        elif isinstance(message, m.TakeBack | m.CancelRange):
            await container.send(m.Returned(message.range, 1 << 62))
