"""Arbitrary messages of every type, from any source of randomness: a seed's, or Hypothesis's.

What an annotation allows is worked out once, so that a value costs little: the fuzzer makes millions.
"""

import types
import typing
from collections.abc import Callable
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

Maker = Callable[[Random], Any]


def message(random: Random, kinds: tuple[type[m.Message], ...] = TYPES) -> m.Message:
    """Any message; its values are of the right types and otherwise as odd as can be."""
    return typing.cast(m.Message, maker(random.choice(kinds))(random))


@cache
def maker(kind: Any) -> Maker:
    """What makes any value of an annotation."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        allowed = tuple(one for one in TABLES[arguments[0]] if all(_fits(one, rule) for rule in arguments[1:]))
        return lambda random: random.choice(allowed)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(kind)
    if origin is Literal:
        return lambda random: random.choice(arguments)
    parts = [maker(one) for one in arguments if one is not ...]
    if origin in (typing.Union, types.UnionType):
        return lambda random: random.choice(parts)(random)
    if origin is list:
        return lambda random: [parts[0](random) for _ in range(random.choice((0, 1, 3)))]
    if origin is tuple and arguments[-1] is ...:
        return lambda random: tuple(parts[0](random) for _ in range(random.choice((0, 1, 3))))
    if origin is tuple:
        return lambda random: tuple(part(random) for part in parts)
    if kind is bytes:
        return lambda random: random.randbytes(random.choice((0, 1, 40)))
    table = TABLES[kind]
    return lambda random: random.choice(table)


def _fits(value: Any, rule: msgspec.Meta) -> bool:
    return (rule.ge is None or value >= rule.ge) and (rule.gt is None or value > rule.gt)


def _struct(kind: type[msgspec.Struct]) -> Maker:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [(name, maker(hints[name])) for name in kind.__struct_fields__]
    needed = {field.name for field in msgspec.structs.fields(kind) if field.required}

    def make(random: Random) -> msgspec.Struct:
        for _ in range(5):
            try:
                return kind(**{name: part(random) for name, part in fields})
            except (InvalidError, TypeError):
                continue  # a declaration with rules of its own
        return kind(**{name: part(random) for name, part in fields if name in needed})

    return make
