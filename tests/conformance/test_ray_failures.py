"""A server on a cluster under load, each part of which is killed: nothing accepted is lost, and nothing is left."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.kept import KeptServer
from tests.server.stage import Peer
from upswell.engines.ray.engine import prefix_of

from .cluster import IN_TIME, RayCluster, need_ray, small_cluster
from .home import soon, until_seen
from .test_engines import words_of

need_ray()
pytestmark = IN_TIME

INPUTS = 400
MAPPING = """
    import sys
    import upswell

    square = upswell.Function.from_name("kept", "quick")
    assert square.remote(3) == 9  # it is connected: a first dial does not wait for a server
    print("begun", flush=True)
    print(sum(square.map(range(2000))))
    for number in range(int(sys.argv[1])):
        print(square.remote(number), flush=True)
"""


class Load:
    """Inputs that are kept and wait for nobody, of a server whose containers are on the cluster."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster = cluster
        self.server = KeptServer(folder, "ray", rejoin_seconds=60.0, cluster=cluster.address)
        self.client: Peer
        self._calls = 0

    async def begin(self) -> None:
        self.client = await self.server.start()
        self.function = await self.server.deploy(self.client, "nap", 3, others=["quick"])
        await self.more()

    async def more(self) -> None:
        """As many inputs again, some of which have begun by then."""
        self._calls += 1
        before = len(self.server.begun())
        await self.server.spawn(self.client, self.function, list(range(INPUTS)), f"fc-{self._calls}")
        await self.server.until_begun(before + 20)

    async def check(self) -> None:
        """Every input of every call has its result."""
        for number in range(1, self._calls + 1):
            found = await self.server.outcomes(self.client, INPUTS, f"fc-{number}")
            assert found == {x: x for x in range(INPUTS)}

    def containers(self) -> list[psutil.Process]:
        """Those that live, of all that have begun something."""
        return [psutil.Process(number) for number in {number for _, number in self.server.begun()} if is_there(number)]

    def left(self) -> set[psutil.Process]:
        """The processes of leases, and all that they have forked, which have the same words."""
        return {one for one in self.cluster.processes() if "upswell.engines.ray.lease" in words_of(one)}

    def leases(self) -> set[int]:
        """Those of leases alone."""
        left = self.left()
        return {one.pid for one in left if one.parent() not in left}

    async def end(self) -> None:
        await self.server.stop()
        assert not self.left()
        assert not named(self.cluster.address, prefix_of(self.server.home))


def is_there(number: int) -> bool:
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


def named(address: str, prefix: str) -> list[str]:
    """Actors that Ray has of that server."""
    program = (
        "import logging, ray, sys; ray.init(sys.argv[1], namespace='upswell', logging_level=logging.ERROR); "
        "print(*ray.util.list_named_actors())"
    )
    command = [sys.executable, "-c", program, address]
    variables = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    said = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    return [name for name in said.split() if name.startswith(prefix)]


@pytest.fixture
async def load(ray_cluster: RayCluster, tmp_path: Path) -> AsyncIterator[Load]:
    one = Load(ray_cluster, tmp_path)
    await one.begin()
    yield one
    await one.end()


async def test_the_server_is_killed(load: Load) -> None:
    before, leases = {one.pid for one in load.containers()}, load.leases()
    for _ in range(2):
        load.client = await load.server.again()
        await load.more()
    await load.check()
    assert {one.pid for one in load.containers()} & before, "containers went on"
    assert leases <= load.leases(), "as did their leases"
    begun = [x for x, _ in load.server.begun()]
    assert len(begun) == 3 * INPUTS, "nothing was done twice"


async def test_the_server_is_killed_while_a_program_waits(load: Load, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("\n".join(line[4:] for line in MAPPING.splitlines()))
    variables = {**os.environ, "UPSWELL_SERVER": f"unix:{load.server.home / 'server.sock'}"}
    running = await asyncio.create_subprocess_exec(
        sys.executable, str(program), "50", env=variables, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        assert await soon(running.stdout.readline()) == b"begun\n"
        load.client = await load.server.again()
        assert await soon(running.stdout.readline()) == b"%d\n" % sum(x * x for x in range(2000))
        assert await soon(running.stdout.readline()) == b"0\n"
        load.client = await load.server.again()
        assert (await soon(running.stdout.read())).split() == [b"%d" % (x * x) for x in range(1, 50)]
        assert await soon(running.wait()) == 0
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    await load.check()


@pytest.mark.parametrize("which", ["container", "zygote", "root", "lease", "actor"])
async def test_a_part_of_a_lease_is_killed(load: Load, which: str) -> None:
    container = load.containers()[0]
    family = [container, *container.parents()]
    family[["container", "zygote", "root", "lease", "actor"].index(which)].kill()
    await load.more()
    await load.check()
    assert not is_there(container.pid)


async def test_a_node_is_killed_with_the_server(load: Load) -> None:
    load.cluster.do("kill 0")
    load.server.kill()
    load.client = await load.server.start()
    load.cluster.do("add 2")
    await load.more()
    await load.check()


async def test_the_process_that_speaks_to_ray_is_killed_and_cut_off(load: Load) -> None:
    assert load.server.process is not None
    server = psutil.Process(load.server.process.pid)

    def driver() -> psutil.Process | None:
        return next((one for one in server.children() if "upswell.engines.ray.driver" in words_of(one)), None)

    first = driver()
    assert first is not None
    first.kill()
    await load.more()
    await until_seen(lambda: (now := driver()) is not None and now.pid != first.pid)
    second = driver()
    assert second is not None
    second.suspend()
    ends_at = time.monotonic() + 20.0  # longer than Ray takes to think that a node has died
    while time.monotonic() < ends_at:
        await load.more()
        await load.check()
    second.resume()
    for one in load.leases():
        psutil.Process(one).kill()
    await load.more()
    await load.check()


@pytest.fixture
def other_cluster() -> Iterator[RayCluster]:
    """One that may break."""
    with small_cluster() as cluster:
        yield cluster


async def test_the_head_is_killed(other_cluster: RayCluster, tmp_path: Path) -> None:
    load = Load(other_cluster, tmp_path)
    await load.begin()
    other_cluster.do("kill head")
    await load.more()
    await load.check()
    await load.server.stop()
    assert not load.left(), "a lease ends with its server, whether there is a Ray or not"
