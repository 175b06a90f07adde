"""`Dict`: values by key that a program, its containers and all clients of one server share.

Keys and values travel as pickles. Keys are compared as the bytes of their pickles, so `1`, `1.0` and `True` are three
keys, and keys had best be text, numbers, bytes, or tuples of them.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from .. import operations as o
from ..errors import SerializationError
from .dual import dual, dual_iteration, run_sync
from .frames import their_frames
from .shared import SharedObject, load, pieces

KEYS_AT_A_TIME, KEY_BYTES_AT_A_TIME = 10_000, 4 << 20

_nothing = object()


class Dict(SharedObject):
    """A dict at the server. Made by `Dict.from_name(name, create_if_missing=True)` or in `with Dict.ephemeral() as d:`.

    A value has at most 100 MiB. Each method has a twin for asynchronous code (`await d.get.aio(key)`); the operators
    `d[key]`, `del` and `in` block. `Dict.delete(name)` deletes a named one with all it holds.
    """

    _kind = "Dict"
    __iter__ = None  # no loop by index; there is `keys()`

    @dual
    async def get(self, key: Any, default: Any = None) -> Any:
        """The value of the key, or `default` where there is none."""
        (value,) = await self._values([key], [_key(key)])
        return default if value is _nothing else value

    @dual
    async def put(self, key: Any, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Set the key to the value; false when `skip_if_exists` and the key is there already."""
        answer, _ = await self._ask(
            o.DictPut((_key(key),), skip_if_exists), [self._dump(value, f"the value of {key!r}")]
        )
        return answer.count > 0

    @dual
    async def update(self, other: Mapping[Any, Any] | None = None, /, **kwargs: Any) -> None:
        """Set many keys at once: all of them, or with an error none."""
        contents = {**dict(other or {}), **kwargs}
        values = [self._dump(value, f"the value of {key!r}") for key, value in contents.items()]
        await self._ask(o.DictPut(tuple(map(_key, contents))), values)

    @dual
    async def pop(self, key: Any, default: Any = _nothing) -> Any:
        """Remove the key and return its value; without one `default`, or `KeyError` where none is given."""
        answer, payload = await self._ask(o.DictPop(_key(key)))
        (piece,) = pieces(answer, payload)
        if piece is not None:
            return load(piece, self._place_of(key))
        if default is _nothing:
            raise self._key_error(key)
        return default

    @dual
    async def contains(self, key: Any) -> bool:
        """Whether the key is there."""
        answer, _ = await self._ask(o.DictContains(_key(key)))
        return answer.count > 0

    @dual
    async def len(self) -> int:
        """How many keys there are."""
        answer, _ = await self._ask(o.DictLength())
        return answer.count

    @dual
    async def clear(self) -> None:
        """Remove everything."""
        await self._ask(o.DictClear())

    @dual_iteration
    async def keys(self) -> AsyncIterator[list[Any]]:
        """An iterator over the keys as they are now, in the order in which they were first set."""
        for keys, _ in self._pages(await self._pickled_keys()):
            yield keys

    @dual_iteration
    async def values(self) -> AsyncIterator[list[Any]]:
        """An iterator over the values of the keys as they are now; one removed meanwhile is left out."""
        for keys, pickled in self._pages(await self._pickled_keys()):
            yield [value for value in await self._values(keys, pickled) if value is not _nothing]

    @dual_iteration
    async def items(self) -> AsyncIterator[list[tuple[Any, Any]]]:
        """An iterator over pairs of key and value, under the same rules as `values`."""
        for keys, pickled in self._pages(await self._pickled_keys()):
            found = await self._values(keys, pickled)
            yield [(key, value) for key, value in zip(keys, found, strict=True) if value is not _nothing]

    def __getitem__(self, key: Any) -> Any:
        """The value of the key, or `KeyError`. Blocks; in asynchronous code use `get.aio`."""
        with their_frames:
            (value,) = run_sync(self._values([key], [_key(key)]))
            if value is _nothing:
                raise self._key_error(key)
            return value

    def __setitem__(self, key: Any, value: Any) -> None:
        with their_frames:
            self.put(key, value)

    def __delitem__(self, key: Any) -> None:
        with their_frames:
            self.pop(key)

    def __contains__(self, key: Any) -> bool:
        return self.contains(key)

    # -- helpers -----------------------------------------------------------------------------------

    async def _values(self, keys: list[Any], pickled: list[bytes]) -> list[Any]:
        """The values of the keys, `_nothing` where there is none; asked for in as many parts as they need."""
        found: list[Any] = []
        while len(found) < len(keys):
            answer, payload = await self._ask(o.DictGet(tuple(pickled[len(found) :])))
            for piece in pieces(answer, payload):
                key = keys[len(found)]
                found.append(_nothing if piece is None else load(piece, self._place_of(key)))
        return found

    async def _pickled_keys(self) -> list[bytes]:
        answer, payload = await self._ask(o.DictKeys())
        return [bytes(piece) for piece in pieces(answer, payload) if piece is not None]

    def _pages(self, pickled: list[bytes]) -> Iterator[tuple[list[Any], list[bytes]]]:
        largest = max(map(len, pickled), default=1)
        step = max(1, min(KEYS_AT_A_TIME, KEY_BYTES_AT_A_TIME // largest))
        for start in range(0, len(pickled), step):
            page = pickled[start : start + step]
            yield [load(memoryview(key), f"a key of {self!r}") for key in page], page

    def _place_of(self, key: Any) -> str:
        return f"the value of {key!r} in {self!r}"

    def _key_error(self, key: Any) -> KeyError:
        return KeyError(f"{key!r} is not in {self!r}")


def _key(key: Any) -> bytes:
    """The bytes that stand for the key: equal for keys of equal parts, also where a part is one object in memory."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 5)
    pickler.fast = True  # no references back to what was pickled before
    try:
        pickler.dump(key)
    except Exception as error:
        raise SerializationError(f"{key!r} can't be a key, as it can't be pickled: {error}") from None
    return buffer.getvalue()
