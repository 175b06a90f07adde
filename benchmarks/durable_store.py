"""The store of a server that can be restarted, alone: what it takes to have inputs on disk, and to find them again.

Beside it, what the disk gives to a program that writes the same number of bytes and waits for each to be there.
"""

import asyncio
import os
import pickle
import resource
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Figures, Measure, Target
from upswell import store as s
from upswell.errors import Error
from upswell.store import Kept, Write
from upswell.stores.sqlite import SqliteStore

INPUTS, SEGMENT = 1_000_000, 1_000
IN_FLIGHT = 64  # segments of a call that are offered and not answered
SEQUENTIAL, TASKS, OF_A_TASK = 1_000, 100, 100
SMALL = bytes(60)  # a pickled argument
SYNCED_BYTES = 20_000  # what one small call adds to the log
KIB, MIB = 1 << 10, 1 << 20


class Desk:
    """A store whose answers can be awaited."""

    def __init__(self, home: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self.store = SqliteStore(home, self._loop.call_soon_threadsafe, self._failed, self._loop.call_soon)

    def offer(self, writes: Sequence[Write]) -> asyncio.Future[Error | None]:
        answer: asyncio.Future[Error | None] = self._loop.create_future()
        self.store.offer(writes, answer.set_result)
        return answer

    def _failed(self, error: Error) -> None:
        raise error

    async def spawn(self, call: str) -> None:
        inputs = s.PutInputs(call, 0, 1, True, Kept(SMALL))
        assert await self.offer([s.OpenCall(call, "ap-1/f", "spawn", 0.0), inputs]) is None


async def _map(desk: Desk) -> float:
    payload = pickle.dumps(list(range(SEGMENT)), 5)
    started = time.perf_counter()
    await desk.offer([s.OpenCall("fc-map", "ap-1/f", "spawn", 0.0)])
    waiting: deque[asyncio.Future[Error | None]] = deque()
    for first in range(0, INPUTS, SEGMENT):
        last = first + SEGMENT == INPUTS
        waiting.append(desk.offer([s.PutInputs("fc-map", first, SEGMENT, last, Kept(payload))]))
        if len(waiting) > IN_FLIGHT:
            assert await waiting.popleft() is None
    assert not any(await asyncio.gather(*waiting))
    return INPUTS / (time.perf_counter() - started)


async def _one_by_one(desk: Desk) -> float:
    started = time.perf_counter()
    for number in range(SEQUENTIAL):
        await desk.spawn(f"fc-{number}")
    return SEQUENTIAL / (time.perf_counter() - started)


async def _together(desk: Desk) -> float:
    async def task(name: int) -> None:
        for number in range(OF_A_TASK):
            await desk.spawn(f"fc-{name}-{number}")

    started = time.perf_counter()
    await asyncio.gather(*(task(name) for name in range(TASKS)))
    return TASKS * OF_A_TASK / (time.perf_counter() - started)


async def _measured(home: Path) -> Figures:
    with tempfile.TemporaryDirectory(dir=home) as directory:
        desk = Desk(Path(directory))
        single, grouped = await _one_by_one(desk), await _together(desk)
        desk.store.close()
    with tempfile.TemporaryDirectory(dir=home) as directory:
        desk = Desk(Path(directory))
        mapped = await _map(desk)
        desk.store.close()
        started = time.perf_counter()
        desk = Desk(Path(directory))
        calls = desk.store.load().calls
        opened = time.perf_counter() - started
        assert sum(stop - start for segment in calls[0].segments for start, stop in segment.unsettled) == INPUTS
        desk.store.close()
    return {
        "map inputs/s": mapped,
        "one by one/s": single,
        "100 tasks/s": grouped,
        "open and load s": opened,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / MIB,
    }


def on_upswell() -> Figures:
    return asyncio.run(_measured(Path.cwd()))


def on_disk_alone() -> Figures:
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        started = time.perf_counter()
        for number in range(SEQUENTIAL):
            os.pwrite(file.fileno(), bytes(SYNCED_BYTES), number * SYNCED_BYTES)
            os.fdatasync(file.fileno())
        return {"one by one/s": SEQUENTIAL / (time.perf_counter() - started)}


MEASURES = [
    Measure(
        "durable_store",
        "Inputs on disk: 1,000,000 of a map in segments of 1,000, single ones in turn, single ones of 100 tasks",
        {"upswell": on_upswell, "the disk alone": on_disk_alone},
        (
            Target("map inputs/s", 300_000, 1_000_000, higher_is_better=True),
            Target("one by one/s", 2_000, 5_000, higher_is_better=True),
            Target("100 tasks/s", 20_000, 50_000, higher_is_better=True),
            Target("open and load s", 3.0, 0.5),
            Target("peak MB", 500, 100),
        ),
        rounds=3,
    )
]
