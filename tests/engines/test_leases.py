"""Leases: how large they are, which one gets a container, when they go, and what is said where there is no room."""

import itertools

import pytest

from upswell.capacity import MIB, Size
from upswell.engines.ray.link import Session
from upswell.engines.ray.messages import LINK, Found, Node, Opened
from upswell.engines.ray.returning import Returning
from upswell.engines.ray.sizing import Plan, Shape, capacity_of, gpus_of, missing, plan, ray_kind
from upswell.engines.ray.stock import (
    EXPECTED_SECONDS,
    IDLE_SECONDS,
    OVERFILL,
    SAY_AGAIN_SECONDS,
    SAY_SECONDS,
    SILENCE_SECONDS,
    Lease,
    Stock,
    Wanted,
    free_of,
)
from upswell.spec import Environment, FunctionRecord, FunctionSpec, Resources

ENVIRONMENT = Environment(kind="script", origin="", module="m", main=False, sys_path=(), directory="/")
ANY = Shape(0.0, 0)


def node(
    name: str, cpus: float, free: float | None = None, mib: int = 8192, gpus: int = 0, kind: str = "", used: int = 0
) -> Node:
    kinds = (kind,) if kind else ()
    free = cpus if free is None else free
    return Node(name, "", cpus, mib * MIB, free, mib * MIB, gpus, gpus - used, kinds)


ONE_GPU, TWO_T4 = Shape(0.0, 0, 1), Shape(1.0, 0, 2, "T4")
GPU_NODES = [node("a", 8), node("b", 8, gpus=4, kind="T4"), node("c", 8, gpus=1, kind="A100")]


@pytest.mark.parametrize(
    ("shape", "wanted", "present", "nodes", "planned"),
    [
        pytest.param(ANY, 1, 0, [node("a", 2), node("b", 4)], Plan([("b", 1)], []), id="the roomiest first"),
        pytest.param(ANY, 5, 0, [node("a", 2), node("b", 4)], Plan([("b", 4), ("a", 1)], []), id="as few as will do"),
        pytest.param(ANY, 1, 12, [node("a", 2), node("b", 4)], Plan([("b", 3)], []), id="a quarter of what is there"),
        pytest.param(ANY, 9, 0, [node("a", 2, 1), node("b", 4, 0)], Plan([("a", 1)], [4, 4]), id="the rest waits"),
        pytest.param(ANY, 2, 0, [], Plan([], [1, 1]), id="no nodes yet"),
        pytest.param(ANY, 0, 8, [node("a", 8)], Plan([], []), id="nothing is wanted"),
        pytest.param(Shape(0.1, 0), 10, 0, [node("a", 1)], Plan([("a", 10)], []), id="tenths that make a whole"),
        pytest.param(Shape(0.1, 4096), 3, 0, [node("a", 1)], Plan([("a", 2)], [1]), id="memory is what is short"),
        pytest.param(Shape(3.0, 0), 1, 0, [node("a", 2)], Plan([], [1]), id="no node is large enough"),
        pytest.param(ONE_GPU, 6, 0, GPU_NODES, Plan([("b", 4), ("c", 1)], [1]), id="where GPUs are"),
        pytest.param(TWO_T4, 3, 0, GPU_NODES, Plan([("b", 2)], [1]), id="of its kind"),
        pytest.param(TWO_T4, 1, 0, [node("a", 8, gpus=4, kind="T4", used=3)], Plan([], [1]), id="that are free"),
    ],
)
def test_a_plan(shape: Shape, wanted: int, present: int, nodes: list[Node], planned: Plan) -> None:
    assert plan(shape, wanted, present, nodes) == planned


@pytest.mark.parametrize(
    ("shape", "nodes", "words"),
    [
        (Shape(2.0, 512), [], "cpu=2, memory=512, and the cluster has no nodes"),
        (Shape(8.0, 0), [node("a", 4)], "no node has so much even when empty: the largest have 4 cpus, 8192 MiB"),
        (
            Shape(8.0, 9000),
            [node("a", 2, mib=10_000), node("b", 8), node("c", 8)],
            "the largest have 2 cpus, 10000 MiB or 8 cpus, 8192 MiB",
        ),
        (
            Shape(1.0, 0, 2, "A100"),
            GPU_NODES,
            "each container asks for cpu=1, gpu=A100:2, and no node has so much even when empty: "
            "the largest have 8 cpus, 8192 MiB, 4 GPUs (T4) or 8 cpus, 8192 MiB, 1 GPU (A100)",
        ),
        (TWO_T4, [node("a", 8, gpus=4, kind="T4", used=3)], "and at most 8192 MiB on one, and 1 of 4 T4"),
        (ONE_GPU, [node("a", 8, gpus=2, used=2)], "gpu=any, and no node has so much free: of 8 cpus on 1 node 8 are"),
        (Shape(2.0, 0), [node("a", 4, 1), node("b", 4, 1.5)], "no node has so much free: of 8 cpus on 2 nodes 2.5 are"),
    ],
)
def test_what_is_missing(shape: Shape, nodes: list[Node], words: str) -> None:
    assert words in missing(shape, nodes)


def test_what_the_cluster_is_said_to_have() -> None:
    capacity = capacity_of(GPU_NODES)
    assert (capacity.cores, capacity.gpus) == (24, {"": 5, "T4": 4, "A100": 1})
    assert [size.gpus for size in capacity.sizes] == [{"": 4, "T4": 4}, {"": 1, "A100": 1}]
    assert capacity_of([]).sizes == (Size(0.0, 0),), "so that nothing fits"
    assert capacity_of([*GPU_NODES, node("head", 0, mib=1 << 20, gpus=8)]) == capacity, "where no container can be"
    grown = capacity_of(GPU_NODES, grows_to_cpus=48.0, grows_to_gpus=16)
    assert (grown.cores, grown.memory_total, grown.sizes, grown.may_grow) == (48, 6 * 8192 * MIB, (), True)
    assert grown.gpus == {"": 16, "T4": 4, "A100": 1}
    assert capacity_of(GPU_NODES, grows_to_cpus=24.0) == capacity, "it has grown to that"
    assert capacity_of([], grows_to_cpus=2.0).memory_available > 0, "or the first node would never come"


def test_kinds_have_the_names_that_users_and_ray_use() -> None:
    assert (ray_kind("A100-80GB"), ray_kind("GB200"), ray_kind("A10G")) == ("A100-80G", "GB200", "A10G")
    assert gpus_of([node("a", 1, gpus=2, kind="A100-80G")]) == {"": 2, "A100-80G": 2, "A100-80GB": 2}


class Scene:
    """A stock, with names for what comes."""

    def __init__(self, shape: Shape = ANY) -> None:
        self.stock = Stock(shape)
        self._numbers = itertools.count(1)

    def want(self, count: int, now: float = 0.0) -> None:
        for _ in range(count):
            name = f"co-{next(self._numbers)}"
            resources = Resources(cpu=self.stock.shape.cpu, memory_mib=self.stock.shape.memory_mib)
            spec = FunctionSpec(resources=resources)
            record = FunctionRecord(id="ap-1/f", app_name="", name="f", spec=spec, environment=ENVIRONMENT)
            self.stock.waiting[name] = Wanted(name, "", record, now)

    def lease(self, slots: int, *, likely: str = "a", asked_at: float = 0.0) -> Lease:
        lease = Lease(f"lease-{next(self._numbers)}", self.stock.shape, slots, asked_at, likely)
        self.stock.leases[lease.name] = lease
        return lease

    def open(self, lease: Lease, now: float = 0.0) -> Lease:
        lease.link = Session()  # whether there is one is all that is asked
        lease.heard_at = lease.empty_since = now
        return lease


def test_containers_go_where_others_are() -> None:
    scene = Scene()
    one, other = scene.open(scene.lease(4)), scene.open(scene.lease(4))
    scene.want(1)
    scene.stock.assign(0.0)
    scene.want(3)
    scene.stock.assign(0.0)
    assert sorted((len(one.containers), len(other.containers))) == [0, 4], "so that the other can be given back"
    assert not scene.stock.waiting


def test_nothing_starts_before_a_lease_is_there() -> None:
    scene = Scene()
    lease = scene.lease(2)
    scene.want(2)
    assert scene.stock.assign(0.0) == []
    scene.open(lease)
    assert [wanted.container for _, wanted in scene.stock.assign(0.0)] == ["co-2", "co-3"], "in their order"


def test_containers_that_reserve_nothing_share_what_there_is() -> None:
    scene = Scene()
    one, other = scene.open(scene.lease(1)), scene.open(scene.lease(2))
    expected = scene.lease(1)
    scene.want(40)
    assert len(scene.stock.assign(0.0)) == 3, "more comes in a moment"
    expected.likely = ""
    scene.stock.assign(0.0)
    assert (len(one.containers), len(other.containers)) == (OVERFILL, 2 * OVERFILL)
    assert len(scene.stock.waiting) == 40 - 3 * OVERFILL


def test_containers_that_reserve_something_do_not() -> None:
    scene = Scene(Shape(1.0, 0))
    scene.open(scene.lease(2))
    scene.want(3)
    assert len(scene.stock.assign(0.0)) == 2


def test_what_is_expected_is_not_asked_for_again() -> None:
    scene, nodes = Scene(), [node("a", 4)]
    scene.want(3)
    assert scene.stock.wishes(nodes, 0.0) == [("a", 3)]
    scene.lease(3)
    assert scene.stock.wishes(nodes, 0.0) == []
    assert scene.stock.surplus(EXPECTED_SECONDS - 1, others_wait=True) == []


def test_what_was_expected_for_too_long_is_asked_for_anew() -> None:
    scene, nodes = Scene(), [node("a", 4)]
    scene.want(3)
    overdue = scene.lease(3)
    assert scene.stock.surplus(EXPECTED_SECONDS, others_wait=False) == [overdue]
    del scene.stock.leases[overdue.name]
    assert scene.stock.wishes(nodes, EXPECTED_SECONDS) == [("a", 3)]


def test_what_no_node_has_room_for_is_asked_for_too() -> None:
    """Ray's own autoscaler looks at what waits."""
    scene, nodes = Scene(), [node("a", 4, 0)]
    scene.want(6)
    assert scene.stock.wishes(nodes, 0.0) == [("", 4), ("", 2)]
    scene.lease(4, likely="")
    scene.lease(2, likely="")
    assert scene.stock.wishes(nodes, 0.0) == []
    assert scene.stock.wishes([node("a", 4, 1)], 0.0) == [("a", 1)], "room that is too small for what waits is used"


def test_containers_over_the_size_of_their_lease_are_wanted_room_for() -> None:
    scene, nodes = Scene(), [node("a", 2, 0)]
    scene.open(scene.lease(2))
    scene.want(5)
    scene.stock.assign(0.0)
    assert not scene.stock.waiting
    assert scene.stock.wishes(nodes, 0.0) == [("", 2), ("", 1)]


def test_an_empty_lease_is_kept_for_a_while() -> None:
    scene = Scene()
    lease = scene.open(scene.lease(2), now=5.0)
    assert scene.stock.surplus(5.0 + IDLE_SECONDS - 1, others_wait=False) == []
    assert scene.stock.surplus(5.0 + IDLE_SECONDS, others_wait=False) == [lease]
    assert scene.stock.surplus(6.0, others_wait=True) == [lease], "unless others wait for its room"
    scene.want(1)
    scene.stock.assign(6.0)
    assert scene.stock.surplus(1000.0, others_wait=True) == []


def test_a_lease_that_nobody_waits_for_any_more_is_not_waited_for() -> None:
    scene = Scene()
    hopeless, expected = scene.lease(2, likely=""), scene.lease(2)
    scene.want(1)
    assert scene.stock.surplus(0.0, others_wait=False) == []
    scene.stock.waiting.clear()
    assert scene.stock.surplus(0.0, others_wait=False) == [hopeless]
    assert scene.stock.surplus(EXPECTED_SECONDS, others_wait=False) == [hopeless, expected]


def test_silence() -> None:
    scene = Scene()
    lease = scene.open(scene.lease(1), now=1.0)
    scene.lease(1)  # not there yet, so nothing is to be heard of it
    assert scene.stock.silent(1.0 + SILENCE_SECONDS) == []
    assert scene.stock.silent(1.1 + SILENCE_SECONDS) == [lease]
    lease.lost_at = 1.1 + SILENCE_SECONDS
    assert scene.stock.silent(2 * SILENCE_SECONDS) == [], "that is known already"


def test_a_lost_lease_may_come_back() -> None:
    scene = Scene()
    lease = scene.open(scene.lease(2))
    scene.want(2)
    scene.stock.assign(0.0)
    lease.lost_at = 10.0
    scene.want(1)
    assert scene.stock.assign(10.0) == [], "nothing starts there meanwhile"
    assert scene.stock.surplus(10.0 + IDLE_SECONDS, others_wait=True) == [], "what is in it counts as there"
    assert (scene.stock.lost(70.0, 60.0), scene.stock.lost(70.1, 60.0)) == ([], [lease])
    lease.lost_at = None
    assert scene.stock.lost(99.0, 60.0) == []


def hello(lease: str, dial: str = "unix:/containers") -> Opened:
    return Opened(LINK, lease, "token", "node", dial, ANY, 1)


def test_leases_of_an_earlier_engine_return() -> None:
    returning = Returning([Found("1-a", True), Found("2-b", False), Found("3-c", True)], may_return=True)
    assert returning.unwanted == ["2-b"], "it has never begun, so there is nothing in it"
    assert not returning.lets_in(hello("4-d"), "unix:/containers"), "Ray does not have it"
    assert not returning.lets_in(hello("1-a"), "unix:/others"), "its containers would not find this server"
    assert returning.lets_in(hello("1-a"), "unix:/containers")
    assert not returning.is_complete, "it has not told what it holds"
    assert [returning.counted("1-a"), returning.counted("1-a"), returning.counted("4-d")] == [True, False, False]
    assert returning.end() == ["3-c"]
    assert not returning.lets_in(hello("3-c"), "unix:/containers"), "it has been given back"
    assert not returning.counted("3-c")


def test_leases_that_end_are_not_waited_for() -> None:
    returning = Returning([Found("1-a", True)], may_return=True)
    returning.gone("1-a")
    assert returning.is_complete and returning.end() == []


def test_without_a_home_nothing_returns() -> None:
    returning = Returning([Found("1-a", True), Found("2-b", False)], may_return=False)
    assert returning.unwanted == ["1-a", "2-b"] and returning.is_complete
    assert not returning.lets_in(hello("1-a"), "unix:/containers")


def test_what_waits_for_long_is_said_once_and_again() -> None:
    scene, nodes = Scene(Shape(8.0, 0)), [node("a", 4)]
    scene.want(2)
    assert scene.stock.complaints(nodes, SAY_SECONDS - 0.1) == []
    ((container, words),) = scene.stock.complaints(nodes, SAY_SECONDS)
    assert container == "co-1" and words.startswith("2 of its containers wait for room") and "cpu=8" in words
    assert scene.stock.complaints(nodes, SAY_SECONDS + 1) == []
    assert len(scene.stock.complaints(nodes, SAY_SECONDS + SAY_AGAIN_SECONDS)) == 1


def test_nothing_is_said_while_a_lease_is_expected() -> None:
    scene = Scene()
    scene.want(1)
    scene.lease(1)
    assert scene.stock.complaints([node("a", 4)], SAY_SECONDS) == []
    assert scene.stock.complaints([node("a", 4)], EXPECTED_SECONDS), "but not for ever"


def test_what_no_lease_is_expected_for_is_said_meanwhile() -> None:
    """However long the leases take that others wait for."""
    scene = Scene(Shape(1.0, 0))
    scene.want(5)
    scene.lease(3)
    ((container, words),) = scene.stock.complaints([node("a", 3, 0)], SAY_SECONDS)
    assert container == "co-4" and words.startswith("2 of its containers wait for room")


def test_what_ray_has_not_counted_yet() -> None:
    scene = Scene(Shape(1.0, 1024, 2))
    scene.lease(3, asked_at=10.0)
    nodes = [node("a", 4, gpus=8), node("b", 4)]
    after, other = free_of(nodes, list(scene.stock.leases.values()), 10.5)
    assert (after.cpus_free, after.memory_free, after.gpus_free, other) == (1.0, 5120 * MIB, 2, nodes[1])
    assert free_of(nodes, list(scene.stock.leases.values()), 20.0) == nodes
