"""Nearest neighbours among 20,000 vectors, asked one by one, answered in batches by a model that a container holds.

Look at `Index`: `@modal.enter` loads it once a container, `@modal.batched` turns single queries into lists, and
`with_batching` gives the same class without batches to compare. One pass over the vectors serves a whole batch.
"""

import collections
import time

import numpy as np

import upswell as modal

app = modal.App("batching")
VECTORS, DIMENSIONS = 20_000, 512


def vectors() -> np.ndarray:
    """Return unit vectors, the same everywhere."""
    drawn = np.random.default_rng(seed=1).standard_normal((VECTORS, DIMENSIONS), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@app.cls(max_containers=1)  # for the comparison: what batches alone gain
class Index(modal.Obj):
    @modal.enter()
    def load(self) -> None:
        self.vectors = vectors()

    @modal.batched(max_batch_size=64, wait_ms=20)
    def nearest(self, queries: list[np.ndarray]) -> list[tuple[int, int]]:
        """Return for each query the row that is most like it, and how many queries shared the pass."""
        likeness = np.stack(queries) @ self.vectors.T
        return [(int(row), len(queries)) for row in likeness.argmax(axis=1)]


@app.local_entrypoint()
def main(queries: int = 400):
    print(f"{VECTORS:,} vectors of {DIMENSIONS} dimensions, {queries} noisy copies of them to be recognised")
    random = np.random.default_rng(seed=2)
    rows = random.choice(VECTORS, queries)
    asked = list(vectors()[rows] + random.normal(0, 0.05, (queries, DIMENSIONS)).astype(np.float32))
    alone, together = Index.with_batching(max_batch_size=1, wait_ms=0)(), Index()
    slow, fast = measure("alone", alone, asked, rows), measure("in batches", together, asked, rows)
    print(f"batches are {fast / slow:.1f} times as fast")


def measure(title: str, index: Index, asked: list[np.ndarray], rows: np.ndarray) -> float:
    index.nearest.remote(asked[0])  # the container is there, and has its vectors
    began = time.perf_counter()
    answers = list(index.nearest.map(asked))
    rate = len(asked) / (time.perf_counter() - began)
    right = sum(found == row for (found, _), row in zip(answers, rows, strict=True))
    shared = collections.Counter(size for _, size in answers)
    sizes = ", ".join(f"{count // size} × {size}" for size, count in sorted(shared.items(), reverse=True))
    print(f"{title:<11} {rate:>6,.0f} queries/s, {right} recognised, batches: {sizes}")
    return rate
