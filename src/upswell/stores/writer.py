"""The one thread that writes, and its group commit: whatever has come while the last transaction reached the disk goes
into the next.

A step is kept whole or not at all, after every step before it. When there is no room, steps that may be refused are,
and the others wait in their order until there is; what can't be repaired by waiting ends the store.

While the thread has nothing to do, whoever puts steps may write them for it, if the disk is quick. To wake the thread
and to be woken by it takes as long as such a write does.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import apsw

from .. import store as s
from ..errors import ConflictError, Error, InvalidError, ResourceExhaustedError, StoreError
from .ahead import WriteAhead
from .file import damaged, lacks_room
from .rows import Rows

STEPS_AT_ONCE = 2_000  # in one transaction
SECONDS_AT_ONCE = 0.1  # spent on one, after which those that wait have waited long enough
RETRY_SECONDS = 0.5  # between attempts while there is no room
QUICK_SECONDS = 0.001  # that the last transaction took at most, where the next may be written by who puts it

Notify = Callable[[Callable[[], None]], object]  # calls it on the server's loop, from any thread


@dataclass(frozen=True, slots=True)
class Step:
    """Writes that belong together. `done` is told the error that refused them; nobody refuses those that `must` be."""

    writes: Sequence[s.Write]
    done: s.Answer
    must: bool


@dataclass(frozen=True, slots=True)
class Sweep:
    """Something to do in small parts, between other steps."""

    now: float
    done: s.Done


class End:
    """Nothing comes any more."""


class Tend:
    """The log has grown by what others wrote, and is to be looked after."""


END, TEND = End(), Tend()


class Writer:
    """Owns the connection once it is started."""

    def __init__(self, connection: apsw.Connection, notify: Notify, failed: Callable[[Error], None]) -> None:
        self.trouble = ""  # why there was no room for the last that came; any thread may read it
        self._connection = connection
        self._rows = Rows(connection)
        self._log = WriteAhead(connection)
        self._notify = notify
        self._failed = failed
        self._queue: SimpleQueue[Step | Sweep | End | Tend] = SimpleQueue()
        self._put = 0  # items, by the loop
        self._done = 0  # of them, by the thread; when that is all of them, it waits for more, and touches nothing
        self._said = 0  # how often the thread has answered
        self._heard = 0  # how often the loop has heard of that: what it writes itself is answered after all before it
        self._seconds = math.inf  # that the last transaction took
        self._waiting: list[Step] = []  # for room, each a `must`; nothing is written before them
        self._retry_at = 0.0
        self._answers: list[tuple[s.Answer, Error | None]] = []  # to be given once the transaction has ended
        self._thread = threading.Thread(target=self._run, name="upswell-store", daemon=True)
        self._thread.start()

    def put(self, item: Step | Sweep | End | Tend) -> None:
        """Write it soon, after what was put before."""
        self._put += 1
        self._queue.put(item)

    def write(self, steps: Sequence[Step]) -> bool:
        """Write the steps now, in the caller's thread, and answer them; false where nothing was written and they are to
        be put: others come first, it might take long, or one of them can't be written.
        """
        is_idle = self._put == self._done and not self._waiting
        if not is_idle or self._said != self._heard or self._seconds > QUICK_SECONDS:
            return False
        try:
            written = self._transaction(steps)
        except (apsw.Error, Error, OSError):
            self._roll_back()
            return False
        for step in steps[written:]:
            self.put(step)
        if self._log.needs_tending:
            self.put(TEND)
        answers, self._answers = self._answers, []
        for done, error in answers:
            done(error)
        return True

    def close(self) -> None:
        """Write what was put, and end."""
        self.put(END)
        self._thread.join()

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as error:
            reason = self._explained(error)
            self._notify(lambda: self._failed(reason))
        finally:
            self._log.close()
            self._connection.close()

    def _turn(self) -> bool:
        """Write what has come, and try again what waits; `False` at the end."""
        group: list[Step] = []
        try:
            last = self._gather(group)
        except Empty:
            last = None
            self._done -= 1  # it does something that nobody has put
            taken = 1
        else:
            taken = len(group) + (last is not None)
        ending = last is END
        if self._waiting and (ending or time.monotonic() >= self._retry_at):
            self._retry()
        self._write(group)
        if isinstance(last, Sweep):
            self._sweep(last)
        self._answer()
        self._log.tend(others_wait=not self._queue.empty())
        self._done += taken
        return not ending

    def _gather(self, group: list[Step]) -> Sweep | End | Tend | None:
        """All steps that have come, into `group`, up to something else; waits for the first."""
        item = self._queue.get(timeout=RETRY_SECONDS if self._waiting else None)
        while isinstance(item, Step):
            group.append(item)
            if len(group) >= STEPS_AT_ONCE or self._queue.empty():
                return None
            item = self._queue.get_nowait()
        return item

    def _write(self, group: list[Step]) -> None:
        """Write the steps in as few transactions as possible."""
        begun = 0
        while begun < len(group):
            if self._waiting:
                self._write_apart(group[begun:])
                return
            try:
                begun += self._transaction(group[begun:])
                self._answer()
            except (apsw.Error, Error, OSError):
                self._roll_back()
                self._write_apart(group[begun:])
                return

    def _transaction(self, group: Sequence[Step]) -> int:
        """Write steps until the time for one transaction is up; how many they were."""
        begun = time.monotonic()
        until, count = begun + SECONDS_AT_ONCE, 0
        self._connection.execute("BEGIN IMMEDIATE")
        for step in group:
            self._rows.write(step.writes)
            count += 1
            if time.monotonic() > until:
                break
        self._rows.flush()
        self._connection.execute("COMMIT")
        self._seconds = time.monotonic() - begun
        self.trouble = ""
        self._answers += [(step.done, None) for step in group[:count]]
        return count

    def _write_apart(self, group: list[Step]) -> None:
        """Write each step by itself, so that one that can't be written bears the consequence alone."""
        for step in group:
            if self._waiting:
                self._refuse_or_wait(step)
                continue
            try:
                self._transaction([step])
            except (apsw.Error, Error, OSError) as error:
                self._roll_back()
                self._bear(step, error)

    def _bear(self, step: Step, error: Exception) -> None:
        reason = self._explained(error)
        if isinstance(reason, StoreError) or (step.must and not isinstance(reason, ResourceExhaustedError)):
            raise error
        if isinstance(reason, ResourceExhaustedError):
            self.trouble = str(reason)
        if step.must:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._waiting.append(step)
        else:
            self._answers.append((step.done, reason))

    def _refuse_or_wait(self, step: Step) -> None:
        if step.must:
            self._waiting.append(step)
        else:
            self._answers.append((step.done, ResourceExhaustedError(self.trouble)))

    def _retry(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._write_apart(waiting)

    def _sweep(self, sweep: Sweep) -> None:
        more = False
        try:
            if not self._waiting:
                self._connection.execute("BEGIN IMMEDIATE")
                more = self._rows.sweep(sweep.now)
                self._connection.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            if isinstance(self._explained(error), StoreError):
                raise
        if more:
            self._done -= 1  # it is put once more, and the loop alone counts what is put
            self._queue.put(sweep)
        else:
            self._answers.append((lambda _: sweep.done(), None))

    def _roll_back(self) -> None:
        self._rows.forget()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _answer(self) -> None:
        """Tell the loop, in one go, what is kept and what is refused."""
        if self._answers:
            answers, self._answers = self._answers, []
            self._said += 1

            def tell() -> None:
                self._heard += 1
                for done, error in answers:
                    done(error)

            self._notify(tell)

    def _explained(self, error: Exception) -> Error:
        """The error in our words: a refusal where the server can go on, else `StoreError`."""
        path = self._connection.filename
        if lacks_room(self._connection, error):
            return ResourceExhaustedError(
                f"there is no room to keep it: the disk of {path} is full, or a limit on the size of files is reached; "
                "make room and try again"
            )
        if isinstance(error, apsw.TooBigError):
            return InvalidError(f"it is larger than the {path} can keep in one piece: send less at once")
        if isinstance(error, apsw.ConstraintError):
            return ConflictError(f"it is kept already, or contradicts what is: {error}")
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            return damaged(path, error)
        if isinstance(error, Error):
            return error
        return StoreError(f"{path} can't be written, and nothing is accepted any more: {type(error).__name__}: {error}")
