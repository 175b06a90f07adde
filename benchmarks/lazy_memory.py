"""A map over ten million inputs of a lazy iterator: neither client nor server may grow, nor the speed fall."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any

import psutil

import upswell
from benchmarks import peers, work
from benchmarks.harness import Figures, Measure, Target

INPUTS, SHORT_INPUTS = 10_000_000, 100_000
SHORT_REPEATS = 5
RESULTS_PER_SAMPLE = 250_000

app = upswell.App("bench-lazy-memory")


@app.function(min_containers=2, max_containers=2)
def noop(x: int) -> int:
    return x


class Memory:
    """The growth of this process, and of its children that run no inputs, since the first sample."""

    def __init__(self) -> None:
        here = psutil.Process()
        self.client, self.children = here, here.children()
        self.first = self._sample()
        self.growth = (0.0, 0.0)

    def _sample(self) -> tuple[float, float]:
        return self.client.memory_info().rss / 2**20, sum(child.memory_info().rss for child in self.children) / 2**20

    def look(self) -> None:
        now = self._sample()
        client, others = (max(grown, at - first) for grown, at, first in zip(self.growth, now, self.first, strict=True))
        self.growth = client, others


def measured(mapped: Callable[[Iterable[int]], Iterable[Any]]) -> Figures:
    short = [_rate(mapped, SHORT_INPUTS, None) for _ in range(1 + SHORT_REPEATS)][1:]
    memory = Memory()
    rate = _rate(mapped, INPUTS, memory)
    return {
        "inputs/s": rate,
        "share of 100,000's speed": rate / sorted(short)[SHORT_REPEATS // 2],
        "client grows MB": memory.growth[0],
        "server grows MB": memory.growth[1],
    }


def _numbers(inputs: int) -> Iterator[int]:
    return islice(count(), inputs)  # no length that anybody could ask for


def _rate(mapped: Callable[[Iterable[int]], Iterable[Any]], inputs: int, memory: Memory | None) -> float:
    started = time.perf_counter()
    results = iter(mapped(_numbers(inputs)))
    received = total = 0
    while part := list(islice(results, RESULTS_PER_SAMPLE)):
        received += len(part)
        total += sum(part)
        if memory:
            memory.look()
    assert received == inputs and total == inputs * (inputs - 1) // 2
    return inputs / (time.perf_counter() - started)


def on_upswell() -> Figures:
    with app.run():
        return measured(lambda inputs: noop.map(inputs))


def on_peer(name: str, chunksize: int) -> Figures:
    with peers.start(name) as peer:
        return measured(lambda inputs: peer.map(work.noop, inputs, chunksize))


MEASURES = [
    Measure(
        "lazy_memory",
        "A lazy map over 10,000,000 ints, 2 warm processes",
        {"upswell": on_upswell, "mp.Pool.imap(1000)": partial(on_peer, "pool", 1000)},
        (
            Target("client grows MB", 32.0),
            Target("server grows MB", 32.0),
            Target("share of 100,000's speed", 0.8, higher_is_better=True),
        ),
        rounds=1,
    )
]
