"""The store of a server that can be restarted: one SQLite file in the server's home, written by one thread, in groups.

This is the loop's side. It waits for no write but a single small one to a quick disk, and keeps what need not outlive
the process in memory. Nothing is decided here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import apsw

from .. import store as s
from ..errors import Error, StoreError
from ..home import DATABASE
from ..store import Kept, Outcome
from ..wire.codec import LARGE_PAYLOAD_BYTES
from .file import copy, explained, lock, open_for_writing
from .memory import MemoryStore
from .reading import Reader
from .recent import Recent
from .writer import Notify, Step, Sweep, Writer

RECENT_BYTES = 32 << 20  # of segments that are kept in memory too
SMALL_WRITES, SMALL_BYTES = 64, 16 << 10  # in the steps of a turn that the loop may write itself


class SqliteStore:
    """Keeps what is written to it in `home`/upswell.db.

    `notify` calls a function on the server's loop, from any thread (`loop.call_soon_threadsafe`). `failed` is told when
    nothing can be kept any more: the process must end. `soon` calls a function in the loop's next turn
    (`loop.call_soon`): what a turn has offered alone is written then by the loop itself, if the disk is quick; without
    it the thread writes everything. Raises `ConflictError` when another process has the directory, `StoreError` when
    the file is damaged, another program's, or a newer upswell's.
    """

    def __init__(self, home: Path, notify: Notify, failed: Callable[[Error], None], soon: Notify | None = None) -> None:
        self._lock = lock(home)
        self._path = str(home / DATABASE)
        self._notify = notify
        self._passing = MemoryStore()  # what ends with the process
        self._recent = Recent(RECENT_BYTES)
        self._backups: list[threading.Thread] = []
        try:
            with explained(self._path):
                writing = open_for_writing(self._path)
                self._reader = Reader(self._path)
        except BaseException:
            os.close(self._lock)
            raise
        self._writer = Writer(writing, notify, failed)
        self._soon = soon
        self._turn: list[Step] = []  # the steps of this turn of the loop

    # -- payloads ----------------------------------------------------------------------------------

    def put_inputs(self, call: str, first: int, kept: Kept) -> None:
        self._passing.put_inputs(call, first, kept)

    def inputs(self, call: str, first: int) -> Kept:
        if (lent := self._recent.lend(call, first)) is not None:
            return lent
        with contextlib.suppress(KeyError):
            return self._passing.inputs(call, first)
        if (kept := self._reader.inputs(call, first)) is None:
            raise KeyError((call, first))
        self._recent.put(call, first, kept)
        lent = self._recent.lend(call, first)
        assert lent is not None
        return lent

    def drop_inputs(self, call: str, first: int) -> None:
        self._passing.drop_inputs(call, first)

    def put_outcome(self, call: str, outcome: Outcome) -> None:
        self._passing.put_outcome(call, outcome)

    def outcomes(self, call: str, first: int = 0, stop: int | None = None) -> Iterator[Outcome]:
        yield from self._passing.outcomes(call, first, stop)
        yield from self._reader.outcomes(call, first, stop)

    def drop_call(self, call: str) -> None:
        self._passing.drop_call(call)

    # -- writes ------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        return self._writer.trouble

    def offer(self, writes: Sequence[s.Write], answer: s.Answer) -> None:
        def answered(error: Error | None) -> None:
            if error is None:
                self._remember(writes)
            answer(error)

        self._put(Step(writes, answered, must=False))

    def commit(self, writes: Sequence[s.Write], done: s.Done) -> None:
        def kept(_: Error | None) -> None:
            self._remember(writes)
            done()

        self._put(Step(writes, kept, must=True))

    def _put(self, step: Step) -> None:
        if self._soon is None:
            self._writer.put(step)
            return
        self._turn.append(step)
        if len(self._turn) == 1:
            self._soon(self._end_turn)

    def _end_turn(self) -> None:
        """Have the steps of the turn written: by the loop where one is offered and alone, or with what is decided."""
        steps, self._turn = self._turn, []
        offered = [step for step in steps if not step.must]
        if len(offered) == 1 and _are_small(steps) and self._writer.write(steps):
            return
        for step in steps:
            self._writer.put(step)

    def _remember(self, writes: Sequence[s.Write]) -> None:
        """Segments that are kept now, until it is kept that they are gone: answers come in the order of the steps."""
        for write in writes:
            match write:
                case s.PutInputs(call=call, first=first):
                    kept = write.kept.share()
                    if len(kept.payload) < LARGE_PAYLOAD_BYTES:  # a view that would keep what else came with it
                        kept.payload = bytes(kept.payload)
                    self._recent.put(call, first, kept)
                case s.DropInputs(call=call, first=first):
                    self._recent.drop(call, first)
                case s.WithdrawInputs(call=call) | s.DropCall(call=call):
                    self._recent.drop_call(call)

    # -- reading -----------------------------------------------------------------------------------

    def load(self) -> s.Snapshot:
        return self._reader.load()

    def call(self, call: str) -> s.CallRecord | None:
        return self._reader.call(call)

    def calls(self, limit: int = 100, skip: int = 0) -> list[s.CallRecord]:
        return self._reader.calls(limit, skip)

    def failures(self, call: str) -> int:
        return min(s.MAX_FAILURES, self._passing.failures(call) + self._reader.failures(call))

    def apps(self) -> list[s.AppRecord]:
        return self._reader.apps()

    def version(self, app: str, number: int) -> s.Version | None:
        return self._reader.version(app, number)

    def version_heads(self, app: str, limit: int = 100) -> list[s.VersionHead]:
        return self._reader.version_heads(app, limit)

    def missing(self, digests: Iterable[str]) -> set[str]:
        return self._reader.missing(digests)

    def file(self, digest: str) -> bytes:
        content = self._reader.file(digest)
        if content is None:
            raise KeyError(digest)
        return content

    # -- upkeep ------------------------------------------------------------------------------------

    def sweep(self, now: float, done: s.Done) -> None:
        self._end_turn()
        self._writer.put(Sweep(now, done))

    def backup(self, path: str, answer: s.Answer) -> None:
        def run() -> None:
            error: Error | None = None
            try:
                copy(self._path, path)
            except StoreError as refused:
                error = refused
            except (apsw.Error, OSError) as problem:
                error = StoreError(f"{self._path} could not be copied to {path}: {problem}")
            self._notify(lambda: answer(error))

        self._backups = [thread for thread in self._backups if thread.is_alive()]
        self._backups.append(threading.Thread(target=run, name="upswell-backup"))
        self._backups[-1].start()

    def close(self) -> None:
        if self._lock < 0:
            return
        for thread in self._backups:
            thread.join()
        self._reader.close()
        self._end_turn()
        self._writer.close()
        self._recent.close()
        self._passing.close()
        os.close(self._lock)
        self._lock = -1


def _are_small(steps: Sequence[Step]) -> bool:
    """Whether the loop may write them: they take no longer than the least that can be written, and the loop has nothing
    else to do meanwhile, as it has while parts of a `spawn_map` or groups of spawns come.
    """
    writes = size = 0
    for step in steps:
        writes += len(step.writes)
        for write in step.writes:
            if isinstance(write, s.PutInputs):
                size += _size(write.kept) if write.last and write.count == 1 else SMALL_BYTES
            elif isinstance(write, s.PutOutcome):
                size += _size(write.outcome.kept)
            elif isinstance(write, s.AppWrite):
                size += SMALL_BYTES  # files of code
    return writes <= SMALL_WRITES and size < SMALL_BYTES


def _size(kept: Kept) -> int:
    return len(kept.payload) if kept.block is None else SMALL_BYTES
