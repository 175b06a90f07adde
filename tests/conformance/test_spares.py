"""A spare: forked before it is asked for, named when it is, and gone when nobody needs it or its zygote has ended."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from upswell.container import control, zygote
from upswell.container.groups import where_groups_go
from upswell.engines.local import LocalEngine
from upswell.spec import Interface, Resources

from .home import Home, ended, until_seen

FUNCTIONS = """
    import resource

    @app.function()
    def square(x):
        return x * x

    @app.function()
    def hold(mebibytes):
        return len(bytearray(b"x") * (mebibytes << 20))

    @app.function()
    def whose(_):
        return app.app_id, resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY

    @app.cls()
    class Kept:
        @upswell.method()
        def get(self):
            return 1

    @app.function()
    def group(_):
        return os.getpgid(0), os.environ.get("CUDA_VISIBLE_DEVICES"), sorted(os.listdir("/proc/self/fd"))
"""


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    monkeypatch.setattr(zygote, "SPARE_SECONDS", 3600.0)  # of the zygotes that are forked from here
    at_home = Home(LocalEngine(), tmp_path)
    await at_home.open()
    yield at_home
    left = set(psutil.Process().children(recursive=True))
    await at_home.close()
    assert not [process for process in left if process.is_running()], "close() leaves nothing"


async def spare_beside(process: int) -> psutil.Process:
    """The spare of the zygote that has forked this container, and no other."""
    parent = psutil.Process(process).parent()
    assert parent is not None

    (spare,) = await until_seen(lambda: [child for child in parent.children() if child.pid != process])
    return spare


async def test_one_is_there_before_the_first_launch_and_knows_what_is_declared(home: Home) -> None:
    function = home.function("square", FUNCTIONS)
    home.engine.prepare(function)

    def spares() -> list[psutil.Process]:
        zygotes = [zygote for root in psutil.Process().children() for zygote in root.children()]
        return [spare for zygote in zygotes for spare in zygote.children()]

    (spare,) = await until_seen(spares)
    _, container = await home.started(function)
    assert container.process == spare.pid and container.loaded
    assert await container.run(3) == 9


async def test_a_spare_becomes_the_next_container_of_its_environment(home: Home) -> None:
    function = home.function("square", FUNCTIONS)
    name, first = await home.started(function)
    spare = await spare_beside(first.process)
    _, other = await home.started(home.function("square", FUNCTIONS))
    assert other.process != spare.pid, "another module is another zygote's"
    home.engine.kill(name)
    await home.exit_of(name)
    _, second = await home.started(function)
    assert second.process == spare.pid and await second.run(3) == 9


async def test_it_is_what_any_container_is(home: Home) -> None:
    function = home.function("group", FUNCTIONS)
    _, first = await home.started(function)
    spare = await spare_beside(first.process)
    name, second = await home.started(function)
    assert second.process == spare.pid
    group, devices, descriptors = await second.run()
    assert (group, devices) == (second.process, None)
    assert descriptors == (await first.run())[2], "nothing is left of the time before it had a name"
    home.engine.kill(name)
    assert (await home.exit_of(name)).status == -9


async def test_what_is_launched_is_what_was_asked_for_whatever_was_before(home: Home) -> None:
    square = home.function("square", FUNCTIONS)
    whose = replace(square, id="ap-1/whose", name="whose")
    limited = replace(whose, spec=replace(whose.spec, resources=Resources(memory_mib=200)))
    elsewhere = replace(whose, id="ap-2/whose")
    kept = replace(square, id="ap-1/Kept", name="Kept", kind="class")
    _, first = await home.started(square)
    await spare_beside(first.process)  # which is made for another square, and becomes something else
    for function in (whose, square, limited, whose, elsewhere, whose, kept, square):
        _, container = await home.started(function)
        if function is square:
            assert await container.run(3) == 9
        elif function is not kept:
            app, is_limited = await container.run()
            assert (app, is_limited) == (function.id.partition("/")[0], function is limited)


async def test_a_spare_is_killed(home: Home) -> None:
    function = home.function("square", FUNCTIONS)
    _, first = await home.started(function)
    spare = await spare_beside(first.process)
    spare.kill()
    await ended(spare.pid)
    _, second = await home.started(function)
    assert second.process != spare.pid and await second.run(3) == 9
    assert not home.exits


async def test_its_zygote_is_killed(home: Home) -> None:
    name, container = await home.started(home.function("square", FUNCTIONS))
    spare = await spare_beside(container.process)
    parent = spare.parent()
    assert parent is not None
    parent.kill()
    await ended(spare.pid)
    assert "zygote" in (await home.exit_of(name)).reason
    assert len(home.exits) == 1


@pytest.mark.skipif(where_groups_go() is None, reason="no control group for memory can be made here")
async def test_its_memory_has_the_limit_of_what_it_becomes(home: Home) -> None:
    function = home.function("hold", FUNCTIONS, memory_mib=200)
    _, first = await home.started(function)
    spare = await spare_beside(first.process)
    name, second = await home.started(function)
    assert second.process == spare.pid
    assert await second.run(20) == 20 << 20
    second.begin(300)
    exit = await home.exit_of(name)
    assert exit.out_of_memory and "limit is 200 MiB" in exit.reason


async def test_what_all_containers_need_is_made_before_they_are_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "SPARE_SECONDS", 0.0)
    home = Home(LocalEngine(), tmp_path)
    await home.open()
    square = home.function("square", FUNCTIONS)
    kept = replace(square, id="ap-1/Kept", name="Kept", kind="class")  # what it is to be only it may make
    large = replace(square, interface=Interface(parameters=b"x" * control.MAX_RECORD_BYTES))
    for function, is_known in ((square, True), (kept, False), (square, True), (large, False), (square, True)):
        _, container = await home.started(function)
        assert container.loaded is is_known
        if function is not kept:
            assert await container.run(3) == 9
    await home.close()


async def test_a_pool_that_does_not_grow_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote, "SPARE_SECONDS", 0.2)
    home = Home(LocalEngine(), tmp_path)
    await home.open()
    _, container = await home.started(home.function("square", FUNCTIONS))
    parent = psutil.Process(container.process).parent()
    assert parent is not None
    over = time.monotonic() + 0.2
    while [child.pid for child in parent.children()] != [container.process] or time.monotonic() < over:
        await asyncio.sleep(0.01)
    await home.close()


async def test_containers_that_are_asked_for_together_are_what_was_asked_for_each(home: Home) -> None:
    square = home.function("square", FUNCTIONS)
    whose = replace(square, id="ap-1/whose", name="whose")
    await home.started(square)  # from now on its zygote obeys at once
    names = [home.start(function) for function in (square, square, whose, square)]
    home.engine.kill(names[1])
    names.append(home.start(whose))
    assert (await home.exit_of(names[1])).status == -9
    first, third, fourth, fifth = [await home.container(names[index]) for index in (0, 2, 3, 4)]
    assert await first.run(3) == 9 and await fourth.run(4) == 16
    assert await third.run() == await fifth.run() == ("ap-1", False)
    assert len(home.exits) == 1
