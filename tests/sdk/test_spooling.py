"""The spool of a program's connection, between the program that writes and the one that closes."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from upswell.sdk import spooling
from upswell.sdk.spooling import ALONE
from upswell.wire import messages as m
from upswell.wire.spool import SpoolReader

from .test_spawning import LANE, Desk

PATIENCE_SECONDS = 60.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Whose peer has a place for a spool."""
    desk = Desk()
    desk.peer.send(m.Welcome(m.PROTOCOL, 1, "unix:none", True, False, 0, str(tmp_path)))
    yield desk
    desk.close()


def test_who_closes_leaves_the_file_to_who_writes_to_it(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "CLOSE_SECONDS", 0.01)
    ours = desk.client.spawning.spooling
    for _ in range(ALONE):
        ours.permitted(LANE, 5)
    while not desk.client.spools:
        pass  # the reader has not heard of it yet
    assert not ours.write(desk.make(1))  # which makes it
    (path,) = tmp_path.iterdir()
    reader = SpoolReader(str(path))
    reader.give(5)
    is_written, may_go_on = threading.Event(), threading.Event()
    sync = os.fdatasync

    def sync_slowly(file: int) -> None:
        is_written.set()
        may_go_on.wait(PATIENCE_SECONDS)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", sync_slowly)
    written: list[bool] = []
    writing = threading.Thread(target=lambda: written.append(ours.write(desk.make(2))))
    writing.start()
    is_written.wait(PATIENCE_SECONDS)
    ours.close()
    assert not reader.is_abandoned()
    may_go_on.set()
    writing.join()
    assert written == [True]
    assert reader.is_abandoned()
    assert [said is not None for _, said in reader.take()] == [True]
    assert not ours.write(desk.make(3))
    reader.close()
