"""Command-line options made from a function's signature.

An option is made for every parameter whose annotation, or else default, is one of the types below. Defaults are
Python's own, never a copy that went through the command line. A function of `*args` alone takes the raw arguments.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Union

import click
from click.core import ParameterSource

PLAIN: dict[type, click.ParamType[Any]] = {
    str: click.STRING,
    int: click.INT,
    float: click.FLOAT,
    bool: click.BOOL,
    datetime: click.DateTime(),
}
TYPES = "str, int, float, bool, datetime, Optional or Literal"
SETTINGS = {"help_option_names": ["--help"]}


@dataclass(frozen=True, slots=True)
class Kind:
    """What one option accepts; `values` maps the words of a Literal to its values."""

    type: click.ParamType[Any]
    flag: bool = False
    values: dict[str, object] | None = None


def bind(raw: Callable[..., object], arguments: Sequence[str], program: str) -> inspect.BoundArguments:
    """Parse `arguments` as the options of `raw` and return what it is to be called with.

    Raises `click.UsageError` for arguments that do not fit, and for a signature that no command line can fill;
    `click.exceptions.Exit` after `--help`.
    """
    signature = inspect.signature(raw)
    bound = signature.bind_partial()
    if _takes_raw_arguments(signature):
        return signature.bind(*arguments)
    command = click.Command(
        program, params=list(_options(raw, signature)), help=inspect.getdoc(raw), context_settings=SETTINGS
    )
    context = command.make_context(program, list(arguments))
    given = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    bound.arguments.update((name, given[name]) for name in signature.parameters if name in given)
    bound.apply_defaults()
    return bound


def _takes_raw_arguments(signature: inspect.Signature) -> bool:
    several = [name for name, p in signature.parameters.items() if p.kind is inspect.Parameter.VAR_POSITIONAL]
    if several and len(signature.parameters) > 1:
        raise click.UsageError(
            f"*{several[0]} takes the raw arguments only where it is the only parameter: "
            "drop the others, or give each a name"
        )
    return bool(several)


def _options(raw: Callable[..., object], signature: inspect.Signature) -> Iterator[click.Option]:
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        required = parameter.default is inspect.Parameter.empty
        kind = _kind(_annotation(raw, parameter))
        if kind is None:
            if required:
                shown = inspect.formatannotation(parameter.annotation)
                raise click.UsageError(
                    f"parameter '{name}' has the type {shown}, which no option can give: use {TYPES}, or a default"
                )
            continue
        dashed = name.strip("_").replace("_", "-")
        yield click.Option(
            [f"--{dashed}/--no-{dashed}" if kind.flag else f"--{dashed}", name],
            type=kind.type,
            required=required,
            help=None if required else f"default {parameter.default!r}",
            callback=_literal(kind.values) if kind.values else None,
        )


def _literal(values: dict[str, object]) -> Callable[[click.Context, click.Parameter, Any], object]:
    return lambda context, parameter, word: values.get(word, word)


def _annotation(raw: Callable[..., object], parameter: inspect.Parameter) -> object:
    """Return the parameter's type: its annotation (a string is looked up), else that of its default."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        default = parameter.default
        return str if default is inspect.Parameter.empty or default is None else type(default)
    if isinstance(annotation, str):
        names = getattr(inspect.unwrap(raw), "__globals__", {})
        try:
            return eval(annotation, dict(names))
        except Exception:
            return None  # a name for type checkers only; no option can be made of it
    return annotation


def _kind(annotation: object) -> Kind | None:
    if isinstance(annotation, type) and annotation in PLAIN:
        return Kind(PLAIN[annotation], flag=annotation is bool)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        values = {str(value): value for value in inner if value is not None}
        return Kind(click.Choice(list(values)), values=values)
    if origin in (Union, types.UnionType):
        kinds = [_kind(member) for member in inner if member is not type(None)]
        return kinds[0] if len(kinds) == 1 else None
    return None
