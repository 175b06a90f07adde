"""A spool: the file into which a program of the server's user writes its spawns down itself, one after the other.

A spawn is on disk when its writer has synced it, so neither has to wait for the other. The reader takes what it finds,
keeps it, and says in the file's head up to where; a reader that was killed begins there again. The kernel holds a lock
on the file for as long as its writer lives, and without that lock nobody deletes it.

A record is `u32 bytes of the frame · u32 checksum · u64 number · frame`, little endian; numbers count from 1. When the
file is full and everything in it is kept, writing begins again behind the head: what follows the last record is then of
an earlier round, which its numbers tell.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from binascii import crc32
from collections.abc import Iterator

from ..errors import Error
from .codec import Bytes, Decoder, ProtocolError, encode
from .ids import is_id
from .messages import Spawned

SPOOL_BYTES = 256 << 10
HEAD_BYTES = 4096
READ_BYTES = 4096  # at once, or a larger record
MAX_RECORD_BYTES = 32 << 10
LEAST_RECORD_BYTES = 64
MOST_RECORDS = (SPOOL_BYTES - HEAD_BYTES) // LEAST_RECORD_BYTES  # in one spool at once
MAX_MOMENT = 1e11  # in seconds since the epoch

# Records kept · the permit · until when the reader looks by itself, in monotonic nanoseconds.
_HEAD = struct.Struct("<QQQ")
_RECORD = struct.Struct("<IIQ")
_LENGTHS = struct.Struct("<II")
_NUMBER = struct.Struct("<Q")


class SpoolFullError(Error):
    """What is in the spool is not kept yet, and there is no room for more."""


class SpoolWriter:
    """The writing end, of one program. Not for two threads at once.

    After an exception, wherever it came from, nothing more is written: what a reader has seen must not change.
    """

    def __init__(self, path: str) -> None:
        """Make the file, which must not exist; `OSError` where that can't be done."""
        self.path = path
        self.name = os.path.basename(path)
        self.is_usable = False
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._number = 0  # of the last record
        self._end = HEAD_BYTES  # of it, in the file
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody is waited for, nor who has just found it
            # Zeros and not only a size, so that a record needs no more than its own blocks to reach the disk.
            if os.pwrite(self._file, bytes(SPOOL_BYTES), 0) < SPOOL_BYTES:
                raise OSError(f"{path} could not be written whole")
            os.fsync(self._file)
            sync_path(os.path.dirname(path))
        except BaseException:
            self.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        self.is_usable = os.fstat(self._file).st_nlink > 0  # else somebody has found it before it was locked

    @property
    def permit(self) -> int:
        """What the reader permits just now; 0 before there is one."""
        return self._head()[1]

    @property
    def is_watched(self) -> bool:
        """Whether the reader will look without being told to, so that it finds what is written by now."""
        return monotonic_now() < self._head()[2]

    def write(self, message: Spawned, payload: Bytes) -> None:
        """Append a record, which a reader sees from now on and `sync` waits for; `SpoolFullError`, `OSError`."""
        record = _record(self._number + 1, message, payload)
        if len(record) > MAX_RECORD_BYTES:
            raise SpoolFullError(f"a record has at most {MAX_RECORD_BYTES:,} bytes, not {len(record):,}")
        at = self._end
        if at + len(record) > SPOOL_BYTES:
            if self._head()[0] < self._number:
                raise SpoolFullError(f"{self._number - self._head()[0]:,} records of {self.path} are not kept yet")
            at = HEAD_BYTES
        self.is_usable = False
        if os.pwrite(self._file, record, at) < len(record):
            raise OSError(f"{self.path} could not be written")
        self._number += 1
        self._end = at + len(record)
        self.is_usable = True

    def sync(self) -> None:
        """Wait until what was written is on disk; `OSError` where that is not known."""
        self.is_usable = False
        os.fdatasync(self._file)
        self.is_usable = True

    def is_there(self) -> bool:
        """Whether the file is still where it was made."""
        return os.fstat(self._file).st_nlink > 0

    def close(self) -> None:
        """Let go of the file; what is in it is the reader's."""
        self.is_usable = False
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def _head(self) -> tuple[int, int, int]:
        kept, permit, until = _HEAD.unpack(os.pread(self._file, _HEAD.size, 0))
        return kept, permit, until


class SpoolReader:
    """The reading end, of one server; of several in turn, each begins with what the one before has not kept."""

    def __init__(self, path: str) -> None:
        """`OSError` where there is no such file, or what has its name is none."""
        self.path = path
        self.name = os.path.basename(path)
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            self.close()
            raise OSError(errno.EINVAL, "it is no file", path)
        head = os.pread(self._file, _HEAD.size, 0)
        self.kept = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
        self._number = self.kept  # of the last record that was read
        self._end = HEAD_BYTES  # of it, in the file
        self._find_place()

    def take(self) -> Iterator[tuple[int, tuple[Spawned, memoryview] | None]]:
        """What was written since: each record's number, and the spawn that it is; nothing where it is none."""
        while records := self._read(self._end, self._number + 1) or self._read(HEAD_BYTES, self._number + 1):
            for number, end, frame in records:
                self._number, self._end = number, end
                yield number, _spawned(frame)

    def is_all_kept(self) -> bool:
        """Whether what was taken is kept."""
        return self.kept == self._number

    def keep(self, number: int) -> None:
        """All records up to this one are kept: no later reader needs them."""
        self.kept = number
        self._set(0, number)

    def give(self, permit: int) -> None:
        """What the writer finds as its `permit` from now on."""
        self._set(1, permit)

    def promise(self, seconds: float) -> int:
        """Have the writer tell nobody what it writes in the next `seconds`: `take` it once `monotonic_now` has reached
        the moment that is returned.
        """
        until = monotonic_now() + int(seconds * 1e9)
        self._set(2, until)
        return until

    def is_abandoned(self) -> bool:
        """Whether the writer is gone; then nobody else can become it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go of the file; what is kept from now on is not noted in it."""
        file, self._file = self._file, -1
        os.close(file)

    def _find_place(self) -> None:
        """Go to the end of what is kept. All of an earlier round is; the head may be older than this round."""
        place, first = HEAD_BYTES, None
        while records := self._read(place, first):
            for number, end, _ in records:
                if number > self.kept:
                    self._number, self._end = number - 1, place
                    return
                place, first = end, number + 1
        self._end = place

    def _read(self, place: int, first: int | None) -> list[tuple[int, int, memoryview]]:
        """Some records from that place on, the `first` of which has that number: each one's number, end and frame."""
        found: list[tuple[int, int, memoryview]] = []
        head = os.pread(self._file, _RECORD.size, place)
        if len(head) < _RECORD.size:
            return found
        size, _, number = _RECORD.unpack(head)
        first = first or number
        if not number or number != first or size > MAX_RECORD_BYTES:
            return found  # as nearly always, and nothing more is read for that
        data = memoryview(os.pread(self._file, max(READ_BYTES, _RECORD.size + size), place))
        at = 0
        while at + _RECORD.size <= len(data):
            size, checksum, number = _RECORD.unpack_from(data, at)
            begin, at = at + _RECORD.size, at + _RECORD.size + size
            if number != first or size > MAX_RECORD_BYTES or at > len(data):
                break
            if crc32(data[begin - _NUMBER.size : at]) != checksum:
                break
            found.append((number, place + at, data[begin:at]))
            first = number + 1
        return found

    def _set(self, field: int, value: int) -> None:
        if self._file >= 0:
            os.pwrite(self._file, _NUMBER.pack(value), field * _NUMBER.size)


def monotonic_now() -> int:
    """Nanoseconds of the clock that all processes of this machine share."""
    return time.monotonic_ns()


def sync_path(path: str) -> None:
    """Wait until the file, or the names in the directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _record(number: int, message: Spawned, payload: Bytes) -> bytes:
    frame = encode(message, payload)
    numbered = _NUMBER.pack(number) + frame
    return b"".join((_LENGTHS.pack(len(frame), crc32(numbered)), numbered))


def _spawned(frame: memoryview) -> tuple[Spawned, memoryview] | None:
    """The spawn, if its values are what a server may rely on."""
    try:
        said = Decoder().only(frame)
    except ProtocolError:
        return None
    if said is None or not isinstance(message := said[0], Spawned):
        return None
    are_ids = is_id(message.call) and is_id(message.function) and (not message.method or is_id(message.method))
    return (message, said[1]) if are_ids and 0 <= message.at < MAX_MOMENT else None
