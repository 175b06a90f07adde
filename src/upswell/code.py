"""`CodeStore`: files of code by their digests, and the trees that environments name, as folders for engines to run.

Everything here comes from clients, so digests are computed again and paths are held to the tree. What is there was
written whole: files and trees are made under a name that nobody looks for, and renamed. All of it is a copy of what the
server's store, a client, or for a node its server has, so nothing waits for the disk; what was written before the
machine last stopped is not trusted.

The list of a tree's files is a file itself, and its digest is that of the tree: who lacks a tree asks for that first.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from .errors import InvalidError, NotFoundError, StoreError
from .spec import MAX_TIMEOUT_SECONDS, code_digest, require
from .wire.codec import Bytes, ProtocolError

MAX_PATH_CHARACTERS = 1000
KEPT_SECONDS = MAX_TIMEOUT_SECONDS  # that a tree is kept unused: no input that has begun in it runs for longer
MODE_FILE = 0o500  # not to be written to; what a package runs as a program may be among them
MODE_FOLDER = 0o700  # Python keeps byte code beside a module

_DIGEST = re.compile(r"[0-9a-f]{64}")


class CodeStore:
    """Files and trees in one folder. Any thread may use it, and several may make the same thing at once.

    Where `is_shared`, other processes do too: what they have begun is left to them, and the folder is one of this run
    of the machine.
    """

    def __init__(self, folder: Path, *, is_shared: bool = False) -> None:
        self.trees = folder / "trees"  # the root of code, for engines: each tree is there under its digest
        self._files = folder / "files"
        self._unfinished = folder / "unfinished"
        if not is_shared:
            self._clear(folder / "boot")
        for one in (folder, self.trees, self._files, self._unfinished):
            one.mkdir(MODE_FOLDER, parents=True, exist_ok=True)

    def put(self, digest: str, content: Bytes) -> None:
        """Keep a file. `ProtocolError` where the digest is not that of the content, `StoreError` where there is no room
        for it.
        """
        if sha256(content).hexdigest() != digest:
            raise ProtocolError(f"{len(content):,} bytes came as the file {digest[:64]!r}, which they are not")
        if self._has(digest, wanted=True):
            return
        with self._explained():
            descriptor, name = tempfile.mkstemp(dir=self._unfinished)
            try:
                with open(descriptor, "wb") as file:
                    file.write(content)
                    os.fchmod(descriptor, MODE_FILE)
                os.rename(name, self._files / digest)
            except OSError:
                os.unlink(name)
                raise

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of which the file is not here, in their order and once."""
        return [digest for digest in dict.fromkeys(digests) if not self._has(digest, wanted=True)]

    def make_tree(self, files: Sequence[tuple[str, str]]) -> str:
        """The digest of the tree of these paths and digests, which is there when this returns.

        Raises `InvalidError` for a path that leads out of it or is there twice, `NotFoundError` for a file that is not
        here, `StoreError` where there is no room.
        """
        check_files(files)
        if lacking := self.missing(digest for _, digest in files):
            paths = [path for path, digest in files if digest == lacking[0]]
            raise NotFoundError(f"the content of {paths[0]} was not sent ({len(lacking)} files are missing)")
        digest = code_digest(files)
        if self.path(digest).is_dir():
            os.utime(self.path(digest))
            return digest
        self.put(digest, msgspec.json.encode(files))
        with self._explained():
            tree = Path(tempfile.mkdtemp(dir=self._unfinished))
            try:
                for path, content in files:
                    place = tree / path
                    place.parent.mkdir(MODE_FOLDER, parents=True, exist_ok=True)
                    os.link(self._files / content, place)
                tree.rename(self.path(digest))
            except OSError:
                shutil.rmtree(tree, ignore_errors=True)
                if not self.path(digest).is_dir():  # else another thread was faster
                    raise
        return digest

    def has_tree(self, files: Sequence[tuple[str, str]]) -> bool:
        """Whether the tree of these paths and digests is there."""
        return self.path(code_digest(files)).is_dir()

    def lacking(self, tree: str) -> list[str]:
        """The files to put here next for `make` to have the tree; none where all are here.

        `InvalidError` where the file with the digest of the tree is no list of one.
        """
        if not self._has(tree):
            return [tree]
        return self.missing(digest for _, digest in self._listed(tree))

    def make(self, tree: str) -> None:
        """Make the tree of that digest, of which nothing is lacking."""
        self.make_tree(self._listed(tree))

    def content(self, digest: str) -> bytes:
        """The file of that digest, which is here."""
        return (self._files / digest).read_bytes()

    def path(self, digest: str) -> Path:
        """The folder of a tree."""
        return self.trees / digest

    def sweep(self, used: Collection[str]) -> Iterator[None]:
        """Let go of trees that have not been among the `used` for a day, and of files that no tree has; a little in
        each step. For the one process that puts things here, in the thread that does.
        """
        for tree in [self.path(name) for name in os.listdir(self.trees)]:
            yield
            if tree.name in used:
                os.utime(tree)
            elif _is_old(tree.stat()):
                gone = self._unfinished / f"{tree.name}.gone"
                tree.rename(gone)  # first, so that whenever this is cut short nobody finds half of it
                yield from _remove(gone)
        for file in [self._files / name for name in os.listdir(self._files)]:
            yield
            found = file.stat()
            if found.st_nlink == 1 and _is_old(found) and not self.path(file.name).is_dir():
                file.unlink()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in our words that there is no room."""
        try:
            yield
        except OSError as error:
            where = f"the code can't be kept in {self._files.parent}"
            raise StoreError(f"{where}: {error.strerror or error}: make room there, and try again") from error

    def _listed(self, tree: str) -> list[tuple[str, str]]:
        try:
            files = msgspec.json.decode(self.content(tree), type=list[tuple[str, str]])
        except msgspec.MsgspecError as error:
            raise InvalidError(f"the file {tree[:12]} is no list of files: {error}") from None
        check_files(files)
        return files

    def _clear(self, mark: Path) -> None:
        """Remove what was begun when an earlier server ended, and all where the machine was started since."""
        boot = _boot()
        shutil.rmtree(self._unfinished, ignore_errors=True)
        if not _says(mark, boot):
            shutil.rmtree(self.trees, ignore_errors=True)
            shutil.rmtree(self._files, ignore_errors=True)
        mark.parent.mkdir(MODE_FOLDER, parents=True, exist_ok=True)
        mark.write_text(boot)

    def _has(self, digest: str, *, wanted: bool = False) -> bool:
        """Whether the file is here; one that is `wanted` will be for a time."""
        if _DIGEST.fullmatch(digest) is None or not (self._files / digest).exists():
            return False
        if wanted:
            os.utime(self._files / digest)
        return True


def check_files(files: Sequence[tuple[str, str]]) -> None:
    """Raise `InvalidError` unless these are the paths and digests of one tree, in the order of paths."""
    folders: set[str] = set()
    before = ""
    for path, digest in files:
        parts = path.split("/")
        inside = not {"", ".", ".."} & {*parts} and path.isprintable() and len(path) <= MAX_PATH_CHARACTERS
        require(inside, f"{path[:80]!r} is no path within a tree of code")
        require(path > before, f"{path!r} is not in its place: paths are sorted, and each is there once")
        require(_DIGEST.fullmatch(digest) is not None, f"{digest[:80]!r} is no digest of a file")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        before = path
    for path, _ in files:
        require(path not in folders, f"{path!r} is both a file and a folder")


def _is_old(found: os.stat_result) -> bool:
    return time.time() - found.st_mtime > KEPT_SECONDS


def _remove(folder: Path) -> Iterator[None]:
    """A folder with all that is in it, file by file. What somebody puts there meanwhile stays until the next start."""
    for root, folders, files in os.walk(folder, topdown=False):
        for name in files:
            yield
            os.unlink(os.path.join(root, name))
        for name in folders:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, name))
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _boot() -> str:
    """What tells this run of the machine from others; "" where that can't be known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""


def _says(file: Path, text: str) -> bool:
    try:
        return bool(text) and file.read_text() == text
    except OSError:
        return False
