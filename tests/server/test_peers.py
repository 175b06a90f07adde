"""What peers may not say, and who may not speak: each is sent away with the reason, and nobody else notices."""

import os
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from upswell.capacity import Capacity
from upswell.operations import QueueGet, QueuePut
from upswell.server import connections, objects, runtime
from upswell.spec import AutoscalerSettings, FunctionSpec, Gpu, Resources
from upswell.wire import messages as m
from upswell.wire.buffers import Block
from upswell.wire.codec import encode

from .stage import Stage, record, stage

ERROR = m.ErrorRecord("user", "builtins.ValueError", "no", "")
PID = os.getpid()


def submit(call: str = "fc-1", function: str = "ap-1/f", first: int = 0, count: int = 1, **more: object) -> m.Submit:
    return m.Submit(call, function, more.pop("kind", "map"), first, count, bool(more.pop("last", False)), **more)  # type: ignore[arg-type]


@pytest.fixture
async def here(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A server with the functions f, which has a container, and g."""

    def fail() -> None:
        raise  # what a peer says must never get here; the traceback is the test's

    monkeypatch.setattr(runtime, "give_up", fail)
    monkeypatch.setattr(objects, "give_up", fail)
    async with stage() as on_stage:
        await on_stage.client.send(
            m.OpenApp("ap-1", "app", [record("f", settings=AutoscalerSettings(min_containers=1)), record("g")])
        )
        await on_stage.has_taken_all()
        yield on_stage


async def works(here: Stage) -> bool:
    """Whether an honest client and an honest container still get a call done."""
    await here.client.send(submit("fc-honest", "ap-1/g", last=True), payload=b"in")
    container = await here.container(await here.started("ap-1/g"))
    assign, given = await container.expect(m.Assign)
    await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001), payload=given + b" and out")
    outputs, payload = await here.client.expect(m.Outputs)
    container.close()
    return (outputs.call, payload) == ("fc-honest", b"in and out")


FROM_CLIENTS: list[tuple[str, list[m.Message]]] = [
    ("a client does not send Ready", [m.Ready()]),
    ("a client does not send Results", [m.Results(0, 0, 1, 0.0, 0.0)]),
    ("a client does not send Hello", [m.Hello(m.PROTOCOL, "client", "", PID)]),
    ("a client does not send Outputs", [m.Outputs("fc-1", 0, 1)]),
    ("their count from 1 to", [submit(count=0)]),
    ("their count from 1 to", [submit(kind="spawn", count=0)]),
    ("their count from 1 to", [submit(kind="spawn", first=5, count=0, last=True)]),
    ("their count from 1 to", [submit(count=-3)]),
    ("their count from 1 to", [submit(count=1 << 40)]),
    ("the first input must be", [submit(first=-1)]),
    ("the first input must be", [submit(first=1 << 50)]),
    ("no call id", [submit("")]),
    ("no call id", [submit("fc-\n")]),
    ("no call id", [submit("x" * 1000)]),
    ("has its input 0 already", [submit(count=5), submit(count=5)]),
    ("has its input 4 already", [submit(count=5), submit(first=4)]),
    ("ended with 5 inputs", [submit(count=5, last=True), submit(first=5)]),
    ("is a map of ap-1/f, not a spawn of ap-1/f", [submit(), submit(first=1, kind="spawn")]),
    ("is a map of ap-1/f, not a map of ap-1/g", [submit(), submit(function="ap-1/g", first=1)]),
    ("total must be", [m.EndInputs("fc-1", -1)]),
    ("has 5 inputs already, not 3", [submit(count=5), m.EndInputs("fc-1", 3)]),
    ("ended with 5 inputs, not 6", [submit(count=5, last=True), m.EndInputs("fc-1", 6)]),
    ("first must be", [m.Collect("fc-1", -1, 3)]),
    ("stop must be", [m.Collect("fc-1", 0, -2)]),
    ("request must be", [m.Inquire(-1, "ap-1/f")]),
    ("inf is no span of seconds", [m.UseObject(1, "qu-1", QueueGet("", 1, float("inf")))]),
    ("inf is no span of seconds", [m.UseObject(1, "qu-1", QueuePut("", float("inf")))]),
    ("values of other sizes", [m.UseObject(1, "qu-1", QueuePut("", 1.0), (5,))]),
    ("ap-1 is open already", [m.OpenApp("ap-1", "app", [])]),
    ("does not belong to the app ap-2", [m.OpenApp("ap-2", "app", [record("f", "ap-1")])]),
    ("declared twice", [m.OpenApp("ap-2", "app", [record("f", "ap-2"), record("f", "ap-2")])]),
    ("ap-1 belongs to another", [m.CloseApp("ap-1")]),
    ("has a slash", [m.OpenApp("ap-1/f", "app", [])]),
    ("shared memory of process 1 from", [submit(buffers=m.Buffers(1, 3, 10))]),
    ("took its shared memory with it", [submit(buffers=m.Buffers(PID, 1 << 20, 10))]),
    ("no block of shared memory", [submit(buffers=m.Buffers(PID, 0, 10))]),
    ("size of shared memory must be", [submit(buffers=m.Buffers(PID, 3, -1))]),
]  # fmt: skip

FROM_CONTAINERS: list[tuple[str, m.Message]] = [
    ("a container does not send Submit", submit()),
    ("a container does not send OpenApp", m.OpenApp("ap-2", "", [])),
    ("a container does not send Hello", m.Hello(m.PROTOCOL, "container", "", PID)),
    ("a container does not send Load", m.Load(record("f"))),
    ("their count from 1 to", m.Results(0, 0, 0, 0.0, 0.0)),
    ("their count from 1 to", m.Results(0, 0, -1, 0.0, 0.0)),
    ("the first input must be", m.Results(0, -1, 1, 0.0, 0.0)),
    ("range must be", m.Results(-1, 0, 1, 0.0, 0.0)),
    ("nan is no span of seconds", m.Results(0, 0, 1, float("nan"), 0.0)),
    ("inf is no span of seconds", m.Results(0, 0, 1, 0.0, float("inf"))),
    ("-1.0 is no span of seconds", m.Failure(0, 0, -1.0, 0.0, ERROR)),
    ("position must be", m.Failure(0, -1, 0.0, 0.0, ERROR)),
    ("text of an error", m.Failure(0, 0, 0.0, 0.0, m.ErrorRecord("user", "", "x" * (2 << 20)))),
    ("stop must be", m.Returned(0, -1)),
    ("range must be", m.Suspended(-1)),
    ("range must be", m.Resumed(1 << 63)),
    ("shared memory of process 1 from", m.Results(0, 0, 1, 0.0, 0.0, m.Buffers(1, 3, 10))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "messages"), FROM_CLIENTS)
async def test_a_client_that_breaks_a_rule(here: Stage, reason: str, messages: list[m.Message]) -> None:
    client = await here.client_inside(await here.started("ap-1/f"))
    await client.send(*messages)
    assert reason in await client.dismissed()
    assert await works(here)


@pytest.mark.parametrize(("reason", "message"), FROM_CONTAINERS)
async def test_a_container_that_breaks_a_rule_is_killed(here: Stage, reason: str, message: m.Message) -> None:
    name = await here.started("ap-1/f")
    container = await here.container(name)
    await container.send(message)
    assert reason in await container.dismissed()
    await here.until(lambda: name in here.engine.killed)
    assert await works(here)


async def test_last_words_are_heard_also_where_the_server_was_about_to_say_something(here: Stage) -> None:
    name = await here.started("ap-1/f")
    container = await here.container(name)
    await here.client.send(submit(last=True))
    assign, _ = await container.expect(m.Assign)
    connection = here.server._services.dispatcher.containers[name].connection
    assert connection is not None
    container.stream.send(encode(m.Results(assign.range, 0, 1, 0.001, 0.001), b"out"))
    container.close()
    connection.send(m.Forget("fc-1", 0))  # before the loop can see that there is something to read
    outputs, payload = await here.client.expect(m.Outputs)
    assert (outputs.first, outputs.count, payload) == (0, 1, b"out")
    await here.until(lambda: name in here.engine.killed)


LATE: list[m.Message] = [
    m.Results(99, 0, 1, 0.0, 0.0),
    m.Failure(99, 0, 0.0, 0.0, ERROR, fatal=False),
    m.Returned(99, 0),
    m.Returned(99, 1 << 62),
    m.Suspended(99),
    m.Resumed(99),
    m.Ready(),
    m.StartFailed(ERROR),
    m.Release(12345),
    m.Bye("so long"),
]


async def test_what_is_late_changes_nothing(here: Stage) -> None:
    container = await here.container(await here.started("ap-1/f"))
    await container.send(*LATE)
    await here.client.send(submit(count=3, last=True))
    assign, _ = await container.expect(m.Assign)
    late = [
        m.Results(assign.range, assign.start + 1, 1, 0.0, 0.0),
        m.Results(assign.range, assign.start, 1000, 0.0, 0.0),
        m.Results(assign.range, assign.stop, 1, 0.0, 0.0),
        m.Failure(assign.range, assign.stop + 5, 0.0, 0.0, ERROR),
    ]
    await container.send(*late)
    await container.send(m.Results(assign.range, assign.start, 1, 0.0, 0.0), payload=b"right")
    outputs, payload = await here.client.expect(m.Outputs)
    assert (outputs.first, outputs.count, payload) == (0, 1, b"right")
    assert await works(here)


async def test_calls_of_others(here: Stage) -> None:
    await here.client.send(submit(count=3))
    await here.has_taken_all()
    name = await here.started("ap-1/f")
    for message in (submit(first=3), m.EndInputs("fc-1", 3)):
        client = await here.client_inside(name)
        await client.send(message)
        assert "fc-1 belongs to another connection" in await client.dismissed()
    client = await here.client_inside(name)
    await client.send(m.EndInputs("fc-none", 3), m.Cancel("fc-none"), m.Uncollect("fc-none"), m.Watch("ap-none"))
    await client.send(m.Collect("fc-none", 0, -1), m.Collect("fc-1", 0, -1), m.CloseApp("ap-none"))
    await client.send(submit("fc-2", "ap-none/f"))
    await client.expect(m.AppClosed)
    refused, _ = await client.expect(m.Refused)
    assert (refused.call, refused.error.kind) == ("fc-2", "missing")
    assert await works(here)


@pytest.mark.parametrize(
    ("reason", "hello"),
    [
        ("first frame must be Hello, not Ready", m.Ready()),
        ("first frame must be Hello, not Release", m.Release(3)),
        ("you speak protocol 99", m.Hello(99, "client", "", PID)),
        ("it shows no token", m.Hello(m.PROTOCOL, "client", "", PID)),
        ("token is not valid", m.Hello(m.PROTOCOL, "container", "co-none.abc", PID)),
        ("token is not valid", m.Hello(m.PROTOCOL, "container", "NAME", PID)),
        ("token is not valid", m.Hello(m.PROTOCOL, "container", "NAME.", PID)),
        ("token is not valid", m.Hello(m.PROTOCOL, "container", "NAME.é", PID)),
        ("token is not valid", m.Hello(m.PROTOCOL, "client", "NAME." + "0" * 32, PID)),
    ],
)
async def test_strangers(here: Stage, reason: str, hello: m.Message) -> None:
    name = await here.started("ap-1/f")
    if isinstance(hello, m.Hello):
        hello = m.Hello(hello.protocol, hello.role, hello.token.replace("NAME", name), PID)
    stranger = await here.stranger()
    await stranger.send(hello)
    assert reason in await stranger.dismissed()


async def test_a_container_that_knows_what_it_is_for_is_not_told(here: Stage) -> None:
    name = await here.started("ap-1/f")
    container = await here.stranger()
    await container.send(m.Hello(m.PROTOCOL, "container", here.engine.tokens[name], PID, loaded=True))
    await container.send(m.Ready())
    await here.client.send(submit(last=True))
    await container.expect(m.Assign)


async def test_a_container_has_one_connection(here: Stage) -> None:
    name = await here.started("ap-1/f")
    container = await here.container(name)
    second = await here.stranger()
    await second.send(m.Hello(m.PROTOCOL, "container", here.engine.tokens[name], PID))
    assert "token is not valid" in await second.dismissed()
    await here.client.send(submit(last=True))
    await container.expect(m.Assign)


async def test_a_token_dies_with_its_container(here: Stage) -> None:
    name = await here.started("ap-1/f")
    token = here.engine.tokens[name]
    here.engine.end(name, 1)
    stranger = await here.stranger()
    await stranger.send(m.Hello(m.PROTOCOL, "client", token, PID))
    assert "token is not valid" in await stranger.dismissed()


async def test_who_says_nothing_is_sent_away(here: Stage) -> None:
    stranger = await here.stranger()
    await stranger.send_bytes(b"\0")
    half = await here.stranger()
    await half.send_bytes(encode(m.Hello(m.PROTOCOL, "client", "", PID))[:-1])
    await here.has_taken_all()  # by now the others are connected
    here.clock.advance(connections.HELLO_SECONDS + 0.1)
    assert "no Hello within 5 seconds" in await stranger.dismissed()
    assert "no Hello within 5 seconds" in await half.dismissed()
    await here.has_taken_all()


async def test_who_is_not_greeted_can_not_fill_memory(here: Stage) -> None:
    stranger = await here.stranger()
    length = 100 << 20
    await stranger.send_bytes(length.to_bytes(4, "little") + bytes(connections.MAX_HELLO_BYTES))
    assert "so it is no Hello" in await stranger.dismissed()


async def test_who_does_not_read_why_is_cut_off(here: Stage, caplog: pytest.LogCaptureFixture) -> None:
    name = await here.started("ap-1/f")
    container = await here.container(name)
    await here.client.send(submit(last=True), payload=bytes(2 << 20))  # more than the socket holds
    await here.has_taken_all()
    await container.send(m.Returned(0, -1))
    await here.until(lambda: "stop must be" in caplog.text)
    assert name not in here.engine.killed
    here.clock.advance(connections.FAREWELL_SECONDS + 0.1)
    await here.until(lambda: name in here.engine.killed)
    assert await works(here)


async def test_a_container_that_waits_for_room_is_told_of(here: Stage) -> None:
    name = await here.started("ap-1/f")
    here.engine.delay(name, "no node has cpu=8")
    log, _ = await here.client.expect(m.Log)
    assert (log.function, log.stream, log.text) == ("f", 2, "no node has cpu=8\n")
    await here.container(name)
    assert await works(here), "and starts when there is some"


async def test_who_must_have_more_than_there_is_room_for_is_told_and_gets_it_when_there_is(here: Stage) -> None:
    one_gpu = FunctionSpec(settings=AutoscalerSettings(min_containers=2), resources=Resources(gpus=(Gpu("T4"), Gpu())))
    here.engine.grow(Capacity(2.0, 1 << 40, gpus={"": 1, "T4": 1}))
    await here.client.send(m.OpenApp("ap-2", "app", [structs.replace(record("h", "ap-2"), spec=one_gpu)]))
    await here.has_taken_all()
    await here.started("ap-2/h")
    here.clock.advance(5.1)
    log, _ = await here.client.expect(m.Log)
    words = (
        "there is room for 1 of its containers, and there should be 2: each asks for gpu=T4 or any, and free are 0 of"
    )
    assert (log.function, log.container, log.stream) == ("h", "", 0) and words in log.text
    here.engine.grow(Capacity(4.0, 1 << 40, gpus={"": 2, "T4": 1, "L4": 1}))
    await here.until(lambda: list(here.engine.functions.values()).count("ap-2/h") == 2)
    given = [function.spec.resources.gpus for function in here.engine.records if function.id == "ap-2/h"]
    assert given == [(Gpu("T4"),), (Gpu(),)], "each has one of the alternatives"


async def test_shared_memory_that_nobody_wants_is_let_go(here: Stage) -> None:
    container = await here.container(await here.started("ap-1/f"))
    open_before = len(os.listdir("/proc/self/fd"))
    block = Block.write([])
    await container.send(m.Results(99, 0, 1, 0.0, 0.0, block.buffers))
    release, _ = await container.expect(m.Release)
    assert release.descriptor == block.buffers.descriptor
    block.close()
    assert len(os.listdir("/proc/self/fd")) == open_before


async def test_what_is_refused_is_forgotten(here: Stage) -> None:
    for number in range(50):
        await here.client.send(submit(f"fc-{number}", "ap-1/none"))
        await here.client.expect(m.Refused)
    assert not here.server._services.dispatcher.calls


async def test_a_declaration_that_is_not_valid(here: Stage) -> None:
    client = await here.client_inside(await here.started("ap-1/f"))
    good = encode(m.OpenApp("ap-2", "", [record("f", "ap-2", AutoscalerSettings(min_containers=7))]))
    bad = good.replace(b"\xaemin_containers\x07", b"\xaemin_containers\xff")
    assert bad != good
    await client.send_bytes(bad)
    assert "min_containers must be at least 0" in await client.dismissed()
