"""Steps that are written in one transaction leave what they would leave one by one, however much of it is written
together, or never because it has ended by then.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pickle import PickleBuffer

import apsw
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from upswell import store as s
from upswell.errors import Error
from upswell.home import DATABASE
from upswell.store import Kept, Outcome, Write
from upswell.stores import gathered
from upswell.stores.sqlite import SqliteStore
from upswell.stores.writer import Step
from upswell.wire.buffers import Block

from .desk import Desk, opened, outputs, saved

CALLS = [f"fc-{number}" for number in range(6)]


@dataclass
class Known:
    """A call as whoever writes of it knows it."""

    segments: dict[int, tuple[int, int]] = field(default_factory=dict)  # what of them is unsettled, by first
    submitted: int = 0
    total: int | None = None
    finished: bool = False


def inputs(call: str, first: int, count: int, last: bool, block: Block | None) -> s.PutInputs:
    return s.PutInputs(call, first, count, last, Kept(f"{call} from {first}".encode(), block))


def begun(call: str, known: Known, count: int, last: bool, block: Block | None) -> list[Write]:
    """The next segment, which is the call's first, or out of turn where no more is to come."""
    first = known.submitted
    known.segments[first] = (first, first + count)
    known.submitted, known.total = first + count, first + count if last else None
    opening: list[Write] = [] if first else [s.OpenCall(call, "ap-1/f", "spawn", 100.0)]
    return [*opening, inputs(call, first, count, last, block)]


def settled(call: str, known: Known, count: int) -> list[Write]:
    """Outputs of the oldest segment, which may be the last that it and the call have to wait for."""
    first = min(known.segments)
    start, stop = known.segments[first]
    until = min(stop, start + count)
    known.segments[first] = (until, stop)
    writes: list[Write] = [s.PutOutcome(call, Outcome(start, until - start, Kept(f"out {start}".encode())))]
    if until == stop:
        del known.segments[first]
        writes.append(s.DropInputs(call, first))
    if not known.segments and known.total is not None:
        known.finished = True
        writes.append(s.FinishCall(call, 200.0 + start))
    return writes


def said(
    what: str, call: str, known: Known | None, count: int, block: Block | None
) -> tuple[list[Write], Known | None]:
    """What is written of a call by that word, and how the call is known then; nothing where it makes no sense."""
    if known is None:
        known = Known()
        writes = begun(call, known, count, what != "more", block)
        return (writes + settled(call, known, count) if what == "settled" else writes), known
    match what:
        case "begun":  # once more
            return [s.OpenCall(call, "ap-1/f", "spawn", 100.0), inputs(call, 0, count, True, block)], known
        case "more":
            return begun(call, known, count, False, block), known
        case "settled" if known.segments:
            return settled(call, known, count), known
        case "tried" if known.segments:
            return [s.PutAttempts(call, known.segments[min(known.segments)][0], count, 0)], known
        case "withdrawn" if known.segments and known.segments[last := max(known.segments)][0] == last > 0:
            del known.segments[last]
            known.submitted, known.total = last, None
            return [s.WithdrawInputs(call, last)], known
        case "dropped" if known.finished:
            return [s.DropCall(call)], None
    return [], known


words = st.sampled_from(["begun", "settled", "settled", "settled", "more", "tried", "withdrawn", "dropped"])
writing = st.tuples(words, st.integers(1, 3), st.booleans())
step = st.dictionaries(st.sampled_from(CALLS), writing, min_size=1, max_size=3)
group = st.lists(step, min_size=1, max_size=12)


@settings(
    max_examples=40,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # the same groups every time
@given(groups=st.lists(group, min_size=1, max_size=3))
def test_a_group_is_what_its_steps_are_one_by_one(groups: list[list[dict[str, tuple[str, int, bool]]]]) -> None:
    known: dict[str, Known | None] = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        alone, together = stack.enter_context(Desk()), stack.enter_context(Desk(home))
        block = Block.write([PickleBuffer(bytes(100))])
        stack.callback(block.close)
        for steps in groups:
            expected, written = [], []
            for one in steps:
                before, writes = deepcopy(known), list[Write]()
                for call, (what, count, with_block) in one.items():
                    more, known[call] = said(what, call, known.get(call), count, block if with_block else None)
                    writes += more
                expected.append(type(alone.offer(*writes)))
                written.append(writes)
                if expected[-1] is not type(None):
                    known = before
            assert [type(answer) for answer in written_together(together, written)] == expected
            assert_same(alone, together)
        check_blocks(home, sum(len(one.segments) for one in saved(alone).values()))


def written_together(desk: Desk, steps: list[list[Write]]) -> list[Error | None]:
    """Write the steps in one transaction, or as many as it takes; what was answered to each."""
    store, answers = desk.store, dict[int, Error | None]()
    assert isinstance(store, SqliteStore)
    desk.commit()
    while store._writer._put != store._writer._done:
        os.sched_yield()  # until its thread touches nothing
    told: list[bool] = []

    def answered(number: int, error: Error | None) -> None:
        answers[number] = error
        if len(answers) == len(steps):
            told.append(True)

    store._writer._write([Step(writes, partial(answered, number), False) for number, writes in enumerate(steps)])
    store._writer._answer()
    desk.run_until(told)
    return [answers[number] for number in range(len(steps))]


def assert_same(alone: Desk, together: Desk) -> None:
    assert saved(together) == saved(alone)
    assert together.store.calls() == alone.store.calls()
    for call in CALLS:
        for desk in (alone, together):
            assert desk.store.failures(call) == 0
        found = [
            [(one.first, one.count, bytes(one.kept.payload)) for one in desk.store.outcomes(call)]
            for desk in (alone, together)
        ]
        assert found[0] == found[1]
    for one in saved(alone).values():
        for segment in one.segments:
            kept, same = (desk.store.inputs(one.id, segment.first) for desk in (together, alone))
            assert bytes(kept.payload) == bytes(same.payload)
            assert (kept.block is None) == (same.block is None)


def check_blocks(home: Path, segments: int) -> None:
    """No block is there without its segment."""
    connection = apsw.Connection(str(home / DATABASE))
    assert connection.execute("SELECT count(*) FROM segments").get == segments
    left = "SELECT count(*) FROM blocks WHERE number NOT IN (SELECT block FROM segments WHERE block IS NOT NULL)"
    assert connection.execute(left).get == 0
    connection.close()


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 200])
def test_any_number_of_rows_is_written_whole(tmp_path: Path, count: int) -> None:
    calls = [f"fc-{number}" for number in range(count)]
    with Desk(tmp_path) as desk:
        step = [write for call in calls for write in opened(call, 1, last=True)]
        assert written_together(desk, [step, opened("fc-alone", 1, last=True)]) == [None] * 2
        calls.append("fc-alone")
        assert list(saved(desk)) == calls
        steps: list[list[Write]] = [
            [outputs(call, 0, 1), s.DropInputs(call, 0), s.FinishCall(call, 200.0 + at)]
            for at, call in enumerate(calls)
        ]
        assert written_together(desk, steps) == [None] * len(calls)
        assert not saved(desk)
        records = reversed(desk.store.calls(len(calls)))
        assert [(one.id, one.finished_at) for one in records] == [(call, 200.0 + at) for at, call in enumerate(calls)]
        assert all(len(list(desk.store.outcomes(call))) == 1 for call in calls)


def test_a_life_within_a_group_is_written_as_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "PUT_SEGMENT", ((1, "this is no statement"),) * 65)
    with Desk(tmp_path) as desk:
        steps: list[list[Write]] = [[*opened("fc-1", 1, last=True), outputs("fc-1", 0, 1)], [s.DropInputs("fc-1", 0)]]
        assert written_together(desk, [*steps, [s.FinishCall("fc-1", 200.0)]]) == [None] * 3
        assert len(list(desk.store.outcomes("fc-1"))) == 1
