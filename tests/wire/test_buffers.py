"""Shared memory: it is where it was said to be, belongs to who adopts it, and is gone when nobody has it."""

import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upswell.errors import ConnectionError
from upswell.wire import buffers
from upswell.wire.buffers import ALIGNMENT, Block, aligned
from upswell.wire.messages import Buffers


def written(*contents: bytes) -> Block:
    return Block.write([pickle.PickleBuffer(content) for content in contents])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(st.lists(st.binary(max_size=500), max_size=5))
def test_buffers_are_aligned_and_whole(contents: list[bytes]) -> None:
    block = written(*contents)
    try:
        assert block.buffers.size == sum(aligned(len(content)) for content in contents)
        views = block.map([len(content) for content in contents])
        assert [bytes(view) for view in views] == contents
    finally:
        block.close()


def test_the_nearest_multiple() -> None:
    assert [aligned(size) for size in (0, 1, 64, 65)] == [0, ALIGNMENT, ALIGNMENT, 2 * ALIGNMENT]


def test_an_adopted_block_outlives_its_writer() -> None:
    before = descriptors()
    block = written(b"kept")
    adopted = Block.adopt(block.buffers)
    block.close()
    (view,) = adopted.map([4])
    adopted.close()
    adopted.close()
    assert bytes(view) == b"kept"
    view[:] = b"mine"
    assert descriptors() == before, "what is mapped holds no descriptor"


def test_pages_live_as_long_as_a_view_of_them() -> None:
    def mapped() -> int:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            return sum("memfd:upswell" in line for line in maps)

    block = written(b"first", b"second")
    _, second = block.map([5, 6])
    block.close()
    part = second[3:]
    del second, _
    assert (bytes(part), mapped()) == (b"ond", 1)
    del part
    assert mapped() == 0


def test_what_one_reader_changes_is_its_own() -> None:
    block = written(b"same")
    (one,), (other,) = block.map([4]), block.map([4])
    one[:] = b"1111"
    assert (bytes(one), bytes(other)) == (b"1111", b"same")
    block.close()


def test_what_is_no_block() -> None:
    before = descriptors()
    block = written(b"short")
    me = os.getpid()
    for wrong, reason in (
        (Buffers(me, block.buffers.descriptor, 1 << 20), "is shorter than the 1,048,576 bytes"),
        (Buffers(me, 0, 1), "is no block of shared memory"),
        (Buffers(me, 1 << 20, 1), "took its shared memory with it"),
        (Buffers(1 << 22, 3, 1), "took its shared memory with it"),
    ):
        with pytest.raises(ConnectionError, match=reason):
            Block.adopt(wrong)
    block.close()
    assert descriptors() == before


def test_a_large_buffer() -> None:
    content = bytes(range(256)) * (1 << 14)
    block = written(content, b"tail")
    first, last = block.map([len(content), 4])
    block.close()
    assert (bytes(first) == content, bytes(last)) == (True, b"tail")
    assert buffers.AVAILABLE
