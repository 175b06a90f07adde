"""The file of a store on its disk: whose it is, whether it is sound, its connections, and a copy of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import apsw

from ..errors import ConflictError, NotFoundError, StoreError
from ..home import DATABASE, LOCK, SPOOLS, open_file
from ..wire.ids import SPOOL
from ..wire.spool import sync_path
from .schema import migrate
from .spools import absorb

TRIES, TRY_SECONDS = 10, 0.01  # to take the lock
CHECKED_BYTES = 64 << 20  # a file up to this size is checked as a whole when it is opened
BUSY_MILLISECONDS = 5_000
FAILED_WRITES = {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_TRUNCATE}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
BESIDE = ("", "-wal", "-shm")  # what SQLite has of a database, by what follows its name
SETTINGS_OF_A_CONNECTION = """
PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA foreign_keys = ON; PRAGMA cache_size = -8192;
PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 33554432
"""


def lock(home: Path) -> int:
    """Hold the directory for as long as the descriptor is open: the kernel lets go of it however the process ends."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = open_file(str(home / LOCK), os.O_RDWR | os.O_CREAT)
    try:
        _take(descriptor)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise ConflictError(
            f"{home} is in use by another server, process {holder}: stop that one, or set UPSWELL_HOME"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _take(descriptor: int) -> None:
    """Take the lock, if not at once: whoever only looks whether somebody has it, has it himself for that moment."""
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(TRY_SECONDS)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def open_for_writing(path: str) -> apsw.Connection:
    """The one connection that writes, to a file that is sound and of our present format, made if need be. What programs
    have left in spools is in it.
    """
    os.close(open_file(path, os.O_RDWR | os.O_CREAT))
    sync_path(os.path.dirname(path))
    connection = apsw.Connection(path)
    try:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.pragma("auto_vacuum", "INCREMENTAL")  # heeded only before the first table
        if connection.pragma("journal_mode", "WAL") != "wal":
            raise StoreError(f"{path} is on a file system that can't keep it: choose another UPSWELL_HOME")
        connection.execute(SETTINGS_OF_A_CONNECTION)
        _check(connection)
        migrate(connection)
        connection.execute("UPDATE server SET lives = lives + 1")
        _absorb(connection, Path(path).with_name(SPOOLS))
    except BaseException:
        connection.close()
        raise
    return connection


def _absorb(connection: apsw.Connection, spools: Path) -> None:
    try:
        absorb(connection, spools)
    except apsw.Error as error:
        if not lacks_room(connection, error):
            raise  # else it stays where it is, and the server goes on with it


def _check(connection: apsw.Connection) -> None:
    """Raise `CorruptError` where the file is damaged. A large one is not read as a whole: it would take too long."""
    if connection.pragma("page_count") * connection.pragma("page_size") > CHECKED_BYTES:
        return
    found = connection.execute("PRAGMA quick_check(1)").get
    if found != "ok":
        raise apsw.CorruptError(found)


def open_for_reading(path: str) -> apsw.Connection:
    """Another connection to a file that is open for writing."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    connection.execute(SETTINGS_OF_A_CONNECTION)
    connection.execute("PRAGMA query_only = ON")
    return connection


def copy(source: str, path: str) -> None:
    """Copy all pages within one read transaction, so that writers change nothing of the copy; it appears when whole.

    Never in the place of the database itself, whose writer would go on with a file that nobody finds any more.
    """
    if os.path.realpath(path) in (os.path.realpath(source) + suffix for suffix in BESIDE):
        raise StoreError(f"{path} is the database itself, or beside it: name another file for the copy")
    part = f"{path}.part"
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    try:
        _copy_pages(source, part)
        sync_path(part)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    sync_path(os.path.dirname(os.path.abspath(path)))


def back_up(home: Path, path: str) -> None:
    """Copy the file of a home that no server uses to `path`; `ConflictError` where one does."""
    source = home / DATABASE
    if not source.exists():
        raise NotFoundError(f"there is no {source}: nothing was ever kept there")
    descriptor = lock(home)
    try:
        with explained(str(source)):
            if any((home / SPOOLS).glob(f"{SPOOL}*")):
                with contextlib.closing(open_for_writing(str(source))) as connection:
                    absorb(connection, home / SPOOLS)  # what there was no room for just now: no copy goes without it
            copy(str(source), path)
    except OSError as error:
        raise StoreError(f"{source} could not be copied to {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _copy_pages(source: str, path: str) -> None:
    reading, writing = open_for_reading(source), apsw.Connection(path)
    try:
        with writing.backup("main", reading, "main") as backup:
            backup.step(-1)
        writing.pragma("journal_mode", "DELETE")  # so that the copy is one file
    except apsw.Error as error:
        why = "there is no room" if lacks_room(writing, error) else f"{type(error).__name__}: {error}"
        raise StoreError(f"{source} could not be copied: {why}") from error
    finally:
        writing.close()
        reading.close()


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Say in our words what is wrong with the file."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise damaged(path, error) from error
    except apsw.Error as error:
        raise StoreError(f"{path} can't be used: {type(error).__name__}: {error}") from error


def lacks_room(connection: apsw.Connection, error: Exception) -> bool:
    """Whether it would succeed if the disk, a quota or a limit on the size of files gave more room."""
    if isinstance(error, apsw.IOError):
        return getattr(error, "extendedresult", 0) in FAILED_WRITES and connection.system_errno in NO_ROOM
    return isinstance(error, apsw.FullError)


def damaged(path: str, error: Exception) -> StoreError:
    """The file is not what was written to it."""
    return StoreError(
        f"{path} is damaged ({error}): put a copy made with `upswell server backup` in its place and remove the files "
        "beside it that end in -wal and -shm, or move all three away to begin with nothing"
    )
