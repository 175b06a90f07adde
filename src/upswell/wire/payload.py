"""Payloads: how Python values become the opaque bytes of a frame, many at once and yet each for itself.

A list whose values are all of exact plain types can't fail on loading and is one pickle (TOGETHER). Any other list is a
table of pickles, one a value (SINGLY), so that a value that can't be loaded fails alone. What was packed one by one and
travels together is a table of payloads (JOINED). The first byte says which, the second what the values mean. Large
buffers travel beside the bytes in a block of shared memory.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from types import MethodDescriptorType
from typing import Any, NamedTuple, cast

import msgspec

from ..errors import DeserializationError, RemoteError, SerializationError
from . import buffers as shared
from .buffers import Block
from .codec import MAX_PAYLOAD_BYTES
from .messages import Buffers, ErrorRecord

OUT_OF_BAND_BYTES = 64 << 10  # buffers from here on travel in shared memory
MAX_EXCEPTION_BYTES = 16 << 20  # a larger pickle of an exception stays where it is; its text travels
MAX_TEXT_CHARACTERS = 64 << 10  # of a message or a traceback
IMPORT_MACHINERY = "<frozen importlib"  # the files of its frames

TOGETHER, SINGLY, JOINED = 1, 2, 3
VALUES, BARE, POSITIONAL, FULL = 0, 1, 2, 3  # outputs · inputs x for f(x) · args for f(*args) · (args, kwargs)

ByValue = Callable[[], bool]

_SCALARS = frozenset({int, float, str, bytes, bool, type(None)})
_TOLD_BY_REPR = _SCALARS | {complex, tuple, list, dict}
_TABLE = struct.Struct("<BBII")
_JOINT, _JOINT_MARK = struct.Struct("<BBI"), bytes((JOINED,))

Values = Sequence[Any]


class PackError(SerializationError):
    """The value at `index` can't be pickled."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class Unreadable(NamedTuple):
    """Stands for a value that could not be loaded."""

    error: DeserializationError


class Packed(msgspec.Struct):
    """The bytes of some values. The block, where there is one, must stay open until the reader has taken it over."""

    data: bytes
    block: Block | None = None

    @property
    def buffers(self) -> Buffers | None:
        return self.block.buffers if self.block else None

    @property
    def size(self) -> int:
        """Bytes, those of the block among them."""
        return len(self.data) + (self.block.buffers.size if self.block else 0)

    def close(self) -> None:
        """Let go of the block; those to whom it was lent have their own hold on it."""
        if self.block is not None:
            self.block.close()


class Inputs(msgspec.Struct):
    """Inputs as a container gets them: `values` are what `shape` says, or `Unreadable`; with `are_arguments` none is
    `Unreadable`, and each is the one argument of its input.
    """

    shape: int
    values: list[Any]
    are_arguments: bool = False

    def arguments(self, index: int) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of one input; raises its `DeserializationError`."""
        return self.arguments_of(self.values[index])

    def arguments_of(self, value: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        """The same, of the input with this value."""
        if isinstance(value, Unreadable):
            raise value.error
        if self.shape == BARE:
            return (value,), {}
        return (value, {}) if self.shape == POSITIONAL else value


def never() -> bool:
    """Nothing travels by value."""
    return False


def pack(values: Values, *, shape: int = VALUES, by_value: ByValue = never) -> Packed:
    """The values as bytes; `PackError` names the first that can't be pickled.

    Where `by_value` says so, functions and classes of `__main__` travel whole, for programs that can't be imported
    elsewhere. It is asked only where a value is not plain.
    """
    if (data := _pack_together(values, shape)) is not None:
        return Packed(data)
    whole = by_value()
    large: list[pickle.PickleBuffer] = []
    pieces: list[bytes] = []
    counts: list[int] = []
    total = 0
    for index, value in enumerate(values):
        before = len(large)
        pieces.append(_dump(value, index, large if shared.AVAILABLE else None, whole))
        counts.append(len(large) - before)
        total += len(pieces[-1]) + 12 + 8 * counts[-1]
        if total > MAX_PAYLOAD_BYTES - _TABLE.size:
            reason = f"its pickle of {len(pieces[-1]):,} bytes is too large: {MAX_PAYLOAD_BYTES:,} travel at once"
            raise PackError(index, reason + "; arrays have no such limit")
    head = _TABLE.pack(SINGLY, shape, len(pieces), len(large))
    lengths = struct.pack(f"<{len(pieces)}Q{len(counts)}I", *map(len, pieces), *counts)
    sizes = struct.pack(f"<{len(large)}Q", *(buffer.raw().nbytes for buffer in large))
    block = Block.write(large) if large else None
    return Packed(b"".join((head, lengths, sizes, *pieces)), block)


def pack_inputs(inputs: Sequence[tuple[Any, ...]], kwargs: dict[str, Any], *, by_value: ByValue = never) -> Packed:
    """Inputs as argument tuples, with keyword arguments common to all of them."""
    if kwargs:
        return pack([(args, kwargs) for args in inputs], shape=FULL, by_value=by_value)
    if len(inputs) == 1 and len(inputs[0]) == 1:
        return pack(inputs[0], shape=BARE, by_value=by_value)
    if all(len(args) == 1 for args in inputs):
        return pack([args[0] for args in inputs], shape=BARE, by_value=by_value)
    return pack(inputs, shape=POSITIONAL, by_value=by_value)


def join(payloads: Sequence[bytes], *, shape: int = FULL) -> bytes:
    """Payloads of inputs, of whatever shape, as one of all these inputs; or of outputs. None has a block beside it."""
    lengths = struct.pack(f"<{len(payloads)}I", *map(len, payloads))
    return b"".join((_JOINT.pack(JOINED, shape, len(payloads)), lengths, *payloads))


def dump(value: Any, *, by_value: bool = False) -> bytes:
    """One value as one pickle with everything in it, for what is kept longer than the process that sends it lives."""
    return _dump(value, 0, None, by_value)


def unpack(data: bytes | memoryview, buffers: Buffers | None = None) -> list[Any]:
    """The values; one that can't be loaded is an `Unreadable` in its place.

    Raises `DeserializationError` for bytes that no `pack` has made.
    """
    view = memoryview(data)
    try:
        if view[0] == JOINED:
            return [value for part in _parts(view) for value in _unpack_alike(part, None)]
        return _unpack_alike(view, buffers)
    except (struct.error, IndexError, ValueError, pickle.UnpicklingError, EOFError, TypeError) as error:
        raise DeserializationError(f"these {len(view):,} bytes are no payload: {error}") from None


def unpack_inputs(data: bytes | memoryview, buffers: Buffers | None, count: int) -> Inputs:
    """The `count` inputs of a segment, for a container to run; where the bytes are bad, each of them says so."""
    try:
        inputs = _inputs_of_parts(memoryview(data)) if data[:1] == _JOINT_MARK else _inputs_of(data, buffers)
        if len(inputs.values) != count:
            raise DeserializationError(f"{len(inputs.values)} inputs came where {count} were announced")
        return inputs
    except DeserializationError as error:
        return Inputs(POSITIONAL, [Unreadable(error)] * count)


def may_be_unreadable(data: bytes | memoryview) -> bool:
    """Whether one of the values could fail to load alone."""
    return data[0] != TOGETHER


# -- packing ---------------------------------------------------------------------------------------


class _NotPlain(Exception):
    """A value, or one within, whose type is not plain."""


class _PlainPickler(pickle.Pickler):
    """Pickles exact plain types and what they contain, and nothing else. Their pickles always load."""

    def reducer_override(self, value: Any) -> Any:
        """Asked of each object that the pickler does not know by its exact type."""
        raise _NotPlain


def _refuse_buffer(buffer: pickle.PickleBuffer) -> None:
    raise _NotPlain  # it may travel beside the bytes


def _pack_together(values: Values, shape: int) -> bytes | None:
    """The values as one pickle, where all of them are plain."""
    head, listed = bytes((TOGETHER, shape)), values if type(values) is list else list(values)
    if len(listed) == 1 and type(listed[0]) in _SCALARS:  # for which a pickler of its own takes five times as long
        data = head + pickle.dumps(listed, 5)
    else:
        file = BytesIO()
        file.write(head)
        try:
            _PlainPickler(file, 5, buffer_callback=_refuse_buffer).dump(listed)
        except Exception:  # also of lists that are too deep: whose fault it is, is found out one by one
            return None
        data = file.getvalue()
    return data if len(data) < MAX_PAYLOAD_BYTES else None


def _dump(value: Any, index: int, large: list[pickle.PickleBuffer] | None, by_value: bool) -> bytes:
    """The pickle of a value; its large buffers are appended to `large`, where that is given."""
    before = len(large or ())

    def callback(buffer: pickle.PickleBuffer) -> bool:
        try:
            size = buffer.raw().nbytes
        except BufferError:  # not contiguous
            return True
        if large is None or size < OUT_OF_BAND_BYTES:
            return True
        large.append(buffer)
        return False

    chosen = None if large is None else callback
    if not by_value:
        try:
            return pickle.dumps(value, 5, buffer_callback=chosen)
        except Exception:
            if large:
                del large[before:]  # of the part that could be pickled
    import cloudpickle

    try:
        return cloudpickle.dumps(value, 5, buffer_callback=chosen)  # type: ignore[no-any-return]
    except Exception as error:
        raise PackError(index, f"{_describe(value)} can't be pickled: {error}") from None


def _describe(value: Any) -> str:
    try:
        text = repr(value) if type(value) in _TOLD_BY_REPR else object.__repr__(value)
    except RecursionError:
        text = object.__repr__(value)
    return text if len(text) <= 80 else text[:77] + "..."


# -- unpacking -------------------------------------------------------------------------------------


def _inputs_of(data: bytes | memoryview, buffers: Buffers | None) -> Inputs:
    values = unpack(data, buffers)
    if data[1] not in (VALUES, BARE, POSITIONAL, FULL):
        raise DeserializationError(f"there are no inputs of shape {data[1]}")
    are_arguments = data[1] == BARE and not (may_be_unreadable(data) and Unreadable in map(type, values))
    return Inputs(data[1], values, are_arguments)


def _inputs_of_parts(view: memoryview) -> Inputs:
    """The inputs of payloads that were joined: in the shape that all of them have, or as (args, kwargs)."""
    try:
        parts = [_inputs_of(part, None) for part in _parts(view)]
    except struct.error as error:
        raise DeserializationError(f"these {len(view):,} bytes are no payload: {error}") from None
    if len({part.shape for part in parts}) == 1:
        values = [value for part in parts for value in part.values]
        return Inputs(parts[0].shape, values, all(part.are_arguments for part in parts))
    return Inputs(FULL, [_in_full(part, index) for part in parts for index in range(len(part.values))])


def _in_full(part: Inputs, index: int) -> tuple[Sequence[Any], dict[str, Any]] | Unreadable:
    value = part.values[index]
    return value if isinstance(value, Unreadable) else part.arguments(index)


def _unpack_alike(view: memoryview, buffers: Buffers | None) -> list[Any]:
    return _checked(pickle.loads(view[2:])) if view[0] == TOGETHER else _unpack_singly(view, buffers)


def _parts(view: memoryview) -> Iterator[memoryview]:
    """The payloads that were joined."""
    _, _, count = _JOINT.unpack_from(view)
    position = _JOINT.size + 4 * count
    for length in struct.unpack_from(f"<{count}I", view, _JOINT.size):
        yield view[position : position + length]
        position += length


def _unpack_singly(view: memoryview, buffers: Buffers | None) -> list[Any]:
    _, _, count, large = _TABLE.unpack_from(view)
    position = _TABLE.size
    table = struct.unpack_from(f"<{count}Q{count}I", view, position)
    position += 12 * count
    sizes = struct.unpack_from(f"<{large}Q", view, position)
    position += 8 * large
    mapped = _map(buffers, sizes)
    values: list[Any] = []
    taken = 0
    for length, uses in zip(table[:count], table[count:], strict=True):
        piece = view[position : position + length]
        values.append(_load(piece, mapped[taken : taken + uses]))
        position += length
        taken += uses
    return values


def _checked(values: Any) -> list[Any]:
    if type(values) is not list:
        raise ValueError(f"a {type(values).__name__} and no list")
    return values


def _map(buffers: Buffers | None, sizes: Sequence[int]) -> list[memoryview]:
    if buffers is None:
        return []
    block = Block.adopt(buffers)
    try:
        return block.map(sizes)
    finally:
        block.close()


def _load(piece: memoryview, buffers: Sequence[memoryview]) -> Any:
    try:
        return pickle.loads(piece, buffers=buffers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what a class does as it is loaded is up to its author
        reason = f"it can't be unpickled here: {type(error).__name__}: {error}"
        return Unreadable(DeserializationError(reason))


# -- exceptions ------------------------------------------------------------------------------------


class RemoteTraceback(Exception):
    """The traceback of an exception as it stood where it was raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def pack_exception(error: BaseException, *, own: str = "\0") -> tuple[ErrorRecord, bytes]:
    """An exception as data, with its pickle where it has one.

    Leading frames of files under `own` are left out, with those of the import of the user's code that lie in between.
    """
    import traceback

    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename.startswith((own, IMPORT_MACHINERY)):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        data = _dump(_Exactly(error), 0, None, False)
        if len(data) > MAX_EXCEPTION_BYTES or isinstance(_load(memoryview(data), ()), Unreadable):
            data = b""
    except Exception:
        data = b""
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be shown)"
    return ErrorRecord("user", _shortened(name), _shortened(message), _shortened(text)), data


def unpack_exception(record: ErrorRecord, payload: bytes | memoryview) -> BaseException:
    """The user's own exception with its remote traceback as its cause, or `RemoteError` where it can't be loaded."""
    error: BaseException | None = None
    if len(payload):
        error = _load(memoryview(payload), ())
    if not isinstance(error, BaseException):
        error = RemoteError(record.last_line)
    if record.traceback:
        error.__cause__ = RemoteTraceback(record.traceback)
    return error


class _Exactly:
    """Pickles an exception as what it is: its class may take other arguments than those it hands to `Exception`.

    What it carries and can't be pickled, such as a connection, is left behind.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        error = self._error
        kind = type(error)
        if kind.__reduce_ex__ is not object.__reduce_ex__ or not isinstance(kind.__reduce__, MethodDescriptorType):
            return error.__reduce_ex__(5)  # its author's own way
        _, args, *rest = cast("tuple[Any, ...]", error.__reduce__())
        carried: dict[str, Any] = dict(rest[0]) if rest else {}
        names = copyreg._slotnames(kind)  # type: ignore[attr-defined]
        carried |= {name: getattr(error, name) for name in names if hasattr(error, name)}
        return _exactly, (kind, args, {name: value for name, value in carried.items() if _travels(value)})


def _exactly(kind: type[BaseException], args: tuple[Any, ...], carried: dict[str, Any]) -> BaseException:
    # Made as its nearest built-in class makes it, which is where `args` come from; no code of the user's runs.
    built_in = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    error: BaseException = built_in.__new__(kind, *args)
    built_in.__init__(error, *args)  # type: ignore[misc]
    BaseException.__setstate__(error, carried)
    return error


def _travels(value: Any) -> bool:
    try:
        _dump(value, 0, None, False)
    except Exception:
        return False
    return True


def _shortened(text: str) -> str:
    """The text, less the middle where it is very long."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    half = MAX_TEXT_CHARACTERS // 2
    return f"{text[:half]}\n... ({len(text) - 2 * half:,} characters left out) ...\n{text[-half:]}"
