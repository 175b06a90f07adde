"""A spool: what is written is read once and in order, also through the death of reader, writer and machine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upswell.wire import messages as m
from upswell.wire import spool
from upswell.wire.codec import encode
from upswell.wire.spool import HEAD_BYTES, MAX_RECORD_BYTES, SPOOL_BYTES, SpoolFullError, SpoolReader, SpoolWriter

LARGE = 12_000  # bytes, of which not many fit


def spawned(number: int) -> m.Spawned:
    return m.Spawned(f"fc-{number:06}", "app/function", "", float(number))


def written(writer: SpoolWriter, number: int, size: int = 10) -> None:
    writer.write(spawned(number), bytes([number % 251]) * size)


def taken(reader: SpoolReader) -> list[int]:
    """The numbers of what is there, each of which must say what was written under it."""
    numbers = []
    for number, said in reader.take():
        assert said is not None
        message, payload = said
        assert message == spawned(number)
        assert set(bytes(payload)) == {number % 251}
        numbers.append(number)
    return numbers


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sp-1")


def test_what_is_written_is_taken_once_in_order(path: str) -> None:
    writer, reader = SpoolWriter(path), SpoolReader(path)
    assert taken(reader) == []
    for number in (1, 2, 3):
        written(writer, number)
    writer.sync()
    assert taken(reader) == [1, 2, 3]
    assert taken(reader) == []
    written(writer, 4)
    assert taken(reader) == [4]


def test_another_reader_goes_on_after_what_is_kept(path: str) -> None:
    writer, reader = SpoolWriter(path), SpoolReader(path)
    for number in range(1, 6):
        written(writer, number)
    assert taken(reader) == [1, 2, 3, 4, 5]
    reader.keep(3)
    assert not reader.is_all_kept()
    successor = SpoolReader(path)
    assert taken(successor) == [4, 5]
    successor.keep(5)
    assert successor.is_all_kept()
    written(writer, 6)
    assert taken(successor) == [6]
    assert taken(SpoolReader(path)) == [6]


def test_a_full_spool_is_begun_again_once_all_of_it_is_kept(path: str) -> None:
    writer, reader = SpoolWriter(path), SpoolReader(path)
    number = 0
    with pytest.raises(SpoolFullError, match="not kept yet"):
        while True:
            written(writer, number + 1, LARGE)
            number += 1
    assert writer.is_usable
    assert (number + 1) * LARGE > SPOOL_BYTES - HEAD_BYTES > number * LARGE
    assert taken(reader) == list(range(1, number + 1))
    reader.keep(number - 1)
    with pytest.raises(SpoolFullError):
        written(writer, number + 1, LARGE)
    reader.keep(number)
    written(writer, number + 1, LARGE)
    written(writer, number + 2, LARGE)
    assert taken(reader) == [number + 1, number + 2]
    assert taken(SpoolReader(path)) == [number + 1, number + 2]  # and nothing of the earlier round behind them
    assert os.stat(path).st_size == SPOOL_BYTES


def test_what_is_left_of_an_earlier_round_is_not_read_again(path: str) -> None:
    writer, reader = SpoolWriter(path), SpoolReader(path)
    number = 0
    with pytest.raises(SpoolFullError):
        while True:
            written(writer, number + 1, 500)
            number += 1
    assert taken(reader) == list(range(1, number + 1))
    reader.keep(number)
    written(writer, number + 1, 500)
    assert taken(reader) == [number + 1]
    assert taken(SpoolReader(path)) == [number + 1]


def test_a_record_has_a_limit(path: str) -> None:
    writer = SpoolWriter(path)
    with pytest.raises(SpoolFullError, match=f"at most {MAX_RECORD_BYTES:,} bytes"):
        written(writer, 1, MAX_RECORD_BYTES)
    written(writer, 1, MAX_RECORD_BYTES - 200)
    assert taken(SpoolReader(path)) == [1]


def test_half_a_record_is_none(path: str) -> None:
    writer, reader = SpoolWriter(path), SpoolReader(path)
    written(writer, 1)
    written(writer, 2, 1000)
    with open(path, "r+b") as file:
        file.seek(HEAD_BYTES + 300)
        file.write(b"\xff")
    assert taken(reader) == [1]
    assert taken(SpoolReader(path)) == [1]


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"no frame at all", id="no frame"),
        pytest.param(encode(m.LookAt("sp-1")), id="another message"),
        pytest.param(encode(m.Spawned("", "app/function", "", 1.0)), id="no id"),
        pytest.param(encode(m.Spawned("fc-1", "x" * 301, "", 1.0)), id="a long id"),
        pytest.param(encode(m.Spawned("fc-\x1b[2J", "app/function", "", 1.0)), id="an escape"),
        pytest.param(encode(m.Spawned("fc-1", "app/function", "", float("nan"))), id="no moment"),
        pytest.param(encode(m.Spawned("fc-1", "app/function", "", -1.0)), id="before all"),
    ],
)
def test_what_is_no_spawn_is_counted_and_left_out(path: str, frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = SpoolWriter(path), SpoolReader(path)
    with monkeypatch.context() as patch:
        patch.setattr(spool, "encode", lambda message, payload: frame)
        written(writer, 1)
    written(writer, 2)
    assert [(number, said is None) for number, said in reader.take()] == [(1, True), (2, False)]


def test_the_writer_finds_its_permit_and_who_looks(path: str) -> None:
    writer, reader = SpoolWriter(path), SpoolReader(path)
    found = [(writer.permit, writer.is_watched)]
    reader.give(7)
    found.append((writer.permit, writer.is_watched))
    until = reader.promise(60.0)
    found.append((writer.permit, writer.is_watched))
    reader.promise(-1.0)
    reader.keep(3)
    found.append((writer.permit, writer.is_watched))
    assert found == [(0, False), (7, False), (7, True), (7, False)]
    assert until > spool.monotonic_now() + 50e9


def test_a_spool_is_abandoned_when_its_writer_is_gone(path: str) -> None:
    writer = SpoolWriter(path)
    reader = SpoolReader(path)
    assert not reader.is_abandoned()
    writer.close()
    writer.close()
    assert reader.is_abandoned()


def test_a_file_that_is_there_is_nobodys_new_spool(path: str) -> None:
    SpoolWriter(path).close()
    with pytest.raises(FileExistsError):
        SpoolWriter(path)
    assert os.stat(path).st_size == SPOOL_BYTES


def test_one_that_can_t_be_made_leaves_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        SpoolWriter(path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("error", [OSError("broken"), KeyboardInterrupt()])
def test_after_an_exception_nothing_more_is_written(
    path: str, call: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(path)
    written(writer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(error))
        with pytest.raises(type(error)):
            written(writer, 2)
            writer.sync()
    assert not writer.is_usable


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_was_synced_and_is_not_kept_is_found_after_a_power_failure(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of what no sync waited for, any part may have reached the disk."""
    path = str(tmp_path_factory.mktemp("spools") / "sp-1")
    writer, reader = SpoolWriter(path), SpoolReader(path)
    disk = image(path)
    dirty: list[tuple[int, bytes]] = []  # written since, each where and what
    number = synced = kept = 0
    for step in data.draw(st.lists(st.sampled_from(["write", "write", "sync", "take", "keep"]), max_size=60)):
        before = image(path)
        if step == "write":
            try:
                written(writer, number + 1, data.draw(st.sampled_from([1, 100, LARGE])))
                number += 1
            except SpoolFullError:
                pass
        elif step == "sync":
            writer.sync()
            disk, dirty, synced = image(path), [], number
        elif step == "take":
            taken(reader)
        elif reader._number > kept:
            kept = data.draw(st.integers(kept + 1, reader._number))
            reader.keep(kept)
        if (change := changed(before, image(path))) is not None:
            dirty.append(change)
    for at, content in dirty:
        reached = data.draw(st.integers(0, len(content)))
        disk = disk[:at] + content[:reached] + disk[at + reached :]
    writer.close()
    reader.close()
    Path(path).write_bytes(disk)
    found = taken(SpoolReader(path))
    assert found == sorted(set(found))
    assert set(range(kept + 1, synced + 1)) <= set(found) <= set(range(1, number + 1))
    os.unlink(path)


def image(path: str) -> bytes:
    return Path(path).read_bytes()


def changed(before: bytes, after: bytes) -> tuple[int, bytes] | None:
    """Where they differ from one another first, and all up to where they differ last."""
    if before == after:
        return None
    first = next(at for at in range(0, len(after), 4096) if before[at : at + 4096] != after[at : at + 4096])
    first = next(at for at in range(first, len(after)) if before[at] != after[at])
    last = next(at for at in range(len(after), 0, -4096) if before[at - 4096 : at] != after[at - 4096 : at])
    last = next(at for at in range(last, 0, -1) if before[at - 1] != after[at - 1])
    return first, after[first:last]
