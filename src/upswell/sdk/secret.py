"""`Secret`: variables for the environment of a function's containers, and of no others.

Values are read when the app runs, and stand in no repr, no message and no pickle. Where a name is given twice, the
later of two secrets wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import InvalidError, NotFoundError
from ..spec import check_name, require
from . import context


class Secret:
    """Environment variables for `@app.function(secrets=[...])`; made by one of the methods below."""

    def __init__(self, label: str, load: Callable[[], dict[str, str]]) -> None:
        self._label = label
        self._load = load

    @classmethod
    def from_dict(cls, env_dict: Mapping[str, str | None] | None = None) -> Secret:
        """These variables; one whose value is `None` is left out. `InvalidError` unless it maps text to text."""
        require(isinstance(env_dict or {}, Mapping), "Secret.from_dict takes a dict that maps names to values")
        given = {name: value for name, value in (env_dict or {}).items() if value is not None}
        for name, value in given.items():
            _check("Secret.from_dict", name, value)
        return cls(f"Secret.from_dict([{', '.join(given)}])", lambda: given)

    @classmethod
    def from_local_environ(cls, env_keys: Iterable[str]) -> Secret:
        """Variables of this program's own environment; `InvalidError` for one that is missing.

        Inside a container: those of them that the container has.
        """
        names = list(env_keys)
        missing = [name for name in names if name not in os.environ]
        if missing and context.is_local():
            raise InvalidError(f"Secret.from_local_environ: {', '.join(missing)} is not set in this environment")
        given = {name: os.environ[name] for name in names if name not in missing}
        return cls(f"Secret.from_local_environ({names})", lambda: given)

    @classmethod
    def from_dotenv(cls, path: str | os.PathLike[str] | None = None, *, filename: str = ".env") -> Secret:
        """The variables of a file of `NAME=value` lines, read when the app runs.

        The file is looked for in the working directory, or beside the file or in the directory `path`, and upwards from
        there; `NotFoundError` where there is none. `${NAME}` and `${NAME:-otherwise}` are replaced, except in single
        quotes, by variables above it or else by those of this program.
        """
        start = os.path.abspath(os.fspath(path) if path is not None else os.getcwd())
        return cls("Secret.from_dotenv()", lambda: _read(start, filename))

    @classmethod
    def from_name(cls, name: str, *, environment_name: str | None = None, required_keys: Iterable[str] = ()) -> Secret:
        """A secret that a server keeps, which is a later step: `NotFoundError` when an app that uses it runs."""
        check_name("secret", name)
        keys = list(required_keys)

        def load() -> dict[str, str]:
            raise NotFoundError(
                f"Secret.from_name({name!r}): no server keeps secrets in this version. Use "
                f"Secret.from_local_environ({keys or ['NAME', '...']}), Secret.from_dotenv() or Secret.from_dict(...)"
            )

        return cls(f"Secret.from_name({name!r})", load)

    def variables(self) -> dict[str, str]:
        """The names and values, read now."""
        return self._load()

    def __repr__(self) -> str:
        return self._label

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} can't be pickled: name it in secrets=[...] of the function that needs it")


def _check(where: str, name: object, value: object) -> None:
    """Nothing of a value may stand in the message."""
    require(isinstance(name, str), f"{where}: the name {name!r} must be text")
    require(isinstance(value, str), f"{where}: the value of {name} must be text, not {type(value).__name__}")
    require(bool(name) and "=" not in str(name), f"{where}: {name!r} can't be the name of a variable")
    require("\0" not in f"{name}{value}", f"{where}: {name} has a null character, which an environment can't hold")


# -- files of variables ----------------------------------------------------------------------------

_ENTRY = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[^=\#\s'"]+)[ \t]*
    (?:=[ \t]*(?:'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<bare>[^\r\n]*?)))?
    [ \t]*(?:(?<![^\s'"=])\#[^\r\n]*)?$""",
    re.MULTILINE | re.VERBOSE | re.DOTALL,
)
_REFERENCE = re.compile(r"\$\{(?P<name>[^}:]+)(?::-(?P<otherwise>[^}]*))?\}")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def _read(start: str, filename: str) -> dict[str, str]:
    directory = start if os.path.isdir(start) else os.path.dirname(start)
    while not os.path.isfile(found := os.path.join(directory, filename)):
        above = os.path.dirname(directory)
        if above == directory:
            raise NotFoundError(f"Secret.from_dotenv: there is no file {filename} in {start} or above it")
        directory = above
    with open(found, encoding="utf-8") as file:
        variables = parse_variables(file.read())
    for name, value in variables.items():
        _check(f"Secret.from_dotenv: {found}", name, value)
    return variables


def parse_variables(text: str) -> dict[str, str]:
    """The variables of a file of `NAME=value` lines; lines that are none are passed over."""
    variables: dict[str, str] = {}

    def referred(match: re.Match[str]) -> str:
        known = variables.get(match["name"], os.environ.get(match["name"]))
        return known or match["otherwise"] or ""

    for entry in _ENTRY.finditer(text):
        if entry["single"] is not None:
            value = entry["single"]
        elif entry["double"] is not None:
            unescaped = re.sub(
                r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), entry["double"], flags=re.DOTALL
            )
            value = _REFERENCE.sub(referred, unescaped)
        else:
            value = _REFERENCE.sub(referred, entry["bare"] or "")
        variables[entry["name"]] = value
    return variables
