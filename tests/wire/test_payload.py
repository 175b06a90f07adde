"""Payloads: values arrive as they were, together or each for itself, and what can't travel fails alone and is named."""

import builtins
import pickle
import sys
import threading
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upswell.errors import DeserializationError, RemoteError
from upswell.wire import payload as p
from upswell.wire.buffers import Block
from upswell.wire.messages import Buffers, ErrorRecord
from upswell.wire.payload import BARE, FULL, POSITIONAL, SINGLY, TOGETHER, PackError, RemoteTraceback, Unreadable

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Thing:
    def __init__(self, name: object) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]


class Text(str):
    """Of no exact plain type."""


class Stubborn(Thing):
    """Can be pickled, and raises what it holds when it is loaded."""

    def __reduce__(self) -> Any:
        return _raise, (self.name,)


def _raise(error: BaseException) -> None:
    raise error


@given(st.lists(PLAIN, max_size=6))
def test_plain_values(values: list[Any]) -> None:
    packed = p.pack(values)
    assert p.unpack(packed.data) == values


def test_plain_values_travel_together_and_others_singly() -> None:
    assert p.pack([1, "two", (3.0, None), {"four": [b"5"]}, {6, 7}, [[[[[[8]]]]]]]).data[0] == TOGETHER
    for odd in (Thing(1), [Thing(1)], {1: Thing(1)}, {Thing: 1}, True.__class__, len, numpy.int64(1), Text("a")):
        assert p.pack([1, odd]).data[0] == SINGLY
        assert p.unpack(p.pack([1, odd]).data) == [1, odd]
    assert p.unpack(p.pack((1, 2)).data) == [1, 2]
    assert p.unpack(p.pack([]).data) == []


def test_plain_values_travel_together_also_where_others_travel_by_value() -> None:
    asked = []

    def by_value() -> bool:
        asked.append(True)
        return True

    assert (
        p.pack([1, "two"], by_value=by_value).data[0]
        == p.pack_inputs([(1,)], {}, by_value=by_value).data[0]
        == TOGETHER
    )
    assert not asked
    assert p.unpack(p.pack([1, Thing(1)], by_value=by_value).data) == [1, Thing(1)]
    assert asked == [True]


def test_what_is_too_deep_to_be_pickled_together_is_found_out_singly() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PackError, match="can't be pickled") as caught:
        p.pack([1, deep])
    assert caught.value.index == 1


def test_a_buffer_between_plain_values_travels_beside_the_bytes() -> None:
    packed = p.pack([1, pickle.PickleBuffer(bytes(p.OUT_OF_BAND_BYTES))])
    assert packed.data[0] == SINGLY
    assert packed.buffers is not None
    packed.close()


def test_functions_without_a_name_travel() -> None:
    (function,) = p.unpack(p.pack([lambda x: x + 1]).data)
    assert function(1) == 2


@pytest.mark.parametrize(
    ("inputs", "kwargs", "shape", "arguments"),
    [
        ([(1,), (2,)], {}, BARE, [((1,), {}), ((2,), {})]),
        ([(1, 2), (3,)], {}, POSITIONAL, [((1, 2), {}), ((3,), {})]),
        ([(1,), (2, 3)], {"k": 4}, FULL, [((1,), {"k": 4}), ((2, 3), {"k": 4})]),
    ],
)
def test_inputs(inputs: list[tuple[Any, ...]], kwargs: dict[str, Any], shape: int, arguments: list[Any]) -> None:
    packed = p.pack_inputs(inputs, kwargs)
    arrived = p.unpack_inputs(packed.data, None, len(inputs))
    assert arrived.shape == shape
    assert [arrived.arguments(index) for index in range(len(inputs))] == arguments


# -- large buffers ---------------------------------------------------------------------------------


def test_inputs_that_were_packed_apart_travel_together() -> None:
    bad = p.pack_inputs([(Stubborn(ValueError("no")),)], {})
    alike = p.unpack_inputs(p.join([p.pack_inputs([(1,)], {}).data, bad.data, p.pack_inputs([(3,)], {}).data]), None, 3)
    with pytest.raises(DeserializationError, match="no"):
        alike.arguments(1)
    assert [alike.arguments(place) for place in (0, 2)] == [((1,), {}), ((3,), {})]
    packed = [p.pack_inputs([(x,) * x], {"key": x} if x == 3 else {}).data for x in range(5)]
    mixed = p.unpack_inputs(p.join([*packed, bad.data]), None, 6)
    assert [mixed.arguments(x) for x in range(5)] == [((x,) * x, {"key": x} if x == 3 else {}) for x in range(5)]
    with pytest.raises(DeserializationError, match="no"):
        mixed.arguments(5)
    same = p.unpack_inputs(p.join([p.pack_inputs([(x,)], {}).data for x in range(3)]), None, 3)
    assert (same.shape, same.values) == (BARE, [0, 1, 2])


def test_outputs_that_were_packed_apart_travel_together() -> None:
    joined = p.join([p.pack([1, 2]).data, p.pack([Thing(3), Stubborn(ValueError("no"))]).data, p.pack([5]).data])
    one, two, three, gone, five = p.unpack(joined)
    assert (one, two, three, five) == (1, 2, Thing(3), 5)
    assert isinstance(gone, Unreadable) and p.may_be_unreadable(joined)


def test_large_buffers_travel_beside() -> None:
    arrays = [numpy.arange(size, dtype="u1") for size in (100_000, 10, 65_536)]
    values = [{"a": arrays[0], "b": arrays[1]}, "between", arrays[2], numpy.asfortranarray(numpy.ones((300, 300)))]
    packed = p.pack(values)
    assert packed.block is not None and packed.buffers is not None
    assert len(packed.data) < 5_000, "only what is small"
    first, between, last, matrix = p.unpack(packed.data, packed.buffers)
    packed.block.close()
    assert (first["a"] == arrays[0]).all() and (first["b"] == arrays[1]).all() and between == "between"
    assert (last == arrays[2]).all() and (matrix == 1).all()
    last[0] = 7  # writable, and the reader's own
    assert arrays[2][0] == 0
    assert packed.buffers.size == 0, "closed"


def test_small_buffers_and_odd_ones_do_not() -> None:
    strided = numpy.arange(400_000, dtype="u1")[::2]
    packed = p.pack([numpy.arange(10), strided])
    assert packed.block is None
    assert (p.unpack(packed.data)[1] == strided).all()


def test_a_value_that_is_pickled_twice_brings_its_buffers_once() -> None:
    array = numpy.arange(100_000, dtype="u1")
    packed = p.pack([(array, lambda: 5), array])
    assert packed.block is not None and packed.buffers is not None
    assert packed.buffers.size < 2 * 100_000 + 200
    (arrived, function), other = p.unpack(packed.data, packed.buffers)
    packed.block.close()
    assert (arrived == array).all() and (other == array).all() and function() == 5


# -- what can't travel -----------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 2, 4])
def test_what_can_not_be_pickled_is_named(index: int) -> None:
    values: list[object] = list(range(5))
    values[index] = threading.Lock()
    with pytest.raises(PackError, match="lock") as raised:
        p.pack(values)
    assert raised.value.index == index


def test_a_value_that_is_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p, "MAX_PAYLOAD_BYTES", 10_000)
    p.pack([b"x" * 9_000])
    for values in ([b"", b"x" * 10_001], [Thing(1), Thing(b"x" * 10_001)]):
        with pytest.raises(PackError, match="too large") as raised:
            p.pack(values)
        assert raised.value.index == 1


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), GeneratorExit(), RecursionError()])
def test_what_can_not_be_loaded_fails_alone(error: BaseException) -> None:
    first, second, third = p.unpack(p.pack([Thing(1), Stubborn(error), Thing(3)]).data)
    assert (first, third) == (Thing(1), Thing(3))
    assert isinstance(second, Unreadable)
    assert "it can't be unpickled here" in str(second.error) and type(error).__name__ in str(second.error)


def test_an_input_that_can_not_be_loaded_raises_when_its_turn_comes() -> None:
    inputs = p.unpack_inputs(p.pack_inputs([(Thing(1),), (Stubborn(ValueError()),)], {}).data, None, 2)
    assert inputs.arguments(0) == ((Thing(1),), {})
    with pytest.raises(DeserializationError):
        inputs.arguments(1)


def test_a_class_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passing.py").write_text("class Passing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import passing  # type: ignore[import-not-found]

    packed = p.pack([passing.Passing(), 2])
    monkeypatch.undo()
    del sys.modules["passing"]
    gone, two = p.unpack(packed.data)
    assert isinstance(gone, Unreadable) and "passing" in str(gone.error) and two == 2


@given(st.binary(max_size=100))
def test_bytes_that_are_no_payload(data: bytes) -> None:
    if data[:1] == bytes((TOGETHER,)):
        data = data[:2] + b"\x80\x05X" + data[2:]  # what follows is an argument, and nothing runs
    try:
        p.unpack(data)
    except DeserializationError as error:
        assert "no payload" in str(error)
    inputs = p.unpack_inputs(data, None, 3)
    assert len(inputs.values) == 3


def test_payloads_cut_short() -> None:
    data = p.pack([Thing(1), Thing("x" * 100), numpy.arange(10)]).data
    joined = p.join([p.pack_inputs([(x,)], {}).data for x in range(3)])
    for size in range(len(joined)):
        assert p.unpack_inputs(joined[:size], None, 3).values[-1:] != [2]
        with pytest.raises(DeserializationError, match="no payload"):
            p.unpack(joined[:size])
    for size in range(len(data)):
        try:
            values = p.unpack(data[:size])
        except DeserializationError:
            continue
        assert len(values) == 3 and isinstance(values[-1], Unreadable)
    wrong = p.unpack_inputs(p.pack([1, 2], shape=BARE).data, None, 3)
    with pytest.raises(DeserializationError, match="2 inputs came where 3 were announced"):
        wrong.arguments(0)


def test_buffers_that_do_not_fit() -> None:
    packed = p.pack([numpy.arange(100_000, dtype="u1"), numpy.arange(100_000, dtype="u1")])
    assert packed.block is not None
    shorter = Block.write([pickle.PickleBuffer(b"x" * 100)])
    values = p.unpack(packed.data, shorter.buffers)
    assert all(isinstance(value, Unreadable) for value in values)
    assert all(isinstance(value, Unreadable) for value in p.unpack(packed.data, None))
    shorter.close()
    packed.block.close()


# -- exceptions ------------------------------------------------------------------------------------


class TakesTwo(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.left = left
        self.right = right


class Local(Exception):
    def __init__(self) -> None:
        super().__init__(threading.Lock())


class Explosive(Exception):
    def __reduce__(self) -> Any:
        return _raise, (SystemExit(3),)


class Disguised(Exception):
    def __reduce__(self) -> Any:
        return int, ("7",)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def sent(error: BaseException) -> tuple[ErrorRecord, bytes, BaseException]:
    try:
        raise error
    except BaseException as raised:
        record, data = p.pack_exception(raised)
    return record, data, p.unpack_exception(record, data)


def test_an_exception_arrives_as_itself_with_its_traceback() -> None:
    record, _, error = sent(TakesTwo(1, right=2))
    assert isinstance(error, TakesTwo) and (error.left, error.right, str(error)) == (1, 2, "1 and 2")
    assert record.type == f"{__name__}.TakesTwo" and record.message == "1 and 2"
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in sent" in str(error.__cause__) and "TakesTwo: 1 and 2" in str(error.__cause__)


@pytest.mark.parametrize("error", [ValueError("plain"), KeyError(3), SystemExit(2), OSError(2, "No such", "file")])
def test_builtin_ones(error: BaseException) -> None:
    record, _, arrived = sent(error)
    assert type(arrived) is type(error) and arrived.args == error.args
    assert getattr(builtins, record.type.removeprefix("builtins.")) is type(error)


@pytest.mark.parametrize("error", [Local(), Explosive("bang")])
def test_one_without_a_pickle_arrives_as_data(error: Exception) -> None:
    record, data, arrived = sent(error)
    assert data == b""
    assert isinstance(arrived, RemoteError) and str(arrived) == f"{record.type}: {error}"
    assert "in sent" in str(arrived.__cause__)


def test_one_that_is_something_else_when_it_arrives() -> None:
    _, _, arrived = sent(Disguised("truth"))
    assert isinstance(arrived, RemoteError) and "Disguised: truth" in str(arrived)


def test_one_without_words() -> None:
    record, _, arrived = sent(Unspeakable())
    assert record.message == "(its message can't be shown)"
    assert isinstance(arrived, Unspeakable)


@pytest.mark.parametrize("bad", [b"garbage", b"\x80\x05.", pickle.dumps(Stubborn(SystemExit(1))), pickle.dumps(3)])
def test_a_pickle_that_can_not_be_loaded(bad: bytes) -> None:
    arrived = p.unpack_exception(ErrorRecord("user", "shop.Sold", "out", "trace"), bad)
    assert isinstance(arrived, RemoteError) and str(arrived) == "shop.Sold: out"


def test_long_texts_are_cut_in_the_middle() -> None:
    record, data, arrived = sent(ValueError("x" * 1_000_000))
    assert len(record.message) < 70_000 and "characters left out" in record.message
    assert len(record.traceback) < 70_000 and record.traceback.startswith("Traceback")
    assert data and len(str(arrived)) == 1_000_000, "the exception itself is whole"


def test_own_frames_are_left_out() -> None:
    try:
        p.pack([threading.Lock()])
    except PackError as error:
        assert "in pack" in p.pack_exception(error)[0].traceback
        assert "in test_own_frames" not in p.pack_exception(error, own=__file__)[0].traceback


def test_an_error_in_a_module_begins_there(tmp_path: Path) -> None:
    """Nothing of how it was imported is shown; what the module itself calls is."""
    file = tmp_path / "broken.py"
    file.write_text("import json\njson.loads('?')\n")
    loader = SourceFileLoader("broken", str(file))
    with pytest.raises(ValueError) as raised:
        loader.exec_module(ModuleType("broken"))
    first, second, *_, last = p.pack_exception(raised.value, own=__file__)[0].traceback.splitlines()
    assert (first, second) == ("Traceback (most recent call last):", f'  File "{file}", line 2, in <module>')
    assert "JSONDecodeError" in last

    file.write_text("1 +\n")
    with pytest.raises(SyntaxError) as refused:
        loader.exec_module(ModuleType("broken"))
    assert p.pack_exception(refused.value, own=__file__)[0].traceback.startswith(f'  File "{file}", line 1\n')


def test_no_buffers_of_a_process_that_is_gone() -> None:
    packed = p.pack([numpy.arange(100_000, dtype="u1")])
    assert packed.block is not None
    packed.block.close()
    with pytest.raises(Exception, match="took its shared memory with it"):
        p.unpack(packed.data, Buffers(1 << 22, 3, 100_032))
