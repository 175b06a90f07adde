"""`Source`: the files that an app needs on another machine, and how its environments look inside their tree.

A tree is flat: what Python imports by one name lies under that name, wherever it was found here, so that the same code
has the same digest on every machine. What is installed (the standard library, site-packages) stays where it is: the
server's own Python environment has it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES

from msgspec.structs import replace

from ..errors import ConflictError, InvalidError
from ..home import PACKAGE
from ..spec import MAX_CODE_BYTES, MAX_CODE_FILES, Environment, code_digest

IMPORTABLE = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
NAMED_OFFENDERS = 3  # of a tree that is too large
INSTALLED_FOLDERS = {"site-packages", "dist-packages"}

Content = str | bytes  # a path on this machine, or a text that is in no file


@dataclass(frozen=True, slots=True)
class Source:
    """A tree of files, each under the path that it has there."""

    files: tuple[tuple[str, str], ...]  # path and digest, in the order of paths
    size: int  # bytes of all of them
    _contents: dict[str, Content] = field(repr=False)  # by digest
    _scripts: dict[str, str] = field(repr=False)  # a script's path here → in the tree

    @property
    def digest(self) -> str:
        """The digest of the tree, which stands in environments."""
        return code_digest(self.files)

    def content(self, digest: str) -> bytes:
        """The content of a file; `ConflictError` when it has changed meanwhile."""
        content = self._contents[digest]
        if isinstance(content, bytes):
            return content
        with open(content, "rb") as file:
            data = file.read()
        if sha256(data).hexdigest() != digest:
            raise ConflictError(f"{content} was changed while it was uploaded: deploy again")
        return data

    def place(self, environment: Environment) -> Environment:
        """The environment inside the tree: nothing in it is of this machine."""
        kind, origin = environment.kind, environment.origin
        if kind == "script":
            origin = self._scripts[origin]
        elif kind == "text":
            kind, origin = "script", f"{environment.module}.py"
        return replace(
            environment,
            kind=kind,
            origin=origin,
            # Who calls it by name may run the same script as a program, whose pickles then say `__main__`.
            main=environment.main or kind == "script",
            sys_path=("",),
            directory="",
            arguments=(origin, *environment.arguments[1:]),
            code=self.digest,
        )


def collect(environments: Iterable[Environment], added: Iterable[tuple[str, str]] = (), where: str = "") -> Source:
    """The files that code in these environments needs: its own modules, what this process has imported that is not
    installed, and what lies beside a script.

    `added` are files and folders, with their paths in the tree. Raises `InvalidError` for a tree beyond the limits,
    whose message begins with `where`.
    """
    tree: dict[str, Content] = {}
    own = list(dict.fromkeys(environments))
    folders = dict.fromkeys(os.path.dirname(one.origin) for one in own if one.kind == "script" and one.origin)
    for folder in folders:
        tree |= _modules_in(folder)
    names = {one.origin.partition(".")[0] for one in own if one.kind == "module" and one.origin}
    for name, found in _imported(names).items():
        _let_go(tree, name)  # of one of that name beside the script, which is not what was imported
        tree |= found
    for place, path in added:
        tree |= {path: place} if os.path.isfile(place) else dict(_walk(place, "" if path == "." else path))
    scripts = {}
    for one in own:
        if one.kind == "text":
            tree[f"{one.module}.py"] = one.origin.encode()
        elif one.kind == "script" and one.origin:
            scripts[one.origin] = path = _path_of_script(one, tree)
            tree[path] = one.origin
    return _hashed(tree, scripts, where)


def _path_of_script(environment: Environment, tree: dict[str, Content]) -> str:
    """Its file's name, unless an imported module from elsewhere has that."""
    path = os.path.basename(environment.origin)
    other = tree.get(path, environment.origin)
    same = isinstance(other, str) and os.path.realpath(other) == os.path.realpath(environment.origin)
    return path if same else f"{environment.module}_script.py"


# -- which files -----------------------------------------------------------------------------------


def _modules_in(folder: str) -> dict[str, Content]:
    """The modules and packages in a folder, as far as Python could import them from there."""
    found: dict[str, Content] = {}
    for entry in _entries(folder):
        if _is_module(entry):
            found[entry.name] = entry.path
        elif entry.is_dir() and entry.name.isidentifier() and (_is_package(entry.path) or _has_code(entry.path)):
            found |= _package(entry.path, entry.name)
    return found


def _package(folder: str, path: str) -> dict[str, Content]:
    """The files of a package, under `path`; of a namespace, its modules and packages alone."""
    if _is_package(folder):
        return dict(_walk(folder, path))
    return {f"{path}/{name}": content for name, content in _modules_in(folder).items()}


def _is_package(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "__init__.py"))


def _has_code(folder: str) -> bool:
    """Whether modules or packages lie in it directly: who looked deeper could walk through all of a user's home."""
    return any(_is_module(entry) or (entry.is_dir() and _is_package(entry.path)) for entry in _entries(folder))


def _walk(folder: str, path: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Content]]:
    """Every file in a folder, with its path in the tree; nothing hidden, compiled, or of a virtual environment."""
    real = os.path.realpath(folder)
    if real in above:
        return  # a link that leads back
    for entry in _entries(folder):
        inside = f"{path}/{entry.name}" if path else entry.name
        if entry.is_dir():
            yield from _walk(entry.path, inside, (*above, real))
        elif entry.is_file():
            yield inside, entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []  # whose content could not be imported here either
    return [entry for entry in found if not _is_left_out(entry)]


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    if name.startswith(".") or name == "__pycache__" or not name.isprintable():
        return True
    return os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


def _is_module(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(IMPORTABLE) and entry.name.partition(".")[0].isidentifier() and entry.is_file()


def _let_go(tree: dict[str, Content], name: str) -> None:
    for path in [path for path in tree if path.partition("/")[0].partition(".")[0] == name]:
        del tree[path]


# -- what was imported -----------------------------------------------------------------------------


def _imported(own: set[str]) -> dict[str, dict[str, Content]]:
    """The files of what this process has imported and is not installed, and of `own`, by top-level name."""
    tops = {name.partition(".")[0] for name in tuple(sys.modules)} - {"__main__", "__mp_main__"}
    # The folder of `upswell run --as-modal` gives upswell itself the name modal.
    tops = {top for top in tops - set(sys.stdlib_module_names) if top in own or _is_local(top)}
    found = {top: files for top in sorted(tops) if (files := _files_of(top))}
    for folder in sys.path:
        if folder.startswith(PACKAGE + os.sep):
            found |= {name: {name: content} for name, content in _modules_in(folder).items()}
    return found


def _is_local(top: str) -> bool:
    return any(not is_installed(place) for place in _places_of(top))


def _files_of(top: str) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for place in _places_of(top):
        if os.path.isdir(place):
            found |= _package(place, top)
        elif os.path.isfile(place):
            found[os.path.basename(place)] = place
    return found


def _places_of(top: str) -> list[str]:
    """The file of a top-level module, or the folders of a package; nothing for what is in an archive or built in."""
    module = sys.modules.get(top)
    if module is None:
        return []
    folders = getattr(module, "__path__", None)
    if folders is not None:
        return [os.path.abspath(folder) for folder in folders if os.path.isdir(folder)]
    file = getattr(module, "__file__", None)
    return [os.path.abspath(file)] if isinstance(file, str) and os.path.isfile(file) else []


def is_installed(place: str) -> bool:
    """Whether a file or folder is of Python itself, of an installed package, or of upswell."""
    if INSTALLED_FOLDERS & {*place.split(os.sep)} or place == PACKAGE or place.startswith(PACKAGE + os.sep):
        return True
    library = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return any(place.startswith(folder + os.sep) for folder in library if folder)


def find_module(name: str) -> list[tuple[str, str]]:
    """Where a module that may not be imported yet is, with its path in a tree; `InvalidError` where there is none."""
    top = name.partition(".")[0]
    specification = importlib.util.find_spec(top)
    if specification is None:
        raise InvalidError(f"there is no module {name!r} on the import path")
    folders = specification.submodule_search_locations
    if folders is not None:
        return [(folder, top) for folder in folders]
    return [(specification.origin, os.path.basename(specification.origin))] if specification.origin else []


# -- limits ----------------------------------------------------------------------------------------


def _hashed(tree: dict[str, Content], scripts: dict[str, str], where: str) -> Source:
    sizes = {path: _size(content) for path, content in tree.items()}
    _check_limits(sizes, where)
    files, contents = [], {}
    for path, content in sorted(tree.items()):
        digest = _digest(content)
        files.append((path, digest))
        contents[digest] = content
    return Source(tuple(files), sum(sizes.values()), contents, scripts)


def _check_limits(sizes: dict[str, int], where: str) -> None:
    if len(sizes) > MAX_CODE_FILES:
        counts: dict[str, int] = {}
        for path in sizes:
            folder = os.path.dirname(path) or "."
            counts[folder] = counts.get(folder, 0) + 1
        said, limit = f"{len(sizes):,} files", f"{MAX_CODE_FILES:,}"
        largest = [f"{folder}/ ({count:,} files)" for folder, count in _largest(counts)]
    elif sum(sizes.values()) > MAX_CODE_BYTES:
        said, limit = readable_size(sum(sizes.values())), readable_size(MAX_CODE_BYTES)
        largest = [f"{path} ({readable_size(size)})" for path, size in _largest(sizes)]
    else:
        return
    raise InvalidError(
        f"{where}its code has {said}, and the limit is {limit}. Most of it: {', '.join(largest)}. Packages travel with "
        "all that is in them: move what is no code out of them, and have functions read it from where it is"
    )


def _largest(counts: dict[str, int]) -> Sequence[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:NAMED_OFFENDERS]


def readable_size(count: int) -> str:
    """A number of bytes, for people."""
    if count < 1000:
        return f"{count} bytes"
    for unit, size in (("kB", 1e3), ("MB", 1e6)):
        if count < 1000 * size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else os.stat(content).st_size


def _digest(content: Content) -> str:
    if isinstance(content, bytes):
        return sha256(content).hexdigest()
    try:
        with open(content, "rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidError(f"{content} can't be read, and the app's code is there: {error.strerror}") from None
