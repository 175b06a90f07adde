"""Arbitrary messages of every type, from any source of randomness: a seed's, or Hypothesis's."""

import types
import typing
from functools import cache
from random import Random
from typing import Any, Literal

import msgspec

from upswell.errors import InvalidError
from upswell.wire import messages as m

TYPES: tuple[type[m.Message], ...] = typing.get_args(m.AnyMessage)
NUMBERS = (0, 0, 1, 1, 2, 3, 7, 100, -1, -7, 1 << 20, 1 << 31, -(1 << 31), 1 << 48, (1 << 62) + 1, -(1 << 63))
SPANS = (0.0, 0.001, 1.5, 1e9, -1.0, 1e300, -1e300, 5e-324, float("inf"), float("-inf"))
TEXTS = ("", "a", "fc-1", "ap-1/f", "co-1", "ap-1", "é", "\0", "line\nline", "x" * 400, "../../etc", "𝄞")
TABLES: dict[Any, tuple[Any, ...]] = {
    int: NUMBERS,
    float: SPANS,
    bool: (False, True),
    str: TEXTS,
    types.NoneType: (None,),
    msgspec.UnsetType: (msgspec.UNSET,),
}


def message(random: Random, kinds: tuple[type[m.Message], ...] = TYPES) -> m.Message:
    """Any message; its values are of the right types and otherwise as odd as can be."""
    return typing.cast(m.Message, value(random, random.choice(kinds)))


def value(random: Random, kind: Any) -> Any:
    """Any value of an annotation."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        allowed = [one for one in TABLES[arguments[0]] if all(_fits(one, rule) for rule in arguments[1:])]
        return random.choice(allowed)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(random, kind)
    if origin is Literal:
        return random.choice(arguments)
    if origin in (typing.Union, types.UnionType):
        return value(random, random.choice(arguments))
    if origin is list:
        return [value(random, arguments[0]) for _ in range(random.choice((0, 1, 3)))]
    if origin is tuple and arguments[-1] is ...:
        return tuple(value(random, arguments[0]) for _ in range(random.choice((0, 1, 3))))
    if origin is tuple:
        return tuple(value(random, one) for one in arguments)
    if kind is bytes:
        return random.randbytes(random.choice((0, 1, 40)))
    return random.choice(TABLES[kind])


def _fits(value: Any, rule: msgspec.Meta) -> bool:
    return (rule.ge is None or value >= rule.ge) and (rule.gt is None or value > rule.gt)


@cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _struct(random: Random, kind: type[msgspec.Struct]) -> msgspec.Struct:
    hints = _hints(kind)
    for _ in range(5):
        try:
            return kind(**{name: value(random, hints[name]) for name in kind.__struct_fields__})
        except (InvalidError, TypeError):
            continue  # a declaration with rules of its own
    required = {
        field.name: value(random, hints[field.name]) for field in msgspec.structs.fields(kind) if field.required
    }
    return kind(**required)
