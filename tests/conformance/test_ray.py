"""What the Ray engine owes beyond the others: a cluster of several nodes, of which each part may die."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from upswell.engines.ray.engine import Cluster, RayEngine
from upswell.errors import ConnectionError, InvalidError
from upswell.spec import FunctionRecord, FunctionSpec, Gpu, Resources

from .cluster import IN_TIME, RayCluster, need_ray
from .home import Home, ended, until_seen
from .test_engines import SEEN, SQUARE, words_of

need_ray()
pytestmark = IN_TIME


@pytest.fixture
async def home(ray_cluster: RayCluster, tmp_path: Path) -> AsyncIterator[Home]:
    at_home = Home(RayEngine(Cluster(address=ray_cluster.address, prefix="test-"), None), tmp_path)
    await at_home.open()
    yield at_home
    await at_home.close()
    names = [one.container for one in at_home.exits]
    assert len(names) == len(set(names)), "each exit is reported once"
    assert not leases(ray_cluster), "and nothing is left on a node"


def leases(cluster: RayCluster) -> list[psutil.Process]:
    """The processes of leases, and what they have forked."""
    return [process for process in cluster.processes() if "upswell.engines.ray.lease" in words_of(process)]


def asking(home: Home, cpu: float) -> FunctionRecord:
    record = home.function("square", SQUARE)
    return replace(record, spec=FunctionSpec(resources=Resources(cpu=cpu)))


def engine_of(home: Home) -> RayEngine:
    assert isinstance(home.engine, RayEngine)
    return home.engine


async def test_containers_are_on_several_nodes_and_one_is_killed(home: Home, ray_cluster: RayCluster) -> None:
    engine, function = engine_of(home), asking(home, 1.0)
    names = [home.start(function) for _ in range(4)]
    started = [await home.container(name) for name in names]
    assert await asyncio.gather(*(one.run(x) for x, one in enumerate(started))) == [0, 1, 4, 9]
    nodes = {lease.node: lease for stock in engine._stocks.values() for lease in stock.leases.values()}
    assert len(nodes) == 2, "as each has two cpus"
    processes = {name: one.process for name, one in zip(names, started, strict=True)}
    ray_cluster.do("kill 0")
    await home.until(lambda: len(home.exits) == 2)
    assert all("lease" in one.reason and one.status == -signal.SIGKILL for one in home.exits)
    for one in home.exits:
        await ended(processes[one.container])
    await until_seen(lambda: engine.capacity().cores == 2)
    again = home.start(function)  # the other node is full
    (delay,) = await home.until(lambda: home.delays)
    assert delay.container == again and "cpu=1" in delay.reason and "of 2 cpus on 1 node 0 are free" in delay.reason
    ray_cluster.do("add 2")
    assert await (await home.container(again)).run(5) == 25, "what waited goes on by itself"
    assert engine.capacity().cores == 4


async def test_what_the_cluster_can_not_hold_is_said(home: Home) -> None:
    fits, too_large = asking(home, 2.0), asking(home, 3.0)
    waits = home.start(too_large)
    _, container = await home.started(fits)
    assert await container.run(3) == 9, "others go on"
    (delay,) = await home.until(lambda: home.delays)
    assert delay.container == waits
    assert "cpu=3, and no node has so much even when empty: the largest have 2 cpus" in delay.reason
    home.engine.kill(waits)
    assert (await home.exit_of(waits)).reason == "killed before it was started"


async def test_gpus_of_a_node_are_split_among_its_containers(home: Home, ray_cluster: RayCluster) -> None:
    engine, record = engine_of(home), home.function("seen", SEEN)
    assert engine.capacity().gpus == {}
    ray_cluster.do("add 2 3 T4")
    await until_seen(lambda: engine.capacity().gpus == {"": 3, "T4": 3})

    def having(*gpus: Gpu) -> FunctionRecord:
        return replace(record, spec=FunctionSpec(resources=Resources(cpu=0.5, gpus=gpus)))

    _, pair = await home.started(having(Gpu("T4", 2)))
    name, single = await home.started(having(Gpu()))
    seen = [(await one.run()).split(",") for one in (pair, single)]
    assert [len(names) for names in seen] == [2, 1] and {*seen[0], *seen[1]} == {"0", "1", "2"}
    waits, never = home.start(having(Gpu("T4"))), home.start(having(Gpu("A100")))
    delays = await home.until(lambda: {one.container: one.reason for one in home.delays if len(home.delays) == 2})
    assert "gpu=T4, and no node has so much free" in delays[waits] and "0 of 3 T4" in delays[waits]
    assert "gpu=A100, and no node has so much even when empty" in delays[never] and "3 GPUs (T4)" in delays[never]
    home.engine.kill(name)
    assert await (await home.container(waits)).run() == seen[1][0], "what one gave back another has"
    ray_cluster.do("kill -1")
    await home.exit_of(waits)
    await until_seen(lambda: engine.capacity().gpus == {})


async def test_a_lease_is_killed(home: Home, ray_cluster: RayCluster) -> None:
    function = asking(home, 1.0)
    name, container = await home.started(function)
    root = psutil.Process(container.process).parents()[1]
    lease = root.parent()
    assert lease is not None
    lease.kill()
    assert "lease" in (await home.exit_of(name)).reason
    await ended(container.process)
    _, container = await home.started(function)
    assert await container.run(2) == 4


async def test_the_actor_that_holds_a_lease_is_killed(home: Home, ray_cluster: RayCluster) -> None:
    function = asking(home, 1.0)
    name, container = await home.started(function)
    holder = psutil.Process(container.process).parents()[3]
    assert "Holder" in words_of(holder) or "ray::" in words_of(holder)
    holder.kill()
    assert (await home.exit_of(name)).status == -signal.SIGKILL
    await ended(container.process)
    _, container = await home.started(function)
    assert await container.run(2) == 4


async def test_the_connection_to_ray_is_lost(home: Home) -> None:
    engine, function = engine_of(home), asking(home, 1.0)
    name, container = await home.started(function)
    os.kill(engine._ray._process.pid, signal.SIGKILL)
    await until_seen(lambda: not engine.nodes)
    assert await container.run(3) == 9, "containers do not depend on it"
    _, other = await home.started(asking(home, 1.0))
    assert await other.run(4) == 16, "and once there is another, they start again"
    home.engine.kill(name)
    await home.exit_of(name)


async def test_a_lease_that_can_not_work(ray_cluster: RayCluster, tmp_path: Path) -> None:
    """Another would not either, so who waits is told instead of waiting."""
    home = Home(RayEngine(Cluster(address=ray_cluster.address, code="/proc/none"), None), tmp_path)
    await home.open()
    try:
        report = await home.exit_of(home.start(asking(home, 1.0)))
        assert report.status == 1 and "no lease could be had for it" in report.reason
        assert "ended with status 1" in report.reason
    finally:
        await home.close()


async def test_an_earlier_server_left_leases(home: Home, ray_cluster: RayCluster, tmp_path: Path) -> None:
    """They end with their server; those that do not are ended by the next of that home."""
    _, container = await home.started(asking(home, 1.0))
    lease = psutil.Process(container.process).parents()[2]
    next_engine = RayEngine(Cluster(address=ray_cluster.address, prefix="test-"), None)
    later = Home(next_engine, tmp_path)
    await later.open()
    try:
        await ended(lease.pid)
        await ended(container.process)
    finally:
        await later.close()


async def test_a_cluster_that_is_not_there() -> None:
    with pytest.raises(ConnectionError, match="can't be joined"):
        RayEngine(Cluster(address="127.0.0.1:1"), None)


def test_other_machines_are_not_spoken_to_without_tls() -> None:
    with pytest.raises(InvalidError, match="without TLS"):
        RayEngine(Cluster(host="server.example"), None)
