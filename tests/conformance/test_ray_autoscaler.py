"""Ray's own autoscaler, whose machines are processes here: leases are what it goes by, from no node to no node."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from msgspec.structs import replace

from upswell.engines.ray import stock
from upswell.engines.ray.engine import Cluster, RayEngine
from upswell.spec import FunctionSpec, Resources

from .cluster import IN_TIME, RayCluster, need_ray
from .home import Home, until_seen
from .test_engines import SQUARE

need_ray()
pytestmark = IN_TIME


@pytest.fixture
def growing_cluster() -> Iterator[RayCluster]:
    folder = Path(mkdtemp(prefix="ray-"))
    cluster = RayCluster(folder / "c", "grow", 2, 3)
    yield cluster
    cluster.close()
    rmtree(folder, ignore_errors=True)


@pytest.fixture
async def home(growing_cluster: RayCluster, tmp_path: Path) -> AsyncIterator[Home]:
    cluster = Cluster(address=growing_cluster.address, prefix="grows-", grows_to_cpus=6.0)
    at_home = Home(RayEngine(cluster, None), tmp_path)
    await at_home.open()
    yield at_home
    await at_home.close()


async def test_from_no_node_to_no_node(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is there as long as a lease holds some of it, whether its containers have work or not."""
    monkeypatch.setattr(stock, "IDLE_SECONDS", 0.5)
    engine = home.engine
    assert isinstance(engine, RayEngine)

    def working() -> set[str]:
        return {node.id for node in engine.nodes if node.cpus}

    assert not working() and engine.capacity().cores == 6
    function = replace(home.function("square", SQUARE), spec=FunctionSpec(resources=Resources(cpu=1.0)))
    names = [home.start(function) for _ in range(4)]
    containers = {name: await home.container(name) for name in names}
    assert [await containers[name].run(x) for x, name in enumerate(names)] == [0, 1, 4, 9]
    await until_seen(lambda: len(working()) == 2)
    kept = engine._in[names[0]].node
    others = [name for name in names if engine._in[name].node != kept]
    assert len(others) == 2
    for name in others:
        engine.kill(name)
    await until_seen(lambda: working() == {kept})
    for name in set(names) - set(others):  # they had no work for longer than Ray lets a node idle
        assert await containers[name].run(5) == 25
        engine.kill(name)
    await until_seen(lambda: not working())
    assert len(home.exits) == 4, "and nothing else has ended"
