"""A store on a table: steps in, answers out, without a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from upswell import store as s
from upswell.core.snapshot import SavedCall
from upswell.errors import Error
from upswell.store import Kept, Outcome, Store, Write
from upswell.stores.memory import MemoryStore
from upswell.stores.sqlite import SqliteStore
from upswell.wire.buffers import Block

PATIENCE_SECONDS = 60.0  # a disk may be as busy as the machine


class Desk:
    """A store, and the loop that its answers come to. Without a home, the store is the one in memory."""

    def __init__(self, home: Path | None = None) -> None:
        self.failures: list[Error] = []
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        calls = self._calls.put
        self.store: Store = SqliteStore(home, calls, self.failures.append, calls) if home else MemoryStore()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *exception: object) -> None:
        self.store.close()
        assert not self.failures

    def offer(self, *writes: Write) -> Error | None:
        answers: list[Error | None] = []
        self.store.offer(writes, answers.append)
        self.run_until(answers)
        return answers[0]

    def commit(self, *writes: Write) -> None:
        done: list[bool] = []
        self.store.commit(writes, lambda: done.append(True))
        self.run_until(done)

    def sweep(self, now: float) -> None:
        done: list[bool] = []
        self.store.sweep(now, lambda: done.append(True))
        self.run_until(done)

    def backup(self, path: Path) -> Error | None:
        answers: list[Error | None] = []
        self.store.backup(str(path), answers.append)
        self.run_until(answers)
        return answers[0]

    def run_until(self, done: Sequence[object]) -> None:
        """Let the store answer until there is something in `done`."""
        while not done:
            self._calls.get(timeout=PATIENCE_SECONDS)()


def opened(call: str, count: int = 10, *, last: bool = False, block: Block | None = None) -> list[Write]:
    """A spawned call with its first segment."""
    kept = Kept(f"inputs of {call}".encode(), block)
    return [s.OpenCall(call, "ap-1/f", "spawn", 100.0), s.PutInputs(call, 0, count, last, kept)]


def outputs(call: str, first: int, count: int) -> s.PutOutcome:
    return s.PutOutcome(call, Outcome(first, count, Kept(f"outputs from {first}".encode())))


def saved(desk: Desk) -> dict[str, SavedCall]:
    return {call.id: call for call in desk.store.load().calls}
