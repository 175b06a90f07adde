"""The files of logs: a directory for each app, in it a few files of limited size, of which the oldest goes.

Everything here waits for the disk, so it is called from a thread of its own. An entry is one line of JSON; one that was
half written at a kill is passed over.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from hashlib import blake2s
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from ..wire.messages import LogEntry

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES = 8 << 20  # a file that has reached this is ended
FILES_OF_AN_APP = 4
FILES_BYTES = 1 << 30  # of all apps together
OPEN_FILES = 64  # at once

_decode = msgspec.json.Decoder(LogEntry).decode
encode = msgspec.json.Encoder().encode


class LogFile(msgspec.Struct, eq=False):
    """One that is open for writing."""

    path: Path
    descriptor: int
    size: int


class LogFiles:
    """Appends to the latest file of each app, and reads them backwards."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, LogFile] = {}  # by app, the latest used last

    def append(self, app: str, data: bytes) -> None:
        """Write entries, each a line; all of it or, with `OSError`, nothing."""
        file = self._open.pop(app, None) or self._begin(app)
        self._open[app] = file
        try:
            written = 0
            while written < len(data):
                written += os.write(file.descriptor, data[written:])
        except OSError:
            os.ftruncate(file.descriptor, file.size)
            raise
        file.size += len(data)
        if file.size >= FILE_BYTES:
            self._end(app)
        if len(self._open) > OPEN_FILES:
            self._end(next(iter(self._open)))

    def last(self, app: str, lines: int, function: str = "", container: str = "", after: float = 0.0) -> list[LogEntry]:
        """The last lines that are about the function and the container, where they are named, the oldest first.

        With `after`, those that came after the entry of that moment, or where it is not there, those of later moments.
        """
        if not app:
            return self._of_container(container, lines, after)
        found: list[LogEntry] = []
        for entry in chain.from_iterable(map(_backwards, reversed(self._files(app)))):
            if lines <= 0 or (after and entry.at == after):
                return found[::-1]
            if (function and entry.function != function) or (container and entry.container != container):
                continue
            there = entry.text.rstrip("\n").split("\n")
            if len(there) > lines:
                entry = replace(entry, text="\n".join(there[-lines:]) + "\n")
            found.append(entry)
            lines -= len(there)
        return [entry for entry in reversed(found) if entry.at >= after]

    def close(self) -> None:
        """Let go of all files."""
        for app in list(self._open):
            self._end(app)

    def _of_container(self, container: str, lines: int, after: float) -> list[LogEntry]:
        """The same where nobody knows whose the container was: ids are given once, so one app has it."""
        needle = encode(container)
        for path in sorted(self._directory.glob("*/*"), key=_age, reverse=True):
            with contextlib.suppress(OSError):
                if needle in path.read_bytes():
                    return self.last(path.parent.name, lines, container=container, after=after)
        return []

    # -- files -------------------------------------------------------------------------------------

    def _begin(self, app: str) -> LogFile:
        """Go on with the latest file, or begin a new one where that is full, or where its last line is half."""
        folder = self._directory / folder_of(app)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = self._files(app)
        if files and _size(files[-1]) < FILE_BYTES and _is_whole(files[-1]):
            path = files[-1]
        else:
            for old in files[: max(0, len(files) - FILES_OF_AN_APP + 1)]:
                old.unlink(missing_ok=True)
            self._make_room()
            path = folder / f"{int(files[-1].stem) + 1 if files else 1:09}.jsonl"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may have been emptied
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return LogFile(path, descriptor, os.fstat(descriptor).st_size)

    def _end(self, app: str) -> None:
        os.close(self._open.pop(app).descriptor)

    def _make_room(self) -> None:
        """Remove the oldest files, whosever they are, until a new one has room."""
        files = sorted(self._directory.glob("*/*"), key=_age)
        sizes = {path: _size(path) for path in files}
        excess = sum(sizes.values()) + FILE_BYTES - FILES_BYTES
        for path in files:
            if excess <= 0:
                return
            for app in [app for app, file in self._open.items() if file.path == path]:
                self._end(app)
            excess -= sizes[path]
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are in it
                path.parent.rmdir()

    def _files(self, app: str) -> list[Path]:
        return sorted((self._directory / folder_of(app)).glob("*.jsonl"))


def folder_of(app: str) -> str:
    """The name of the app's directory: its id, unless a client has made up one that is no good name."""
    return app if re.fullmatch(r"[\w-]{1,64}", app, re.ASCII) else blake2s(app.encode(), digest_size=16).hexdigest()


def _backwards(path: Path) -> Iterator[LogEntry]:
    """The entries of the file, the last one first."""
    try:
        data = path.read_bytes()
    except OSError:
        return  # it has gone meanwhile
    end = data.rfind(b"\n") + 1
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield _decode(data[start:end])
        end = start


def _is_whole(path: Path) -> bool:
    """Whether its last line is; so is a file without any."""
    with path.open("rb") as file:
        file.seek(max(0, _size(path) - 1))
        return file.read(1) in (b"", b"\n")


def _age(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0
