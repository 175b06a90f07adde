"""What every store owes of what ends with the process: what was put is there until it is dropped, in order, and shared
memory is let go with it. Of what is written: test_durable_stores.py.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from upswell.store import Kept, Outcome, Store
from upswell.stores.memory import MemoryStore
from upswell.stores.sqlite import SqliteStore
from upswell.wire.buffers import Block
from upswell.wire.messages import ErrorRecord


def in_file(home: Path) -> Store:
    return SqliteStore(home, lambda answer: answer(), print)


STORES: dict[str, Callable[[Path], Store]] = {"memory": lambda _: MemoryStore(), "sqlite": in_file}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    before = len(os.listdir("/proc/self/fd"))
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == before, "close() lets go of everything"


def with_block(payload: bytes) -> Kept:
    return Kept(payload, Block.write([]))


def is_closed(kept: Kept) -> bool:
    return kept.block is None or kept.block.buffers.descriptor < 0


def test_inputs_by_call_and_position(store: Store) -> None:
    for call, first in (("fc-1", 0), ("fc-1", 10), ("fc-2", 0)):
        store.put_inputs(call, first, Kept(f"{call} {first}".encode()))
    assert bytes(store.inputs("fc-1", 10).payload) == b"fc-1 10"
    assert bytes(store.inputs("fc-2", 0).payload) == b"fc-2 0"
    store.drop_inputs("fc-1", 10)
    store.drop_inputs("fc-1", 10)
    for call, first in (("fc-1", 10), ("fc-1", 1), ("fc-3", 0)):
        with pytest.raises(KeyError):
            store.inputs(call, first)
    assert bytes(store.inputs("fc-1", 0).payload) == b"fc-1 0"


def test_outcomes_by_position(store: Store) -> None:
    error = ErrorRecord("user", "builtins.ValueError", "no", "trace", 2)
    came = [
        Outcome(5, 2, Kept(b"late first")),
        Outcome(0, 5, Kept(b"first")),
        Outcome(7, 1, Kept(b"pickle"), error),
    ]
    for outcome in came:
        store.put_outcome("fc-1", outcome)
    store.put_outcome("fc-2", Outcome(0, 1, Kept(b"other")))
    kept = [(one.first, one.count, bytes(one.kept.payload), one.error) for one in store.outcomes("fc-1")]
    assert kept == [(0, 5, b"first", None), (5, 2, b"late first", None), (7, 1, b"pickle", error)]
    assert len(list(store.outcomes("fc-1"))) == 3, "they stay"
    assert list(store.outcomes("fc-3")) == []


def test_shared_memory_is_let_go_with_what_it_belongs_to(store: Store) -> None:
    segment, other, replaced, replacement = (with_block(b"x") for _ in range(4))
    outcome = with_block(b"y")
    store.put_inputs("fc-1", 0, segment)
    store.put_inputs("fc-1", 5, replaced)
    store.put_inputs("fc-1", 5, replacement)
    store.put_inputs("fc-2", 0, other)
    store.put_outcome("fc-1", Outcome(0, 1, outcome))
    assert is_closed(replaced) and not is_closed(replacement)
    store.drop_inputs("fc-1", 0)
    assert is_closed(segment) and not is_closed(outcome)
    store.drop_call("fc-1")
    assert is_closed(outcome) and is_closed(replacement) and not is_closed(other)
    assert list(store.outcomes("fc-1")) == []
    with pytest.raises(KeyError):
        store.inputs("fc-1", 5)
    store.drop_call("fc-1")
    assert bytes(store.inputs("fc-2", 0).payload) == b"x"
    store.close()
    assert is_closed(other)
