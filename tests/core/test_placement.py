"""What containers reserve of a node."""

import pytest

from upswell.core.placement import MIB, Node
from upswell.spec import Resources


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
