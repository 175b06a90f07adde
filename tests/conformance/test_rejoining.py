"""What a container says that loses its server and finds the next one: here the test is both."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from upswell.container import link
from upswell.engine import Engine
from upswell.engines.local import LocalEngine
from upswell.engines.spawn import SpawnEngine
from upswell.spec import Concurrency
from upswell.wire import messages as m
from upswell.wire.payload import BARE, pack, unpack

from .home import Container, Home, soon

ENGINES: dict[str, Callable[..., Engine]] = {"local": LocalEngine, "spawn": SpawnEngine}

CODE = """
    def await_word(x):
        print("begun", x, flush=True)
        while not os.path.exists(f"go-{x}"):
            time.sleep(0.002)

    @app.function()
    def wait(x):
        await_word(x)
        return x

    @app.function()
    def fail(x):
        await_word(x)
        raise ValueError(x)

    @app.function()
    def inflate(x):
        await_word(x)
        return bytes([x]) * 3000

    @app.function()
    def count(x):
        for number in range(x):
            yield number
        await_word(x)
        yield "end"
"""


class Scene:
    """A container, and what it is told and says."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.container: Container
        self.name = ""

    async def start(self, function: str, **concurrency: int) -> str:
        record = self.home.function(function, CODE, concurrency=Concurrency(**concurrency))
        self.name, self.container = await self.home.started(record)
        return self.name

    def assign(self, number: int, inputs: list[Any], *, batch: int = 0, left: int = 0) -> None:
        """Hand it a range of a call of its own."""
        assign = m.Assign(number, f"fc-{number}", 0, len(inputs), 0, len(inputs), batch=batch, left=left)
        self.container.send(assign, pack(inputs, shape=BARE).data)

    def assign_together(self, *ranges: list[Any]) -> None:
        """Hand it ranges with numbers from 1: once one of them has begun, it has them all."""
        frames = [
            (m.Assign(number, f"fc-{number}", 0, len(inputs), 0, len(inputs)), pack(inputs, shape=BARE).data)
            for number, inputs in enumerate(ranges, 1)
        ]
        self.container.send_together(frames)

    def go(self, x: int) -> None:
        """Let the input end."""
        (self.folder / f"go-{x}").touch()

    async def begun(self, x: int) -> None:
        await self.home.until(lambda: self.has_begun(x))

    def has_begun(self, x: int) -> bool:
        return f"begun {x}\n" in self.home.text(self.name, 1)

    async def hear(self, count: int) -> list[m.Message]:
        """The next messages."""
        return [(await soon(self.container.receive()))[0] for _ in range(count)]

    async def return_(self) -> list[m.Holding]:
        """Come back as another server; what the container says that it holds."""
        await self.home.listen()
        self.container = await soon(self.home.returned.get())
        (rejoin,) = await self.hear(1)
        assert isinstance(rejoin, m.Rejoin)
        return rejoin.ranges


@pytest.fixture(params=ENGINES)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    home = Home(ENGINES[request.param](home=tmp_path, rejoin_seconds=30.0), tmp_path)
    await home.open()
    yield Scene(home, tmp_path)
    await home.close()


async def test_what_ran_meanwhile_is_told(scene: Scene) -> None:
    await scene.start("wait")
    process = scene.container.process
    scene.assign(7, [1])
    await scene.begun(1)
    await scene.home.vanish()
    scene.go(1)
    assert await scene.return_() == [m.Holding(7, "fc-7", 0, 0, 1)]
    (results,) = await scene.hear(1)
    assert isinstance(results, m.Results)
    assert (results.range, results.start, results.count) == (7, 0, 1)
    assert scene.container.process == process
    assert await scene.container.run(1) == 1, "it serves on"


async def test_what_is_done_with_is_not_told_again(scene: Scene) -> None:
    await scene.start("wait")
    for x in range(6):
        scene.go(x)
    scene.assign(1, [0])
    scene.assign(2, [1])
    scene.assign(3, [2])
    told = await scene.hear(3)
    scene.container.send(m.Processed(2))
    scene.assign(4, [3])
    told += await scene.hear(1)  # so it has heard of that
    await scene.home.vanish()
    held = await scene.return_()
    assert [(one.range, one.next, one.stop) for one in held] == [(3, 0, 1), (4, 0, 1)]
    assert await scene.hear(2) == told[2:]
    scene.container.send(m.Processed(1))
    scene.assign(5, [4])
    told = await scene.hear(1)
    await scene.home.vanish()
    assert [one.range for one in await scene.return_()] == [4, 5]
    assert [message.range for message in await scene.hear(2)] == [4, 5]  # type: ignore[attr-defined]


async def test_a_range_that_is_half_done(scene: Scene) -> None:
    await scene.start("wait")
    scene.go(1)
    scene.assign(1, [1, 2, 3])
    await scene.begun(2)
    (first,) = await scene.hear(1)
    assert isinstance(first, m.Results) and first.count == 1
    scene.container.send(m.Processed(1), b"")
    scene.container.send(m.TakeBack(1))
    assert await scene.hear(1) == [m.Returned(1, 2)]
    await scene.home.vanish()
    assert await scene.return_() == [m.Holding(1, "fc-1", 0, 1, 2)]
    scene.go(2)
    (second,) = await scene.hear(1)
    assert isinstance(second, m.Results) and (second.start, second.count) == (1, 1)


async def test_a_failure_is_told_again(scene: Scene) -> None:
    await scene.start("fail")
    scene.assign(1, [1])
    await scene.begun(1)
    await scene.home.vanish()
    scene.go(1)
    await scene.return_()
    (failure,) = await scene.hear(1)
    assert isinstance(failure, m.Failure) and failure.error.message == "1"


async def test_what_nobody_wants_ends(scene: Scene) -> None:
    await scene.start("wait")
    scene.assign_together([1], [2, 3])
    await scene.begun(1)
    await scene.home.vanish()
    assert [one.range for one in await scene.return_()] == [1, 2]
    scene.container.send(m.CancelRange(2))
    assert await scene.hear(1) == [m.Returned(2, 0)]
    scene.go(1)
    (results,) = await scene.hear(1)
    assert isinstance(results, m.Results) and results.range == 1


async def test_a_batch_that_will_not_be_complete(scene: Scene) -> None:
    await scene.start("wait", batch_size=2)
    scene.assign(1, [1], batch=9, left=1)
    scene.container.send(m.TakeBack(1))
    assert await scene.hear(1) == [m.Returned(1, 1)]
    await scene.home.vanish()
    assert await scene.return_() == []


async def test_chunks_are_told_again(scene: Scene) -> None:
    await scene.start("count")
    scene.assign(1, [2])
    chunks = 0
    while chunks < 2:
        (yielded,) = await scene.hear(1)
        assert isinstance(yielded, m.Yielded)
        chunks += yielded.count
    await scene.home.vanish()
    assert await scene.return_() == [m.Holding(1, "fc-1", 0, 0, 1)]
    scene.go(2)
    values: list[Any] = []
    while len(values) < 3:
        message, payload = await soon(scene.container.receive())
        assert isinstance(message, m.Yielded) and message.first == len(values)
        values += unpack(payload)
    assert values == [0, 1, "end"]


async def test_with_too_much_kept_nothing_further_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(link, "KEPT_BYTES", 2000)
    home = Home(LocalEngine(home=tmp_path, rejoin_seconds=30.0), tmp_path)
    await home.open()
    scene = Scene(home, tmp_path)
    await scene.start("inflate")
    scene.assign_together([1], [2])
    await scene.begun(1)
    await home.vanish()
    scene.go(1)
    scene.go(2)
    assert [one.range for one in await scene.return_()] == [1, 2]
    (results,) = await scene.hear(1)
    assert isinstance(results, m.Results) and results.range == 1
    assert not scene.has_begun(2)
    scene.container.send(m.Processed(1))
    (results,) = await scene.hear(1)
    assert isinstance(results, m.Results) and results.range == 2
    await home.close()


async def test_one_that_is_not_wanted_any_more_ends(scene: Scene) -> None:
    name = await scene.start("wait")
    await scene.home.vanish()
    await scene.return_()
    scene.container.send(m.Bye("the token is not valid here"))
    assert (await scene.home.exit_of(name)).status == 1


@pytest.mark.parametrize("kind", ENGINES)
async def test_nobody_comes(tmp_path: Path, kind: str) -> None:
    home = Home(ENGINES[kind](home=tmp_path, rejoin_seconds=0.3), tmp_path)
    await home.open()
    scene = Scene(home, tmp_path)
    name = await scene.start("wait")
    scene.assign(1, [1])
    await scene.begun(1)
    await home.vanish()
    assert (await home.exit_of(name)).status == 1
    await home.close()
