"""What containers reserve of a node."""

import pytest
from msgspec import structs

from upswell.capacity import MIB, Capacity, Size, largest
from upswell.core.placement import Node
from upswell.spec import FunctionSpec, Gpu, Resources


@pytest.mark.parametrize(
    ("cpu", "memory_mib", "room"),
    [(0.0, 0, None), (1.0, 0, 4), (0.1, 0, 40), (3.0, 0, 1), (0.0, 300, 3), (1.0, 600, 1), (8.0, 0, 0)],
)
def test_room(cpu: float, memory_mib: int, room: int | None) -> None:
    node = Node(cores=4.0, memory_available=0, memory_total=1000 * MIB)
    assert node.room(Resources(cpu=cpu, memory_mib=memory_mib)) == room


def test_what_is_released_can_be_had_again() -> None:
    node, tenth = Node(cores=1.0, memory_available=0, memory_total=0), Resources(cpu=0.1)
    for _ in range(1000):
        for _ in range(10):
            node.reserve(tenth)
        assert node.room(tenth) == 0
        for _ in range(10):
            node.release(tenth, 0)
    assert node.room(tenth) == 10


@pytest.mark.parametrize(("cpu", "memory_mib", "holds"), [(4.0, 0, True), (4.1, 0, False), (0.0, 1001, False)])
def test_what_no_empty_node_could_hold(cpu: float, memory_mib: int, holds: bool) -> None:
    node = Node(cores=4.0, memory_available=0, memory_total=1000 * MIB)
    assert node.holds(Resources(cpu=cpu, memory_mib=memory_mib)) is holds


MIXED = Capacity(
    cores=24.0,
    memory_available=96 << 30,
    gpus={"": 6, "T4": 4, "A100": 2},
    sizes=(Size(16.0, 32 << 30), Size(4.0, 64 << 30, {"": 4, "T4": 4}), Size(4.0, 64 << 30, {"": 1, "A100": 1})),
)


def mixed(**changes: object) -> Node:
    node = Node(0.0, 0, 0)
    node.resized(structs.replace(MIXED, **changes))
    return node


def asking(*gpus: Gpu, cpu: float = 0.0, memory_mib: int = 0) -> Resources:
    return Resources(cpu=cpu, memory_mib=memory_mib, gpus=gpus)


@pytest.mark.parametrize(
    ("resources", "holds"),
    [
        pytest.param(asking(cpu=16), True, id="one node has so much"),
        pytest.param(asking(cpu=17), False, id="all together have"),
        pytest.param(asking(cpu=8, memory_mib=40 << 10), False, id="one has the processors, another the memory"),
        pytest.param(asking(Gpu("T4", 4)), True, id="all of a node's"),
        pytest.param(asking(Gpu("A100", 2)), False, id="two on two nodes"),
        pytest.param(asking(Gpu("A100", 2), Gpu("T4")), True, id="the other alternative"),
        pytest.param(asking(Gpu("H100")), False, id="no such kind"),
        pytest.param(asking(Gpu(), cpu=5), False, id="no node with GPUs has so many processors"),
    ],
)
def test_one_container_must_fit_on_one_node(resources: Resources, holds: bool) -> None:
    assert mixed().holds(resources) is holds


def test_what_may_grow_is_held_to_what_it_may_grow_to_and_no_more() -> None:
    node = mixed(sizes=(), gpus={"": 8}, may_grow=True)
    assert node.holds(asking(Gpu("H100", 8), cpu=24)) and node.room(asking(Gpu("H100", 3))) == 2
    assert not node.holds(asking(Gpu("H100", 9))) and not node.holds(asking(cpu=25))


def test_gpus_are_reserved_by_kind_and_altogether() -> None:
    node, two, any_one = mixed(), asking(Gpu("T4", 2)), asking(Gpu())
    assert (node.room(two), node.room(any_one)) == (2, 6)
    node.reserve(two)
    assert (node.room(two), node.room(any_one), node.room(two, without=two)) == (1, 4, 2)
    for _ in range(3):
        node.reserve(any_one)
    assert (node.room(two), node.room(any_one), node.room(asking(Gpu("A100")))) == (0, 1, 1)
    for one in (two, any_one, any_one, any_one):
        node.release(one, 0)
    assert (node.room(two), node.room(any_one)) == (2, 6)


def test_the_first_alternative_with_room_is_given() -> None:
    node = mixed()
    spec = FunctionSpec(resources=asking(Gpu("H100"), Gpu("A100"), Gpu("T4", 2), cpu=1))
    assert node.room(spec.resources) == 4, "two with an A100, two with a pair of T4"
    assert node.room(asking(Gpu("T4"), Gpu())) == 6, "none counts twice"
    given = []
    for _ in range(5):
        given.append(node.given(spec).resources.gpus)
        node.reserve(node.given(spec).resources)
    a100, t4 = (Gpu("A100"),), (Gpu("T4", 2),)
    assert given == [a100, a100, t4, t4, a100], "and where there is room for none, the first that there is at all"
    assert mixed(gpus={"": 6}).given(FunctionSpec(resources=asking(Gpu("H100")))).resources.gpus == (Gpu("H100"),)


def test_where_gpus_are_not_counted_nobody_has_any() -> None:
    node, resources = Node(2.0, 1 << 30, 1 << 30), asking(Gpu("H100", 8), cpu=1)
    assert node.holds(resources) and node.room(resources) == 2
    assert node.given(FunctionSpec(resources=resources)).resources == asking(cpu=1)


def test_the_largest_sizes_are_those_that_no_other_covers() -> None:
    small, wide, deep, with_gpu = Size(2.0, 8), Size(8.0, 8), Size(2.0, 64), Size(2.0, 8, {"": 1, "T4": 1})
    assert largest([small, wide, small, deep, with_gpu, wide]) == (wide, deep, with_gpu)
    assert str(Size(4.0, 64 << 30, {"": 2, "T4": 2})) == "4 cpus, 65536 MiB, 2 GPUs (T4)"
