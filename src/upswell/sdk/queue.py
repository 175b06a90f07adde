"""`Queue`: first in, first out, for a program, its containers and all clients of one server.

A Queue has partitions that know nothing of one another; without a name the default one is meant. An item that is taken
goes to one consumer, and back to the front if that one was cancelled before it had it.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .. import operations as o
from ..spec import require
from ..wire import messages as m
from .client import Client, new_request
from .dual import dual, dual_iteration
from .shared import SharedObject, load, pieces

DAY_SECONDS = 24 * 3600
MAX_PARTITION_KEY_BYTES = 64


class Queue(SharedObject):
    """A queue at the server. From `Queue.from_name(name, create_if_missing=True)` or `with Queue.ephemeral() as q:`.

    A partition holds at most 5,000 items and 64 MiB, an item has at most 1 MiB, and there are at most 100,000
    partitions; each is emptied `partition_ttl` seconds after its last put. `timeout` is in seconds. Each method has a
    twin for asynchronous code (`await q.get.aio()`). `Queue.delete(name)` deletes a named one with all it holds.
    """

    _kind = "Queue"

    @dual
    async def get(self, block: bool = True, timeout: float | None = None, *, partition: str | None = None) -> Any:
        """Remove and return the next item.

        Waits for one, at most `timeout` seconds: then `queue.Empty`. With `block=False`, `None` when there is none.
        """
        items = await self._take(1, block, timeout, partition)
        return items[0] if items else None

    @dual
    async def get_many(
        self, n_values: int, block: bool = True, timeout: float | None = None, *, partition: str | None = None
    ) -> list[Any]:
        """Remove and return up to `n_values` items, as many as there are.

        Waits for the first, at most `timeout` seconds: then `queue.Empty`. With `block=False`, an empty list.
        """
        require(n_values >= 1, f"get_many takes a number of values from 1 on, not {n_values}")
        return await self._take(n_values, block, timeout, partition)

    @dual
    async def put(
        self,
        v: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: float = DAY_SECONDS,
    ) -> None:
        """Append an item.

        Waits for room, at most `timeout` seconds: then `queue.Full`, which comes at once with `block=False`.
        """
        await self._put([v], block, timeout, partition, partition_ttl)

    @dual
    async def put_many(
        self,
        vs: Sequence[Any],
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: float = DAY_SECONDS,
    ) -> None:
        """Append several items, all of them together or with `queue.Full` none; otherwise as `put`."""
        await self._put(list(vs), block, timeout, partition, partition_ttl)

    @dual
    async def len(self, *, partition: str | None = None, total: bool = False) -> int:
        """How many items the partition holds, or with `total` the whole Queue."""
        require(not (partition and total), "len takes a partition, or total=True, not both")
        answer, _ = await self._ask(o.QueueLength(_checked_partition(partition), total))
        return answer.count

    @dual
    async def clear(self, *, partition: str | None = None, all: bool = False) -> None:
        """Remove every item of the partition, or with `all` of the whole Queue."""
        require(not (partition and all), "clear takes a partition, or all=True, not both")
        await self._ask(o.QueueClear(_checked_partition(partition), all))

    @dual_iteration
    async def iterate(
        self, *, partition: str | None = None, item_poll_timeout: float = 0.0
    ) -> AsyncIterator[list[Any]]:
        """An iterator over the items, which stay where they are.

        It ends when no new one has come for `item_poll_timeout` seconds.
        """
        key, after = _checked_partition(partition), None
        while True:
            answer, payload = await self._ask(o.QueuePeek(key, after, max(0.0, item_poll_timeout)))
            if not answer.sizes:
                return
            after = answer.count
            yield self._items(answer, payload)

    # -- helpers -----------------------------------------------------------------------------------

    async def _take(self, count: int, block: bool, timeout: float | None, partition: str | None) -> list[Any]:
        key = _checked_partition(partition)
        _, object_id = await self._find()

        def give_back(client: Client, answer: m.ObjectAnswer, payload: memoryview) -> None:
            if answer.sizes:
                operation = o.QueuePut(key, DAY_SECONDS, 0.0, True)
                client.send(m.UseObject(new_request(), object_id, operation, answer.sizes), payload)

        operation = o.QueueGet(key, count, _wait("get", block, timeout))
        answer, payload = await self._ask(operation, unwanted=give_back)
        if block and not answer.sizes:
            import queue

            raise queue.Empty(f"nothing came to {self!r} within {timeout:g} seconds")
        return self._items(answer, payload)

    async def _put(
        self, items: list[Any], block: bool, timeout: float | None, partition: str | None, lifetime: float
    ) -> None:
        key, wait = _checked_partition(partition), _wait("put", block, timeout)
        require(lifetime > 0, f"partition_ttl must be a number of seconds above 0, not {lifetime!r}")
        if items:
            pickled = [self._dump(item, f"item {index}") for index, item in enumerate(items)]
            await self._ask(o.QueuePut(key, float(lifetime), wait), pickled)

    def _items(self, answer: m.ObjectAnswer, payload: memoryview) -> list[Any]:
        return [load(piece, f"an item of {self!r}") for piece in pieces(answer, payload) if piece is not None]


def _checked_partition(partition: str | None) -> str:
    if partition is None:
        return ""
    size = len(partition.encode())
    require(
        1 <= size <= MAX_PARTITION_KEY_BYTES, f"a partition's name has 1 to {MAX_PARTITION_KEY_BYTES} bytes, not {size}"
    )
    return partition


def _wait(verb: str, block: bool, timeout: float | None) -> float | None:
    if block:
        return None if timeout is None else max(0.0, float(timeout))
    if timeout is not None:
        warnings.warn(f"{verb}(block=False) does not wait: timeout={timeout} has no effect", stacklevel=2)
    return 0.0
