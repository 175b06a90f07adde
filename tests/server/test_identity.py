"""Who may ask for what: messages and tokens have their rights, and for a container others' calls are not there."""

import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from msgspec import structs

from tests.wire import arbitrary
from upswell.errors import InvalidError, StoreError
from upswell.home import Serving
from upswell.server import connections, front
from upswell.server.front import Front
from upswell.server.identity import NEEDED, RIGHTS, Identity, may
from upswell.server.tokens import FILE, TokenFile
from upswell.spec import AutoscalerSettings, SettingsUpdate
from upswell.wire import messages as m
from upswell.wire.buffers import Block
from upswell.wire.codec import encode

from .stage import Peer, Stage, record, stage

PID = os.getpid()
LOOPBACK = Serving(listen="127.0.0.1:0")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Stage]:
    """A server with two ephemeral apps, each of which has a container."""
    async with stage(home=tmp_path, serving=LOOPBACK) as on_stage:
        for app in ("ap-1", "ap-2"):
            settings = AutoscalerSettings(min_containers=1)
            await on_stage.client.send(m.OpenApp(app, "app", [record("f", app, settings), record("g", app)]))
            await on_stage.has_taken_all()
        yield on_stage


def token(here: Stage, scope: str, days: float = 0.0) -> str:
    assert here.front is not None
    return here.front.tokens.create(scope, time.time(), days=days)[1]  # type: ignore[arg-type]


def spawn(call: str, function: str) -> m.Submit:
    return m.Submit(call, function, "spawn", 0, 1, True)


# -- rights ----------------------------------------------------------------------------------------


async def test_every_message_of_a_client_has_its_right(here: Stage) -> None:
    """What has none is not for clients: who sends it is sent away, whoever it is."""
    random = Random(1)
    for kind in arbitrary.TYPES:
        if (kind in NEEDED and kind is not m.Piece) or kind is m.Release:
            continue
        neighbour = await here.neighbour()
        await neighbour.send(arbitrary.message(random, (kind,)))
        assert f"a client does not send {kind.__name__}" in await neighbour.dismissed()


def test_rights_grow() -> None:
    for rights in (RIGHTS["read"], RIGHTS["container"]):
        assert RIGHTS["stranger"] < rights < RIGHTS["client"] < RIGHTS["neighbour"]


def test_a_change_of_settings_is_no_look() -> None:
    reader = Identity("read")
    assert may(reader, m.Inquire(1, "ap-1/f"))
    assert not may(reader, m.Inquire(1, "ap-1/f", SettingsUpdate(min_containers=1)))


async def test_a_token_to_read_changes_nothing(here: Stage) -> None:
    reader = await here.remote(token(here, "read"))
    for message, about in (
        (spawn("fc-1", "ap-1/f"), "fc-1"),
        (m.OpenApp("ap-3", "app", []), "ap-3"),
        (m.Inquire(7, "ap-1/f", SettingsUpdate(min_containers=5)), "7"),
        (m.StopApp(8, "app"), "8"),
        (m.StopContainer(6, "co-1"), "6"),
        (m.BackUp(9, "/nowhere"), "9"),
        (m.Cancel("fc-none"), "fc-none"),
    ):
        await reader.send(message)
        denied, _ = await reader.expect(m.Denied)
        assert denied.about == about and "scope 'read'" in denied.reason
    await reader.send(m.Inquire(10, "ap-1/f"))
    statistics, _ = await reader.expect(m.Statistics)
    assert statistics.settings.min_containers == 1
    await reader.send(m.List(12, m.ListApps()))
    assert len((await reader.expect(m.Listed))[0].rows) == 2
    await reader.send(m.ReadLogs(13, "ap-1"))
    assert (await reader.expect(m.Logged))[0].last
    await reader.send(m.DescribeServer(11))
    described, _ = await reader.expect(m.ServerDescribed)
    assert (described.apps, described.functions, described.process) == (2, 4, PID)


async def test_a_refusal_tells_nothing_of_what_exists(here: Stage) -> None:
    reader = await here.remote(token(here, "read"))
    answers = []
    for function in ("ap-1/f", "ap-none/f"):
        await reader.send(spawn("fc-1", function))
        answers.append(await reader.expect(m.Denied))
    assert answers[0] == answers[1]


async def test_a_token_to_use_does_not_administer(here: Stage) -> None:
    client = await here.remote(token(here, "client"))
    await client.send(m.BackUp(1, "/nowhere"))
    await client.expect(m.Denied)
    await client.send(spawn("fc-1", "ap-1/f"))
    await client.expect(m.Accepted)


async def test_only_a_neighbour_has_a_copy_made(here: Stage, tmp_path: Path) -> None:
    neighbour = await here.neighbour()
    await neighbour.send(m.BackUp(1, str(tmp_path / "copy.db")))
    assert (await neighbour.expect(m.Done))[0].error is None
    assert (tmp_path / "copy.db").stat().st_size
    await neighbour.send(m.BackUp(2, "/nowhere/copy.db"))
    error = (await neighbour.expect(m.Done))[0].error
    assert error is not None and "/nowhere/copy.db" in error.message


# -- containers ------------------------------------------------------------------------------------


async def test_calls_of_another_app_are_not_there_for_a_container(here: Stage) -> None:
    await here.client.send(spawn("fc-1", "ap-1/f"), spawn("fc-2", "ap-2/f"))
    for _ in range(2):
        await here.client.expect(m.Accepted)
    inside = await here.client_inside(await here.started("ap-1/f"))
    missing = []
    for call in ("fc-2", "fc-none"):
        await inside.send(m.Collect(call, 0, -1), m.DescribeGraph("rq-1", call), m.Cancel(call, terminate=True))
        failed, _ = await inside.expect(m.Failed)
        missing.append((failed.error.kind, failed.error.message.replace(call, "")))
        assert (await inside.expect(m.CallGraph))[0].missing
    assert missing[0] == missing[1]
    await inside.send(m.DescribeGraph("rq-2", "fc-1"))
    assert not (await inside.expect(m.CallGraph))[0].missing
    await here.client.send(m.DescribeGraph("rq-3", "fc-2"))
    assert [one.state for one in (await here.client.expect(m.CallGraph))[0].inputs] == ["pending"]


async def test_an_app_of_somebody_else_is_not_there_for_a_container(here: Stage) -> None:
    inside = await here.client_inside(await here.started("ap-1/f"))
    await inside.send(spawn("fc-9", "ap-2/f"), m.Inquire(1, "ap-2/f"), m.Watch("ap-2"))
    refused, _ = await inside.expect(m.Refused)
    assert refused.error.kind == "missing"
    error = (await inside.expect(m.Statistics))[0].error
    assert error is not None and error.kind == "missing" and "there is no function f:" in error.message
    block = Block.write([])
    await inside.send(structs.replace(spawn("fc-9", "ap-2/f"), buffers=block.buffers))
    await inside.expect(m.Refused)
    assert (await inside.expect(m.Release))[0].descriptor == block.buffers.descriptor, "nobody else would let it go"
    block.close()
    await inside.send(spawn("fc-8", "ap-1/g"))
    await inside.expect(m.Accepted)


async def test_a_container_reaches_what_its_app_has_made_elsewhere(tmp_path: Path) -> None:
    async with stage(home=tmp_path) as here:
        await here.client.send(m.Deploy(1, "ap-2", "other", (record("f", "ap-2"),), ()))
        other = (await here.client.expect(m.Deployed))[0].app
        settings = AutoscalerSettings(min_containers=1)
        await here.client.send(m.Deploy(2, "ap-1", "maker", (record("f", "ap-1", settings),), ()))
        maker = (await here.client.expect(m.Deployed))[0].app
        inside = await here.client_inside(await here.started(f"{maker}/f"))
        await inside.send(spawn("fc-made", f"{other}/f"))
        await inside.expect(m.Accepted)
        await here.client.send(spawn("fc-other", f"{other}/f"))
        await here.client.expect(m.Accepted)
    async with stage(home=tmp_path) as here:  # also after a restart
        inside = await here.client_inside(await here.started(f"{maker}/f"))
        await inside.send(m.Collect("fc-made", 0, -1))
        assert (await inside.expect(m.CallDescribed))[0].call == "fc-made"
        await inside.send(m.Collect("fc-other", 0, -1))
        assert (await inside.expect(m.Failed))[0].error.kind == "missing"


async def test_a_container_surveys_nothing(here: Stage) -> None:
    inside = await here.client_inside(await here.started("ap-1/f"))
    await inside.send(m.List(1, m.ListApps()), m.ReadLogs(2, "ap-2"), m.StopContainer(3, "co-1"), m.DescribeServer(4))
    assert [(await inside.expect(m.Denied))[0].about for _ in range(4)] == ["1", "2", "3", "4"]


async def test_a_container_deploys_nothing(here: Stage) -> None:
    inside = await here.client_inside(await here.started("ap-1/f"))
    await inside.send(m.StopApp(1, "app"), m.Deploy(2, "ap-9", "app", (), ()), m.BackUp(3, "/nowhere"))
    assert [(await inside.expect(m.Denied))[0].about for _ in range(3)] == ["1", "2", "3"]


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", ".", "tk-none.abc", "ID", "ID.", "ID.wrong", "ID.é", "co-1.abc", "x" * 1000])
async def test_a_token_that_is_not_good(here: Stage, text: str) -> None:
    good = token(here, "client")
    stranger = await here.remote(None)
    await stranger.send(m.Hello(m.PROTOCOL, "client", text.replace("ID", good.partition(".")[0]), PID))
    bye = None
    while frame := await stranger.receive():
        bye = frame[0]
    assert bye == m.Bye("the token is not valid here" if text else "it shows no token", denied=True)


async def test_a_token_makes_no_container(here: Stage) -> None:
    stranger = await here.remote(None)
    await stranger.send(m.Hello(m.PROTOCOL, "container", token(here, "client"), PID))
    assert "token is not valid" in await stranger.dismissed()
    container = here.engine.tokens[await here.started("ap-1/f")]
    elsewhere = await here.remote(None)
    await elsewhere.send(m.Hello(m.PROTOCOL, "client", container, PID))
    assert "token is not valid" in await elsewhere.dismissed()


async def test_what_a_revoked_token_has_opened_ends(here: Stage) -> None:
    assert here.front is not None
    kept, revoked = token(here, "client"), token(here, "client")
    stays, goes = await here.remote(kept), await here.remote(revoked)
    here.front.tokens.revoke(revoked.partition(".")[0])
    here.clock.advance(front.LOOK_SECONDS + 0.1)
    assert "token is not valid here any more" in await goes.dismissed()
    await stays.send(m.DescribeServer(1))
    await stays.expect(m.ServerDescribed)


async def test_what_an_expired_token_has_opened_ends(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await here.remote(token(here, "client", days=1.0))
    now = time.time()
    monkeypatch.setattr("upswell.server.front.time.time", lambda: now + 86_401)
    here.clock.advance(front.LOOK_SECONDS + 0.1)
    assert "token is not valid here any more" in await client.dismissed()


def test_the_file_of_tokens_knows_no_secret(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path)
    token, text = tokens.create("client", 1000.0, name="laptop", days=1.0)
    assert text.startswith(f"{token.id}.") and len(text.partition(".")[2]) >= 43
    assert text.partition(".")[2] not in (tmp_path / FILE).read_text()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    other = TokenFile(tmp_path)
    assert other.check(text, 1000.0) == token
    assert other.check(text, 1000.0 + 86_400) is None
    other.used(token.id, 1234.0)
    assert [one.used_at for one in tokens.list()] == [1234.0]
    other.used(token.id, 1235.0)  # it was noted a moment ago
    assert [one.used_at for one in tokens.list()] == [1234.0]
    other.revoke(token.id)
    assert tokens.check(text, 1000.0) is None


@pytest.mark.parametrize(("days", "name"), [(-1.0, ""), (float("nan"), ""), (1.0, "x" * 65), (1.0, "a\nb")])
def test_a_token_that_is_not_made(tmp_path: Path, days: float, name: str) -> None:
    with pytest.raises(InvalidError):
        TokenFile(tmp_path).create("client", 1000.0, name=name, days=days)


def test_many_change_the_file_of_tokens_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: TokenFile(tmp_path).create("read", float(number)), range(40)))
    assert {token.id for token, _ in made} == {token.id for token in TokenFile(tmp_path).list()}


def test_a_damaged_file_of_tokens_opens_nothing(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path)
    (tmp_path / FILE).write_text("[")
    with pytest.raises(InvalidError, match=r"tokens\.json is not valid"):
        tokens.check("tk-1.abc", 1000.0)


def test_tokens_that_can_not_be_written_are_as_they_were(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path)
    made, text = tokens.create("client", 1000.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))  # as on a full disk
    try:
        with pytest.raises(StoreError, match=r"tokens\.json can't be written, and is as it was"):
            tokens.create("client", 1000.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert tokens.check(text, 1000.0) == made and tokens.list() == [made]


async def test_who_comes_while_the_file_of_tokens_is_damaged_is_sent_away(
    here: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = token(here, "client")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_text("[")
    stranger = await here.remote(None)
    await stranger.send(m.Hello(m.PROTOCOL, "client", good, PID))
    assert "token is not valid here" in await stranger.dismissed()
    assert "tokens.json is not valid" in caplog.text
    (tmp_path / FILE).write_bytes(whole)
    await here.remote(good)


async def test_while_the_file_of_tokens_can_not_be_read_nobody_is_let_in_or_sent_away(
    here: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert here.front is not None
    good = token(here, "client")
    client = await here.remote(good)
    (tmp_path / FILE).rename(tmp_path / "away")
    (tmp_path / FILE).mkdir()
    here.clock.advance(front.LOOK_SECONDS + 0.1)
    assert "tokens.json can't be read" in caplog.text
    stranger = await here.remote(None)
    await stranger.send(m.Hello(m.PROTOCOL, "client", good, PID))
    assert "token is not valid here" in await stranger.dismissed()
    await client.send(m.DescribeServer(1))
    await client.expect(m.ServerDescribed)
    (tmp_path / FILE).rmdir()
    (tmp_path / "away").rename(tmp_path / FILE)
    here.front.tokens.revoke(good.partition(".")[0])
    here.clock.advance(front.LOOK_SECONDS + 0.1)
    assert "token is not valid here any more" in await client.dismissed(), "it goes on looking"


async def test_a_token_opens_also_where_its_use_can_not_be_noted(
    here: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = token(here, "client")
    (tmp_path / FILE).with_suffix(".part").mkdir()  # as little can be written there as on a full disk
    client = await here.remote(good)
    await client.send(m.DescribeServer(1))
    await client.expect(m.ServerDescribed)
    assert "its use is not noted" in caplog.text


# -- what is listened at ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        (Serving(listen="0.0.0.0:0"), "without TLS would show everything"),
        (Serving(listen="[::]:0"), "without TLS would show everything"),
        (Serving(listen="example:0"), "without TLS would show everything"),
        (Serving(listen="127.0.0.1"), "no HOST:PORT"),
        (Serving(listen=":80"), "no HOST:PORT"),
        (Serving(listen="127.0.0.1:99999"), "no HOST:PORT"),
        (Serving(listen="127.0.0.1:0", certificate="/none.pem"), "the certificate /none.pem"),
    ],
)
def test_what_a_server_does_not_listen_at(tmp_path: Path, serving: Serving, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        Front(tmp_path, serving)


# -- frames over a network -------------------------------------------------------------------------


async def test_a_block_comes_and_goes_in_pieces(here: Stage) -> None:
    client = await here.remote(token(here, "client"))
    data = os.urandom(3 << 20)
    submit = m.Submit("fc-1", "ap-1/g", "remote", 0, 1, True, buffers=m.Buffers(0, 77, len(data)))
    await client.send(m.Piece(), payload=data[:1000])
    await client.send(m.DescribeServer(1))  # may stand between
    await client.send(m.Piece(), payload=data[1000:])
    await client.send(submit, payload=b"beside")
    assert (await client.expect(m.Release))[0].descriptor == 77
    container = await here.container(await here.started("ap-1/g"))
    assign, payload = await container.expect(m.Assign)
    assert assign.buffers is not None and payload == b"beside"
    block = Block.adopt(assign.buffers)
    await container.send(m.Results(assign.range, 0, 1, 0.0, 0.0, block.buffers), payload=b"out")
    pieces = b""
    while frame := await client.receive():
        message, came = frame
        if isinstance(message, m.Piece):
            pieces += came
        elif isinstance(message, m.Outputs):
            break
    assert isinstance(message, m.Outputs) and message.buffers is not None
    assert (message.buffers.process, message.buffers.size) == (0, len(data))
    assert (pieces, came) == (data, b"out")
    block.close()


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2),
    reason="the loop of this asyncio holds whatever it is given (CVE-2024-12254); that of a server does not",
)
async def test_a_slow_reader_of_a_block_is_waited_for(here: Stage) -> None:
    """The block stays where it is: only as much of it as the socket takes is ever copied."""
    client = await here.remote(token(here, "client"))
    await client.send(m.Submit("fc-1", "ap-1/g", "remote", 0, 1, True))
    container = await here.container(await here.started("ap-1/g"))
    assign, _ = await container.expect(m.Assign)
    block = Block.copy([bytes(64 << 20)])
    await container.send(m.Results(assign.range, 0, 1, 0.0, 0.0, block.buffers))
    await container.expect(m.Release)
    block.close()
    connection = next(iter(here.front._connections)) if here.front else None
    assert connection is not None and connection.unread > 32 << 20
    assert connection._transport is not None and connection._transport.get_write_buffer_size() < 8 << 20
    outputs, _ = await client.expect(m.Outputs)
    assert outputs.buffers is not None and outputs.buffers.size == 64 << 20


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (
            "does not pass over a network",
            m.Submit("fc-1", "ap-1/f", "map", 0, 1, False, buffers=m.Buffers(PID, 1, 5)),
        ),
        ("0 came", m.Submit("fc-1", "ap-1/f", "map", 0, 1, False, buffers=m.Buffers(0, 1, 5))),
        ("a block is of 1 to", m.Piece()),
    ],
)
async def test_a_block_that_is_none(here: Stage, reason: str, message: m.Message) -> None:
    client = await here.remote(token(here, "client"))
    await client.send(message)
    assert reason in await client.dismissed()


async def test_no_piece_without_a_right_to_send_it(here: Stage) -> None:
    reader = await here.remote(token(here, "read"))
    await reader.send(m.Piece(), payload=b"x")
    assert "Piece" in await reader.dismissed()


async def test_half_a_block_is_let_go(here: Stage) -> None:
    client = await here.remote(token(here, "client"))
    await client.send(m.DescribeServer(1))
    await client.expect(m.ServerDescribed)
    before = len(os.listdir("/proc/self/fd"))
    await client.send(m.Piece(), m.DescribeServer(2), payload=b"x" * 10)
    client.close()
    assert here.front is not None
    await here.until(lambda: not any(one.is_open for one in here.front._connections))  # type: ignore[union-attr]
    await here.until(lambda: len(os.listdir("/proc/self/fd")) == before - 2)


async def test_who_is_sent_away_hears_why_whatever_it_has_sent(here: Stage) -> None:
    """A stream that is closed with something unread is reset, and what was said last is lost with it."""
    for _ in range(20):
        stranger = await here.remote(None)
        await stranger.send_bytes(encode(m.Hello(m.PROTOCOL, "client", "wrong", PID)) + bytes(60_000))
        await asyncio.sleep(0)
        await stranger.send_bytes(bytes(200_000))
        assert await stranger.dismissed() == "the token is not valid here"


async def test_another_protocol_is_told_so_whatever_comes_with_it(here: Stage) -> None:
    stranger = await here.remote(None)
    await stranger.send_bytes(encode(m.Hello(99, "client", "", PID)) + b"\x09\0\0\0\x05\0\0\0\x93\xcc\xf0ab")
    assert "you speak protocol 99, this server speaks 2" in await stranger.dismissed()


# -- slow peers ------------------------------------------------------------------------------------


async def test_a_frame_that_does_not_come_on(here: Stage, caplog: pytest.LogCaptureFixture) -> None:
    slow, stuck = await here.remote(token(here, "client")), await here.neighbour()
    frame = encode(m.Submit("fc-1", "ap-1/f", "map", 0, 1, True), bytes(1000))
    for peer in (slow, stuck):
        await peer.send_bytes(frame[:500])
        await peer.send_bytes(b"")
    await arrived(here, slow, stuck)
    here.clock.advance(connections.FRAME_SECONDS - 1)
    await slow.send_bytes(frame[500:600])
    await arrived(here, slow)
    here.clock.advance(2)
    assert "bytes of a frame came, and in 30 seconds none" in await stuck.dismissed()
    assert "in 30 seconds none" in caplog.text
    await slow.send_bytes(frame[600:])
    await slow.send(m.DescribeServer(1))
    await slow.expect(m.ServerDescribed)


async def arrived(here: Stage, *peers: Peer) -> None:
    """Let the server read what the peers have sent: what another sends after it is answered."""
    for _ in peers:
        for one in (await here.neighbour(), await here.remote(token(here, "read"))):
            await one.send(m.DescribeServer(1))
            await one.expect(m.ServerDescribed)
