"""The file: what it survives, whom it refuses, and how large it gets."""

from __future__ import annotations

import math
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from pickle import PickleBuffer
from queue import SimpleQueue

import apsw
import pytest

from upswell import store as s
from upswell.errors import ConflictError, Error, ResourceExhaustedError, StoreError
from upswell.home import DATABASE
from upswell.spec import OUTCOMES_KEPT_SECONDS
from upswell.store import Kept
from upswell.stores import schema, writer
from upswell.stores.file import back_up
from upswell.stores.recent import Recent
from upswell.stores.sqlite import SqliteStore
from upswell.wire.buffers import Block

from .desk import Desk, opened, outputs, saved

KIB = 1 << 10


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def large(call: str, first: int, kibibytes: int = 64) -> s.PutInputs:
    return s.PutInputs(call, first, 1, False, Kept(os.urandom(kibibytes * KIB)))


def refuses(home: Path) -> StoreError:
    with pytest.raises(StoreError) as refused:
        SqliteStore(home, print, print)
    return refused.value


# -- restarts --------------------------------------------------------------------------------------


def test_everything_is_there_again(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.offer(*opened("fc-1"))
        desk.commit(outputs("fc-1", 2, 3), s.PutAttempts("fc-1", 7, 1, 0))
        desk.offer(*opened("fc-2"))
        before, first_id = saved(desk), desk.store.load().first_id
    with Desk(tmp_path) as desk:
        assert saved(desk) == before
        assert desk.store.load().first_id > first_id
        assert bytes(desk.store.inputs("fc-2", 0).payload) == b"inputs of fc-2"
        assert desk.offer(s.PutInputs("fc-2", 10, 1, True, Kept(b"the next"))) is None
        assert isinstance(desk.offer(*opened("fc-1")), ConflictError)


def test_what_was_committed_before_the_end_is_kept(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.offer(*opened("fc-1", 1000))
        for first in range(1000):
            desk.store.commit([outputs("fc-1", first, 1)], lambda: None)
    with Desk(tmp_path) as desk:
        assert [outcome.first for outcome in desk.store.outcomes("fc-1")] == list(range(1000))


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with Desk(tmp_path / "home") as desk:
        desk.offer(*opened("fc-1"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_what_is_known_of_inputs_goes_with_their_segment(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        for call in ("fc-1", "fc-2", "fc-3"):
            desk.offer(*opened(call), s.PutInputs(call, 10, 10, True, Kept(b"")))
            desk.commit(*(s.PutAttempts(call, position, 1, 0) for position in (3, 15)))
            assert desk.offer(s.CancelInput(call, 4), s.CancelInput(call, 14)) is None
        desk.commit(s.DropInputs("fc-1", 0))
    with Desk(tmp_path) as desk:  # which has noted nothing itself
        desk.commit(s.DropInputs("fc-2", 10))
        desk.commit(s.DropCall("fc-3"))
    connection = apsw.Connection(str(tmp_path / DATABASE))
    for table, positions in (("attempts", (15, 3)), ("cancelled_inputs", (14, 4))):
        left = connection.execute(
            f"SELECT id, position FROM {table} JOIN calls ON call = number ORDER BY id"
        ).fetchall()
        assert left == [("fc-1", positions[0]), ("fc-2", positions[1])]
    connection.close()


def test_what_is_noted_of_inputs_is_forgotten_with_their_call(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        store = desk.store
        assert isinstance(store, SqliteStore)
        for call in ("fc-1", "fc-2"):
            desk.offer(*opened(call, last=True))
            desk.commit(s.PutAttempts(call, 3, 1, 0))
        desk.commit(outputs("fc-1", 0, 10), s.DropInputs("fc-1", 0), s.FinishCall("fc-1", 0.0))
        desk.commit(s.DropCall("fc-2"))
        desk.sweep(OUTCOMES_KEPT_SECONDS)
        assert not store._writer._rows._noted


# -- one server a directory --------------------------------------------------------------------------


def test_a_second_server_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    said = rf"{tmp_path} is in use by another server, process {os.getpid()}"
    with Desk(tmp_path), pytest.raises(ConflictError, match=said):
        SqliteStore(tmp_path, print, print)
    with Desk(tmp_path):
        pass


# -- no room ---------------------------------------------------------------------------------------


def test_without_room_submissions_are_refused_and_outcomes_wait(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.offer(*opened("fc-1", 1))
        first, refused = 1, None
        done: list[bool] = []
        with no_file_larger_than(1024 * KIB):
            while (refused := desk.offer(large("fc-1", first))) is None:
                first += 1
            assert isinstance(refused, ResourceExhaustedError)
            assert DATABASE in str(refused)
            assert 5 < first < 20
            before = saved(desk)
            for position in range(first):  # each more than what may be left: an input of half the size had no room
                desk.store.commit(
                    [s.PutOutcome("fc-1", s.Outcome(position, 1, Kept(os.urandom(128 * KIB))))],
                    lambda: done.append(True),
                )
            assert isinstance(desk.offer(large("fc-1", first)), ResourceExhaustedError)
            assert not done
            assert desk.store.trouble == str(refused)
            assert saved(desk) == before
            assert len(desk.store.inputs("fc-1", 1).payload) == 64 * KIB
        desk.commit()
        assert len(done) == first
        assert desk.offer(large("fc-1", first)) is None
        assert desk.store.trouble == ""
        assert len(list(desk.store.outcomes("fc-1"))) == first
    with Desk(tmp_path) as desk:
        left = saved(desk)["fc-1"]
        assert left.submitted == first + 1
        assert [segment.first for segment in left.segments if segment.unsettled] == [first]


def test_a_refused_step_leaves_its_neighbours_in_the_group_alone(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        answers: dict[str, Error | None] = {}
        with no_file_larger_than(512 * KIB):
            for call, kibibytes in (("fc-1", 1), ("fc-2", 4096), ("fc-3", 1)):
                writes = [*opened(call, 1)[:1], large(call, 0, kibibytes)]
                desk.store.offer(writes, partial(answers.__setitem__, call))
            desk.commit()
        assert answers["fc-1"] is None
        assert isinstance(answers["fc-2"], ResourceExhaustedError)
        assert answers["fc-3"] is None
        assert saved(desk).keys() == {"fc-1", "fc-3"}


def test_what_can_not_be_kept_and_must_be_ends_the_store(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.offer(*opened("fc-1"))
    desk.commit(outputs("fc-1", 0, 1))
    desk.store.commit([outputs("fc-1", 0, 1)], lambda: None)  # twice: a defect of ours
    desk.run_until(desk.failures)
    assert "kept already" in str(desk.failures[0])
    desk.store.close()
    with Desk(tmp_path) as again:
        assert len(list(again.store.outcomes("fc-1"))) == 1


# -- damage ----------------------------------------------------------------------------------------


def filled(home: Path) -> Path:
    with Desk(home) as desk:
        for number in range(20):
            desk.offer(*opened(f"fc-{number}"), large(f"fc-{number}", 10))
    return home / DATABASE


def test_a_damaged_file_is_refused_by_name_with_what_to_do(tmp_path: Path) -> None:
    file = filled(tmp_path)
    contents = bytearray(file.read_bytes())
    contents[4096 * 3 : 4096 * 9] = os.urandom(4096 * 6)
    file.write_bytes(contents)
    error = str(refuses(tmp_path))
    assert str(file) in error
    assert "upswell server backup" in error


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    file = filled(tmp_path)
    os.truncate(file, file.stat().st_size // 2 // 4096 * 4096)
    assert str(file) in str(refuses(tmp_path))


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("a letter to a friend, long enough to be one" * 100)
    assert "upswell server backup" in str(refuses(tmp_path))


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / DATABASE))
    other.execute("CREATE TABLE songs (title)")
    other.close()
    assert "another program" in str(refuses(tmp_path))


# -- formats ---------------------------------------------------------------------------------------


def test_a_file_of_an_earlier_format_is_brought_up(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "old.db"))
    earlier = ("CREATE TABLE calls (id TEXT); INSERT INTO calls VALUES ('fc-1')",)
    later = (*earlier, "ALTER TABLE calls ADD COLUMN tag TEXT NOT NULL DEFAULT 'none'", "CREATE TABLE tags (tag TEXT)")
    schema.migrate(connection, earlier)
    schema.migrate(connection, later)
    schema.migrate(connection, later)
    assert connection.execute("SELECT id, tag FROM calls").fetchall() == [("fc-1", "none")]
    assert connection.pragma("user_version") == 3
    connection.close()


def test_the_first_format_is_brought_up(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / DATABASE))
    schema.migrate(connection, schema.MIGRATIONS[:1])
    connection.close()
    with Desk(tmp_path) as desk:
        desk.offer(*opened("fc-1"))
        assert desk.offer(s.CancelInput("fc-1", 3)) is None
        (call,) = desk.store.load().calls
        assert call.cancelled_inputs == (3,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "old.db"))
    schema.migrate(connection, ("CREATE TABLE calls (id TEXT)",))
    with pytest.raises(apsw.SQLError):
        schema.migrate(connection, ("", "CREATE TABLE tags (tag TEXT)", "DROP TABLE calls; nonsense"))
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    assert (connection.pragma("user_version"), tables) == (2, {"calls", "tags"})
    connection.close()


def test_a_file_of_a_later_format_is_refused(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.offer(*opened("fc-1"))
    connection = apsw.Connection(str(tmp_path / DATABASE))
    connection.pragma("user_version", len(schema.MIGRATIONS) + 1)
    connection.close()
    assert "newer upswell" in str(refuses(tmp_path))


# -- copies ----------------------------------------------------------------------------------------


def test_a_copy_is_consistent_while_others_write(tmp_path: Path) -> None:
    with Desk(tmp_path / "home") as desk:
        desk.offer(*opened("fc-0"))
        copied: list[Error | None] = []
        desk.store.backup(str(tmp_path / "copy" / DATABASE), copied.append)
        desk.run_until(copied)
        assert isinstance(copied.pop(), StoreError), "there is no such directory"
        (tmp_path / "copy").mkdir()
        desk.store.backup(str(tmp_path / "copy" / DATABASE), copied.append)
        number = 1
        while not copied:
            desk.offer(*opened(f"fc-{number}"))
            desk.commit(outputs(f"fc-{number}", 0, 10), s.DropInputs(f"fc-{number}", 0))
            number += 1
        assert copied == [None]
    assert os.listdir(tmp_path / "copy") == [DATABASE]
    with Desk(tmp_path / "copy") as copy:
        calls = saved(copy)
        assert 1 <= len(calls) <= number
        for call in calls.values():  # each step whole: the segment, or its outcome and no segment
            settled = bool(list(copy.store.outcomes(call.id)))
            assert settled != bool(call.segments)


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with Desk(tmp_path / "home") as desk:
        desk.offer(*opened("fc-1"), large("fc-1", 10, 512))
        with no_file_larger_than(256 * KIB):
            refused = desk.backup(tmp_path / "copy" / DATABASE)
        assert "there is no room" in str(refused)
        assert os.listdir(tmp_path / "copy") == []
        assert desk.backup(tmp_path / "copy" / DATABASE) is None
        assert os.listdir(tmp_path / "copy") == [DATABASE]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_copy_never_takes_the_place_of_what_it_is_a_copy_of(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "home")
    with Desk(tmp_path / "home") as desk:
        desk.offer(*opened("fc-1"))
        file = tmp_path / "home" / f"{DATABASE}{suffix}"
        before = file.stat().st_ino
        for path in (file, tmp_path / "link" / file.name):
            assert "is the database itself" in str(desk.backup(path))
        assert file.stat().st_ino == before
    with Desk(tmp_path / "home") as desk:
        assert list(saved(desk)) == ["fc-1"]
    with pytest.raises(StoreError, match="is the database itself"):
        back_up(tmp_path / "home", str(tmp_path / "home" / f"{DATABASE}{suffix}"))


# -- size ------------------------------------------------------------------------------------------


def test_room_is_given_back(tmp_path: Path) -> None:
    file = tmp_path / DATABASE
    with Desk(tmp_path) as desk:
        for number in range(100):
            desk.offer(*opened(f"fc-{number}"), large(f"fc-{number}", 10, 256))
            desk.commit(s.DropInputs(f"fc-{number}", 0), s.DropInputs(f"fc-{number}", 10))
        assert file.stat().st_size < 24 * KIB * KIB, "what is free is used again"
        for number in range(100, 200):
            desk.offer(*opened(f"fc-{number}"), large(f"fc-{number}", 10, 256))
        for number in range(100, 200):
            desk.commit(
                outputs(f"fc-{number}", 0, 11),
                s.DropInputs(f"fc-{number}", 0),
                s.DropInputs(f"fc-{number}", 10),
                s.FinishCall(f"fc-{number}", 0.0),
            )
        desk.sweep(OUTCOMES_KEPT_SECONDS)
    assert file.stat().st_size < 6 * KIB * KIB
    assert not (tmp_path / f"{DATABASE}-wal").exists()


def test_buffers_go_with_their_segment(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        block = Block.write([PickleBuffer(bytes(KIB))])
        desk.offer(*opened("fc-1", block=block))
        block.close()
        desk.offer(*opened("fc-2"))
        desk.commit(s.DropInputs("fc-1", 0), s.DropInputs("fc-2", 0))
    connection = apsw.Connection(str(tmp_path / DATABASE))
    left = connection.execute("SELECT * FROM segments UNION ALL SELECT *, 0, 0, 0 FROM pieces").fetchall()
    connection.close()
    assert left == []


def test_a_commit_finds_room_in_the_log_and_does_not_let_it_grow(tmp_path: Path) -> None:
    log = tmp_path / f"{DATABASE}-wal"
    with Desk(tmp_path) as desk:
        sizes = set()
        for number in range(200):
            desk.offer(*opened(f"fc-{number}"))
            sizes.add(log.stat().st_size)
        assert len(sizes) < 20
        kept = saved(desk)
    with Desk(tmp_path) as desk:
        assert saved(desk) == kept and len(kept) == 200


def test_the_log_is_emptied_when_it_is_long(tmp_path: Path) -> None:
    log = tmp_path / f"{DATABASE}-wal"
    with Desk(tmp_path) as desk:
        desk.offer(*opened("fc-1", 1))
        for first in range(1, 200):
            desk.offer(large("fc-1", first, 256))
            assert log.stat().st_size < 20 * KIB * KIB


class Loop:
    """What a store asks of the server's loop."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.told: SimpleQueue[Callable[[], None]] = SimpleQueue()  # by the thread that writes

    def turn(self) -> None:
        """Do what is due."""
        while self.soon:
            self.soon.pop(0)()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setattr(writer, "QUICK_SECONDS", math.inf)
    return Loop()


def at_rest(home: Path, loop: Loop) -> SqliteStore:
    """A store whose thread has written something, and now waits for more."""
    store = SqliteStore(home, loop.told.put, print, loop.soon.append)
    store.commit([], lambda: None)
    loop.turn()
    loop.told.get(timeout=30)()
    while store._writer._put != store._writer._done:
        os.sched_yield()
    return store


def test_what_is_offered_alone_is_written_by_the_loop(tmp_path: Path, loop: Loop) -> None:
    store, answers, shown = at_rest(tmp_path, loop), list[Error | None](), list[bool]()
    for number in range(20):
        store.commit([*opened(f"fc-decided-{number}", 1, last=True)], lambda: shown.append(True))
        store.offer(opened(f"fc-{number}", 1, last=True), answers.append)
        assert len(answers) == number, "not within the turn that offers it"
        loop.turn()
        assert len(answers) == len(shown) == number + 1
    assert answers == [None] * 20 and loop.told.empty()
    store.close()
    with Desk(tmp_path) as desk:
        assert len(saved(desk)) == 40


OTHERS: dict[str, Callable[[], list[list[s.Write]]]] = {
    "two": lambda: [opened("fc-1", 1, last=True), opened("fc-2", 1, last=True)],
    "large": lambda: [[*opened("fc-1")[:1], s.PutInputs("fc-1", 0, 1, True, Kept(bytes(64 * KIB)))]],
    "a group": lambda: [opened("fc-1", 2, last=True)],
    "more follows": lambda: [opened("fc-1", 1)],
    "many": lambda: [[write for number in range(50) for write in opened(f"fc-{number}", 1, last=True)]],
    "refused": lambda: [[s.PutInputs("fc-1", 0, 1, True, Kept(b""))]],
}


@pytest.mark.parametrize("offered", OTHERS.values(), ids=OTHERS)
def test_all_else_is_written_by_the_thread(
    tmp_path: Path, loop: Loop, offered: Callable[[], list[list[s.Write]]]
) -> None:
    store, answers = at_rest(tmp_path, loop), list[Error | None]()
    steps = offered()
    for step in steps:
        store.offer(step, answers.append)
    loop.turn()
    assert not answers
    while len(answers) < len(steps):
        loop.told.get(timeout=30)()
    store.close()


def test_the_loop_does_not_wait_for_a_slow_disk(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    store, answers = at_rest(tmp_path, loop), list[Error | None]()
    monkeypatch.setattr(writer, "QUICK_SECONDS", 0.0)
    store.offer(opened("fc-1", 1, last=True), answers.append)
    loop.turn()
    assert not answers
    loop.told.get(timeout=30)()
    assert answers == [None]
    store.close()


def test_nothing_is_written_before_what_the_thread_has(tmp_path: Path, loop: Loop) -> None:
    store, answers = at_rest(tmp_path, loop), list[str]()
    store.commit(opened("fc-1", 1, last=True), lambda: answers.append("decided"))
    loop.turn()
    store.offer(opened("fc-2", 1, last=True), lambda _: answers.append("offered"))
    loop.turn()
    while len(answers) < 2:
        loop.told.get(timeout=30)()
    assert answers == ["decided", "offered"]
    store.close()


def test_nothing_is_answered_before_what_the_thread_has_written(tmp_path: Path, loop: Loop) -> None:
    """It has written that, and the loop has not heard so."""
    store, answers = at_rest(tmp_path, loop), list[str]()
    store.commit(opened("fc-1", 1, last=True), lambda: answers.append("decided"))
    loop.turn()
    while store._writer._put != store._writer._done:
        os.sched_yield()
    store.offer(opened("fc-2", 1, last=True), lambda _: answers.append("offered"))
    loop.turn()
    assert not answers
    while len(answers) < 2:
        loop.told.get(timeout=30)()
    assert answers == ["decided", "offered"]
    store.close()


def test_the_log_is_looked_after_when_the_loop_writes(tmp_path: Path, loop: Loop) -> None:
    store, log = at_rest(tmp_path, loop), tmp_path / f"{DATABASE}-wal"
    sizes = set()
    for number in range(200):
        store.offer(opened(f"fc-{number}", 1, last=True), lambda _: None)
        loop.turn()
        while store._writer._put != store._writer._done:
            os.sched_yield()
        sizes.add(log.stat().st_size)
    assert len(sizes) < 20
    assert loop.told.empty()
    store.close()


def test_a_log_that_has_no_room_to_grow_takes_none(tmp_path: Path) -> None:
    log = tmp_path / f"{DATABASE}-wal"
    with Desk(tmp_path) as desk, no_file_larger_than(512 * KIB):
        for number in range(10):
            assert desk.offer(*opened(f"fc-{number}")) is None
        assert log.stat().st_size < 512 * KIB


def test_only_so_much_is_kept_in_memory() -> None:
    recent = Recent(100 * KIB)
    for first in range(100):
        recent.put("fc-1", first, Kept(bytes(10 * KIB)))
    held = [first for first in range(100) if recent.lend("fc-1", first)]
    assert held == list(range(91, 100))
    recent.drop_call("fc-1")
    assert not any(recent.lend("fc-1", first) for first in range(100))
