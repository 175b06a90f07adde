"""What an engine with a home owes when its process is killed: the next one goes on with its containers, or nothing is
left of them.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import msgspec
import psutil
import pytest
from msgspec.structs import replace

from tests.pretended import PretendedCluster, pretend
from upswell.engine import Engine
from upswell.engines import local, succession
from upswell.engines.local import LocalEngine
from upswell.engines.ray import engine as ray_engine
from upswell.engines.ray.engine import Cluster, RayEngine
from upswell.engines.spawn import SpawnEngine
from upswell.spec import FunctionRecord, FunctionSpec, Gpu, Resources

from .home import PATIENCE_SECONDS, Container, Home, ended, soon
from .test_engines import SEEN

ENGINES: dict[str, Callable[..., Engine]] = {"local": LocalEngine, "spawn": SpawnEngine}
LONG_SECONDS, SHORT_SECONDS = 60.0, 0.2

ECHO = """
    @app.function()
    def echo(x):
        print("ran", x, flush=True)
        return x

    @app.function()
    def end(x):
        os._exit(7)
"""


class Scene:
    """Engines of one home, one after the other; those before the last are processes that are killed."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.folder = folder
        self.kind = kind
        self.cluster = PretendedCluster(folder / "cluster", 3) if kind == "pretended" else None
        engine = ENGINES[kind](home=folder, rejoin_seconds=LONG_SECONDS) if kind in ENGINES else None
        self.home = Home(cast(Engine, engine), folder)
        self.processes: list[asyncio.subprocess.Process] = []

    async def first_engine(
        self, function: FunctionRecord, containers: int, seconds: float = LONG_SECONDS
    ) -> tuple[list[str], list[Container]]:
        """Containers that were started by an engine in a process of its own."""
        record = self.folder / "record"
        record.write_bytes(msgspec.msgpack.encode(function))
        expected = [self.home.expect(function) for _ in range(containers)]
        said = await self.run_engine(record, seconds, *(word for pair in expected for word in pair))
        assert said == []
        names = [name for name, _ in expected]
        return names, [await self.home.container(name) for name in names]

    async def open_engine(self) -> None:
        """Open the last one. That on a cluster asks as it is made what an earlier one has left."""
        if self.cluster is not None:
            settings = Cluster(address=self.cluster.address, prefix="test-")
            self.home.engine = RayEngine(settings, None, self.folder, LONG_SECONDS)
        await self.home.open_engine()

    async def run_engine(self, record: Path, seconds: float, *containers: str) -> list[str]:
        """What the engine of another process has found."""
        program = str(Path(__file__).with_name("first_engine.py"))
        kind = self.kind if self.cluster is None else self.cluster.address
        arguments = [str(self.folder), str(seconds), self.home.address, kind, str(record), *containers]
        process = await asyncio.create_subprocess_exec(
            sys.executable, program, *arguments, stdout=asyncio.subprocess.PIPE
        )
        self.processes.append(process)
        assert process.stdout is not None
        word, *found = (await soon(process.stdout.readline())).decode().split()
        assert word == "found"
        return found

    async def kill_engine(self) -> None:
        self.processes[-1].kill()
        await soon(self.processes[-1].wait())

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier engine has left is waited for as long as a busy machine keeps it from answering."""
    monkeypatch.setattr(succession, "CALL_SECONDS", PATIENCE_SECONDS / 2)
    monkeypatch.setattr(local, "INVENTORY_SECONDS", PATIENCE_SECONDS / 2)
    monkeypatch.setattr(ray_engine, "RETURN_SECONDS", PATIENCE_SECONDS / 2)


@pytest.fixture(params=[*ENGINES, "pretended"])
async def scene(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    before = set(psutil.Process().children(recursive=True))
    if request.param == "pretended":
        pretend(monkeypatch)
    one = Scene(request.param, tmp_path)
    await one.home.listen()
    yield one
    await one.close()
    await one.home.close()
    if one.cluster is not None:
        for process in one.cluster.processes():
            await ended(process.pid)
        one.cluster.close()
    assert set(psutil.Process().children(recursive=True)) == before, "close() leaves nothing"
    names = [report.container for report in one.home.exits]
    assert len(names) == len(set(names)), "each exit is reported once"


def family(container: Container) -> tuple[int, int]:
    """Its zygote and their root."""
    zygote = psutil.Process(container.process).parent()
    assert zygote is not None
    return zygote.pid, zygote.ppid()


async def test_the_next_engine_goes_on(scene: Scene) -> None:
    home, function = scene.home, scene.home.function("echo", ECHO)
    names, containers = await scene.first_engine(function, 3)
    zygote, root = family(containers[0])
    await scene.kill_engine()
    assert await containers[0].run("between") == "between"
    await scene.open_engine()
    assert [(one.container, one.function, one.version) for one in home.found] == [
        (name, function.id, 3) for name in names
    ]
    await home.until(lambda: home.text(names[0], 1) == "ran between\n")
    await home.measured(home.engine.cpu_seconds, names[1])
    home.engine.kill(names[1])
    assert (await home.exit_of(names[1])).status == -9
    assert await containers[2].run("after") == "after"
    _, fresh = await home.started(function)
    assert await fresh.run("more") == "more"
    assert family(fresh) == (zygote, root), "the imports are not done again"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")


@pytest.mark.parametrize("scene", ENGINES, indirect=True)  # nodes of the other have no GPUs
async def test_gpus_stay_with_who_has_them(two_gpus: None, scene: Scene) -> None:
    one_gpu = FunctionSpec(resources=Resources(gpus=(Gpu(),)))
    home, function = scene.home, replace(scene.home.function("seen", SEEN), spec=one_gpu)
    (name,), (container,) = await scene.first_engine(function, 1)
    await scene.kill_engine()
    await scene.open_engine()
    _, other = await home.started(function)
    assert [await one.run() for one in (container, other)] == ["4", "6"]
    home.engine.kill(name)
    await home.exit_of(name)
    _, fresh = await home.started(function)
    assert await fresh.run() == "4"


async def test_it_can_be_killed_again(scene: Scene) -> None:
    names, containers = await scene.first_engine(scene.home.function("echo", ECHO), 2)
    await scene.kill_engine()
    assert await scene.run_engine(scene.folder / "record", LONG_SECONDS) == names
    await scene.kill_engine()
    await scene.open_engine()
    assert [one.container for one in scene.home.found] == names
    assert await containers[1].run(1) == 1


async def test_what_ends_meanwhile_is_not_there(scene: Scene) -> None:
    home = scene.home
    names, containers = await scene.first_engine(home.function("end", ECHO), 2)
    await scene.kill_engine()
    containers[0].begin()
    await ended(containers[0].process)
    await scene.open_engine()
    assert [one.container for one in home.found] == names[1:]
    containers[1].begin()
    assert (await home.exit_of(names[1])).status == 7
    assert [one.container for one in home.exits] == names[1:]


async def test_no_engine_comes(scene: Scene) -> None:
    home, function = scene.home, scene.home.function("echo", ECHO)
    _, containers = await scene.first_engine(function, 2, SHORT_SECONDS)
    processes = [container.process for container in containers] + list(family(containers[0]))
    await scene.kill_engine()
    for process in processes:
        await ended(process)
    await scene.open_engine()
    assert home.found == []
    _, container = await home.started(function)
    assert await container.run("late") == "late"


async def test_an_orderly_end_leaves_nothing(scene: Scene) -> None:
    home = scene.home
    names, containers = await scene.first_engine(home.function("echo", ECHO), 2)
    processes = [container.process for container in containers] + list(family(containers[0]))
    await scene.kill_engine()
    await scene.open_engine()
    await home.engine.close()
    assert not any(psutil.pid_exists(process) for process in processes[:2])
    for process in processes[2:]:
        await ended(process)  # the root is nobody's child that we could wait for
    assert sorted(one.container for one in home.exits) == names
    home.engine.close = _nothing  # type: ignore[method-assign]


@pytest.mark.parametrize("which", [0, 1], ids=["zygote", "root"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
async def test_a_zygote_is_killed_too(scene: Scene, which: int, first: bool) -> None:
    home, function = scene.home, scene.home.function("echo", ECHO)
    _, containers = await scene.first_engine(function, 2)
    victim = family(containers[0])[which]
    if first:
        os.kill(victim, 9)
    await scene.kill_engine()
    if not first:
        os.kill(victim, 9)
    for process in [containers[0].process, containers[1].process, victim]:
        await ended(process)
    await scene.open_engine()
    assert home.found == []
    name, container = await home.started(function)
    assert await container.run("again") == "again"
    home.engine.kill(name)
    await home.exit_of(name)
    assert [one.container for one in home.exits] == [name], "the others were nobody's any more"


async def _nothing() -> None:
    """It is closed already."""


async def test_a_zygote_that_nobody_needs_ends_and_comes_again(tmp_path: Path) -> None:
    engine = LocalEngine(home=tmp_path)
    engine._unused_seconds = 0.05
    home = Home(engine, tmp_path)
    await home.open()
    function = home.function("end", ECHO)
    name, container = await home.started(function)
    zygote = psutil.Process(container.process).parent()
    assert zygote is not None
    assert zygote.is_running(), "it has a container"
    engine.kill(name)
    await home.exit_of(name)
    await soon(asyncio.to_thread(zygote.wait))
    _, again = await home.started(function)
    assert psutil.Process(again.process).ppid() != zygote.pid
    await home.close()
