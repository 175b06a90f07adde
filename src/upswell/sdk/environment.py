"""How a container finds the code of a function that is defined here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any

from msgspec.structs import replace

from ..errors import InvalidError
from ..spec import Environment, SourceKind, check_text

_declared: dict[str, tuple[SourceKind, str]] = {}
_entered: Environment | None = None
serializing: ContextVar[bool] = ContextVar("serializing", default=False)  # code is pickled by value just now


def declare_source(module: str, kind: SourceKind, origin: str) -> None:
    """Say where the code of a module comes from that was not imported in the usual way (the command line does)."""
    _declared[module] = (kind, origin)


def enter_environment(environment: Environment) -> None:
    """Take note that this process is a container, or forks containers, of that environment."""
    global _entered
    _entered = environment


def is_by_value() -> bool:
    """Whether `__main__` has no file, as in a notebook: then its functions and classes can only travel by value."""
    return not _declared and not _file_of(sys.modules.get("__main__"))


def is_typed_in(code: Callable[..., Any]) -> bool:
    """Whether a function or class is of a program without a file, so that containers can't import it."""
    return code.__module__ == "__main__" and is_by_value()


def working_directory() -> str:
    """Where this program is, and so where its containers will be; `InvalidError` where that was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise InvalidError("the working directory was deleted: change to one that is there") from None


def script_module(path: str, module: ModuleType | None = None) -> str:
    """The name that a script has as a module, in containers and in pickles: no other module's, and no submodule's."""
    name = os.path.splitext(os.path.basename(path))[0].replace(".", "_")
    taken = sys.modules.get(name, module) is not module or name in sys.stdlib_module_names or name == "__main__"
    return f"{name}_script" if taken else name


def environment_of(function: Callable[..., Any], variables: dict[str, str], serialized: bool) -> Environment:
    """The environment of a function: its module's source and this process's import path; that alone if `serialized`."""
    name = "" if serialized else function.__module__
    if _entered is not None:
        return _beside(_entered, name, variables)
    if serialized:
        return _environment("module", "", "", False, variables)
    module = sys.modules.get(name)
    if name in _declared:
        kind, origin = _declared[name]
        return _environment(kind, origin, name, False, variables)
    if name == "__main__":
        return _main(module, variables)
    return _environment("module", name, name, False, variables)


def _beside(entered: Environment, name: str, variables: dict[str, str]) -> Environment:
    """Inside a container: the same environment as outside, so that what is declared here shares a zygote."""
    pairs = tuple(sorted(variables.items()))
    if name and name in (entered.module, "__main__"):
        return replace(entered, variables=pairs)
    return replace(entered, kind="module", origin=name, module=name, main=False, variables=pairs)


def _main(module: ModuleType | None, variables: dict[str, str]) -> Environment:
    path = _file_of(module)
    assert path, "what is in no file is serialized"
    specification = getattr(module, "__spec__", None)
    if specification is not None and specification.name != "__main__":  # which a folder or an archive has
        name = specification.name.removesuffix(".__main__")
        name = specification.name if name == specification.name else f"{name}.__main__"
        kind: SourceKind = "module"
        origin = name
    else:
        name = script_module(path, module)
        kind, origin = "script", os.path.abspath(path)
    # What containers pickle under that name is this very module here.
    sys.modules.setdefault(name, sys.modules["__main__"])
    return _environment(kind, origin, name, True, variables)


def _file_of(module: ModuleType | None) -> str:
    """The file of the program; "" where it was typed in, or came from standard input or `-c`."""
    path = getattr(module, "__file__", None) or ""
    return path if _is_file(path) else ""


_is_file = cache(os.path.isfile)  # asked for every call, and a program's file does not come and go


def _environment(kind: SourceKind, origin: str, module: str, main: bool, variables: dict[str, str]) -> Environment:
    here = working_directory()
    return Environment(
        kind=kind,
        origin=check_text(origin),
        module=module,
        main=main,
        sys_path=tuple(check_text(os.path.abspath(entry)) if entry else here for entry in sys.path),
        directory=check_text(here),
        arguments=tuple(map(check_text, sys.argv)),
        variables=tuple(sorted(variables.items())),
    )


def serialize(function: Callable[..., Any]) -> bytes:
    """The function or class by value, with what it uses of its own module, functions of its app among that."""
    import cloudpickle

    module = sys.modules.get(function.__module__)
    by_value = module is not None and function.__module__ != "__main__"
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    token = serializing.set(True)
    try:
        return cloudpickle.dumps(function, 5)  # type: ignore[no-any-return]
    finally:
        serializing.reset(token)
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
