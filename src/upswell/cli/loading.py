"""From what the user names on the command line to a module, and from the module to what is to be run.

Errors in the naming are `click.UsageError`; whatever the user's own code raises while it is imported passes through.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidError
from ..sdk.app import App
from ..sdk.environment import declare_source, script_module, working_directory
from ..spec import SourceKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..sdk.app import LocalEntrypoint
    from ..sdk.cls import Cls
    from ..sdk.function import Function

STANDARD_INPUT = "-"
STANDARD_INPUT_MODULE = "stdin"
NO_APP = "no app: make one at its top level with app = upswell.App()"
MODAL_FOLDER = Path(__file__).parent / "as_modal"  # has one module, `modal`, which is upswell


@dataclass(frozen=True, slots=True)
class Target:
    """Where the code is, and the name of what to run in it ("" where it is to be found)."""

    kind: SourceKind
    place: str
    name: str

    @classmethod
    def parse(cls, words: str, is_module: bool) -> Target:
        """Read `FILE[::NAME]`, `MODULE[::NAME]` or `-[::NAME]`; raises `click.UsageError`."""
        place, separator, name = words.partition("::")
        if not place or (separator and not name):
            raise click.UsageError(f"'{words}' is not of the form FILE or FILE::NAME")
        if place == STANDARD_INPUT:
            if is_module:
                raise click.UsageError("-m takes the name of a module, not '-'")
            return cls("text", place, name)
        return cls("module" if is_module else "script", place, name)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be run: an entrypoint here, or else in a container a function, or the method `method` of a class."""

    app: App
    entrypoint: LocalEntrypoint | None = None
    function: Function[..., Any] | None = None
    known: Cls | None = None
    method: str = ""

    @property
    def raw(self) -> Callable[..., Any]:
        """The user's function, whose signature makes the options; that of a method has its class's parameters, too."""
        if self.entrypoint is not None:
            return self.entrypoint.raw
        if self.function is not None:
            return self.function.raw
        assert self.known is not None
        return _with_parameters(self.known, self.method)

    def resolve(self, call: inspect.BoundArguments) -> tuple[Function[..., Any], tuple[Any, ...], dict[str, Any]]:
        """What is to be called with what, once the options are read."""
        if self.function is not None:
            return self.function, call.args, call.kwargs
        assert self.known is not None
        own = {name: call.arguments.pop(name) for name in self.known.parameters}
        function = getattr(self.known.declared(**own), self.method)
        signature = inspect.signature(function.raw)
        of_method = inspect.BoundArguments(signature, {next(iter(signature.parameters)): None, **call.arguments})
        return function, of_method.args[1:], of_method.kwargs


def _with_parameters(known: Cls, method: str) -> Callable[..., Any]:
    """A stand-in with the signature of the method of a new object."""
    raw = known.methods[method].raw
    _, *arguments = inspect.signature(raw).parameters.values()
    parameters = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.kind)
        for one in known.parameters.values()
    ]
    if both := {one.name for one in parameters} & {one.name for one in arguments}:
        raise click.UsageError(
            f"{known.pool.name} and its method {method} both have a parameter {min(both)!r}, which no one option can "
            "give: call it from a local entrypoint"
        )

    def stand_in() -> None: ...

    by_kind = sorted((*arguments, *parameters), key=lambda one: one.kind)
    stand_in.__signature__ = inspect.Signature(by_kind)  # type: ignore[attr-defined]
    stand_in.__wrapped__ = raw  # type: ignore[attr-defined]
    stand_in.__doc__ = raw.__doc__
    return stand_in


# -- importing -------------------------------------------------------------------------------------


def prepare(target: Target) -> bytes:
    """Check that the code is there, put its folder on the import path, and return its source (b"" where unknown)."""
    try:
        here = working_directory()
    except InvalidError as error:
        raise click.UsageError(str(error)) from None
    match target.kind:
        case "script":
            source = _read_script(target.place)
            sys.path.insert(0, str(Path(target.place).resolve().parent))
            return source
        case "module":
            if not all(part.isidentifier() for part in target.place.split(".")):
                raise click.UsageError(f"'{target.place}' is no module's name (-m takes package.module, not a path)")
            sys.path.insert(0, here)
            return _read_module(target.place)
        case "text":
            sys.path.insert(0, here)
            return sys.stdin.buffer.read()


def load(target: Target, source: bytes) -> ModuleType:
    """Import the user's code once, say how containers find it, and return its module."""
    match target.kind:
        case "script":
            return _load_script(Path(target.place).resolve())
        case "module":
            return _load_module(target.place)
        case "text":
            return _load_text(source)


def lacks_modal(source: bytes) -> bool:
    """Whether the source imports `modal` and no such package is installed, or lies beside it."""
    return b"modal" in source and _names_modal(source) and importlib.util.find_spec("modal") is None


def install_modal() -> None:
    """Make `import modal` give upswell, here and (by the import path, which travels along) in containers."""
    sys.path.insert(0, str(MODAL_FOLDER))


def _names_modal(source: bytes) -> bool:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return False  # told by the import itself
    for node in ast.walk(tree):
        names: Iterable[str] = ()
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = (node.module or "",)
        if any(name.partition(".")[0] == "modal" for name in names):
            return True
    return False


class _Uncached(SourceFileLoader):
    """Loads a script as `python script.py` would: without leaving a `__pycache__` beside it."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Keep nothing."""


def _read_script(place: str) -> bytes:
    path = Path(place)
    if path.is_dir():
        raise click.UsageError(f"{place} is a directory: name a file in it, or use -m for a package")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise click.UsageError(f"there is no file {place}") from None
    except OSError as error:
        raise click.UsageError(f"{place} can't be read: {error.strerror}") from None


def _read_module(name: str) -> bytes:
    path = Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate.read_bytes()
    return b""  # somewhere else on the import path


def _load_script(path: Path) -> ModuleType:
    name = script_module(str(path))
    declare_source(name, "script", str(path))
    loader = _Uncached(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except ImportError as error:
        if "relative import" in str(error):
            error.add_note("A file of a package is run by its module's name: upswell run -m package.module")
        raise
    return module


def _load_module(name: str) -> ModuleType:
    declare_source(name, "module", name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise click.UsageError(f"there is no module {name} here or on the import path: {error.msg}") from None
        raise


def _load_text(source: bytes) -> ModuleType:
    text = importlib.util.decode_source(source)
    declare_source(STANDARD_INPUT_MODULE, "text", text)
    filename = f"<{STANDARD_INPUT_MODULE}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)  # so that tracebacks show lines
    module = importlib.util.module_from_spec(ModuleSpec(STANDARD_INPUT_MODULE, None, origin=filename))
    sys.modules[STANDARD_INPUT_MODULE] = module
    exec(compile(text, filename, "exec"), module.__dict__)
    return module


# -- choosing --------------------------------------------------------------------------------------


def choose(module: ModuleType, target: Target) -> Chosen:
    """Pick the app and what of it to run; raises `click.UsageError` where that is not one thing."""
    apps = _apps(module)
    if not apps:
        raise click.UsageError(f"{target.place} has {NO_APP}")
    if target.name:
        return _named(apps, target)
    if len(apps) > 1:
        names = ", ".join(repr(app.name or "(unnamed)") for app in apps)
        raise click.UsageError(
            f"{target.place} has {len(apps)} apps ({names}): name what to run with {target.place}::NAME"
        )
    (app,) = apps
    entrypoints, remote = _entrypoints(app), _remote(app)
    if len(entrypoints) == 1 or (not entrypoints and len(remote) == 1):
        return next(iter((entrypoints or remote).values()))
    if not entrypoints and not remote:
        raise click.UsageError(f"the app in {target.place} has no function and no local entrypoint")
    kind = "local entrypoints" if entrypoints else "functions"
    there = list(entrypoints or remote)
    example = f"{target.place}::{there[0]}"
    raise click.UsageError(f"{target.place} has {len(there)} {kind} ({', '.join(there)}): name one, as in {example}")


def choose_app(module: ModuleType, target: Target) -> App:
    """Pick the app; raises `click.UsageError` where that is not one."""
    apps = _apps(module)
    if target.name:
        own = vars(module).get(target.name)
        apps = [own] if isinstance(own, App) else [app for app in apps if app.name == target.name]
    if len(apps) == 1:
        return apps[0]
    if not apps:
        what = f"no app named '{target.name}'" if target.name else NO_APP
        raise click.UsageError(f"{target.place} has {what}")
    names = ", ".join(repr(app.name or "(unnamed)") for app in apps)
    raise click.UsageError(f"{target.place} has {len(apps)} apps ({names}): name one with {target.place}::NAME")


def _apps(module: ModuleType) -> list[App]:
    """Return the apps that are the module's own variables, or else all there are."""
    own = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    return list(own.values()) or list(App.all_apps())


def _entrypoints(app: App) -> dict[str, Chosen]:
    return {name: Chosen(app, entrypoint) for name, entrypoint in app.registered_entrypoints.items()}


def _remote(app: App) -> dict[str, Chosen]:
    """Return the functions and, as CLASS.METHOD, the methods of an app."""
    functions = {name: Chosen(app, function=function) for name, function in app.functions.items()}
    methods = {
        f"{name}.{method}": Chosen(app, known=known, method=method)
        for name, known in app.classes.items()
        for method in known.methods
    }
    return functions | methods


def _named(apps: list[App], target: Target) -> Chosen:
    found = [named[target.name] for app in apps if target.name in (named := _entrypoints(app))]
    found = found or [named[target.name] for app in apps if target.name in (named := _remote(app))]
    if len(found) > 1:
        raise click.UsageError(f"{target.place} has '{target.name}' on {len(found)} apps: give it a name of its own")
    if not found:
        names = [name for app in apps for name in (*_entrypoints(app), *_remote(app))]
        offer = f"there are: {', '.join(names)}" if names else "it has no function and no local entrypoint"
        raise click.UsageError(f"{target.place} has nothing named '{target.name}'; {offer}")
    return found[0]
