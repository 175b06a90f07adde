"""How a server begins: what it finds out before it reads anything, and what it says of its home."""

import errno
import os
import socket
from pathlib import Path

import pytest

from upswell import home
from upswell.errors import InvalidError
from upswell.server.__main__ import declared
from upswell.server.serve import kept_bytes
from upswell.spec import Environment, FunctionRecord, FunctionSpec
from upswell.wire import messages as m
from upswell.wire.channel import Channel

RECORD = FunctionRecord(
    id="ap-1/double",
    app_name="",
    name="double",
    spec=FunctionSpec(),
    environment=Environment(kind="module", origin="m", module="m", main=False, sys_path=(), directory="/"),
)


def test_what_was_declared_is_known_before_it_is_read() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    assert declared(theirs) == []
    channel.send(m.Hello(m.PROTOCOL, "client", "", 1, ""))
    channel.send(m.OpenApp("ap-1", "", [RECORD]))
    assert declared(theirs) == [RECORD]
    server = Channel(theirs)
    assert [type(message) for message, _ in server.receive()] == [m.Hello, m.OpenApp]
    channel.close()
    server.close()


def test_what_is_no_frame_is_left_to_who_reads_it() -> None:
    ours, theirs = socket.socketpair()
    ours.send(b"\xff" * 64)
    assert declared(theirs) == []
    ours.close()
    theirs.close()


def test_a_file_of_the_database_that_vanishes_as_it_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "upswell.db").write_bytes(b"12345")
    (tmp_path / "upswell.db-wal").symlink_to("gone")
    assert kept_bytes(tmp_path) == 5


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "see whose it is, or set UPSWELL_HOME to another directory"),
        (errno.EMFILE, "raise `ulimit -n`, or close some"),
        (errno.ENOSPC, "make room, or set UPSWELL_HOME to a directory on another disk"),
    ],
)
def test_a_file_that_can_not_be_opened(number: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int, mode: int) -> int:
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(InvalidError) as refused:
            home.open_file("/home/lock", os.O_RDWR)
    assert str(refused.value) == f"/home/lock can't be used: {os.strerror(number)}: {advice}"
