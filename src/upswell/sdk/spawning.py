"""Single spawns on their way to the server. Those that are made at once, or while an earlier one of their function is
not accepted yet, travel together, as one call with an input for each, which costs little more than one of them would.

In plain code a lone spawn leaves at once, and who waits for it alone reads the answer for itself; on a loop all leave
together that were made in one turn of it. Whoever comes while a group is on its way leaves with the answer to that. No
thread of ours waits here: a group leaves with the first of its spawns, or with who reads the answer to the one before;
so nothing is sent while the lock of what stays here is held.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..errors import ResourceExhaustedError
from ..wire import messages as m
from ..wire import reentry
from ..wire.ids import call_of_input
from ..wire.payload import Packed, join
from ..wire.reentry import unheld
from .client import failure, new_id
from .dual import Wait, set_all
from .inbox import Inbox
from .spooling import Spooling
from .submission import Submission

if TYPE_CHECKING:
    import asyncio

    from .client import Client

GROUP_INPUTS = 128  # whoever fetches one of a group is sent what the others have given
GROUP_BYTES = 256 << 10
GATHERED_BYTES = 16 << 10  # a larger one travels alone


Lane = tuple[str, str, str]  # what spawns have in common that travel together: function, method, input they are made by


class Spawn(Wait):
    """One of them. When it is `done` it has its `call`, or the `error` that it was refused with."""

    __slots__ = ("_spawning", "error", "given_up", "group", "lane", "name", "packed", "position")

    def __init__(self, packed: Packed, lane: Lane, spawning: Spawning) -> None:
        super().__init__(reader=spawning)
        self.packed = packed
        self.lane = lane
        self.error: Exception | None = None
        self.name = ""  # of what has travelled for it
        self.group: Group | None = None  # with which it has left, if it travelled with one
        self.position = -1  # in that, unless it is alone there
        self.given_up = False
        self._spawning = spawning

    @property
    def call(self) -> str:
        """The id by which it is known from now on."""
        return call_of_input(*self.place)

    @property
    def place(self) -> tuple[str, int]:
        """What has travelled for that call, and which input of it; -1 where it is all of it."""
        return self.name, self.position

    def block(self) -> None:
        """Wait in this thread, which makes no other."""
        if self._spawning.write_down(self):
            self.done = True
            return
        self._spawning.leave(self.lane)
        if not self.done:
            super().block()

    def wait(self) -> Awaitable[object]:
        """What a task of the running loop awaits; other tasks may make more before the loop goes on."""
        awaited = super().wait()
        assert self._future is not None
        self._spawning.leave_after_turn(self._future.get_loop())
        return awaited


class Spawning:
    """The spawns of one connection, in their lanes. At most one group of a lane is on its way."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = reentry.lock()
        self._staying: dict[Lane, list[Spawn]] = {}  # those that have not left
        self._travelling: set[Lane] = set()  # lanes with a group on its way, which the next follows
        self.leaving = reentry.lock()  # held by who lets others leave, which none does while a signal handler waits
        self._turn: asyncio.AbstractEventLoop | None = None  # after whose present turn all leave
        self.spooling = Spooling(client)

    def add(self, packed: Packed, lane: Lane) -> Spawn:
        """One more, which leaves when it is waited for, or with others."""
        spawn = Spawn(packed, lane, self)
        if packed.block is not None or len(packed.data) > GATHERED_BYTES:
            Group(self._client, lane, [spawn], lambda: None).leave()
            return spawn
        with unheld(self._lock):
            if (staying := self._staying.get(lane)) is not None:
                staying.append(spawn)
            else:
                self._staying[lane] = [spawn]
        return spawn

    def write_down(self, spawn: Spawn) -> bool:
        """Have one that is alone in its lane on disk, without the server; false where it is to leave."""
        lane = spawn.lane
        if not self.spooling.may_write(lane):
            return False
        with unheld(self._lock):
            if lane in self._travelling or self._staying.get(lane) != [spawn]:
                return False
            del self._staying[lane]
        if self.spooling.write(spawn):
            return True
        if spawn.name:  # by which it may be there all the same, and so it goes by it
            Group(self._client, lane, [spawn], lambda: None).leave()
            return False
        with unheld(self._lock):
            self._staying.setdefault(lane, []).append(spawn)
        return False

    def leave(self, lane: Lane) -> None:
        """Let those of the lane leave, now or after the group that is on its way."""
        with unheld(self.leaving):
            with unheld(self._lock):
                if lane in self._travelling:
                    return
            try:
                self._travelling.add(lane)
                self._go_on(lane)
            except BaseException:  # from outside, such as Ctrl-C: whoever comes next need not wait for an answer
                self._travelling.discard(lane)
                raise

    def leave_after_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let all leave when everything that is due in this turn of the loop has been done."""
        if self._turn is not loop:
            self._turn = loop
            loop.call_soon(self._leave_all)

    def read_here(self, wait: Wait) -> bool:
        """Who waits for a spawn that has left alone may read the answer for itself: it has nobody else to wake."""
        assert isinstance(wait, Spawn)
        if (group := wait.group) is not None and group.is_single and wait.lane not in self._staying:
            return group.read_here(wait)
        self.read_elsewhere()
        return False

    def read_elsewhere(self) -> None:
        """Have another thread read, as who waits can't."""
        self._client.read_elsewhere()

    def give_up(self, spawn: Spawn) -> None:
        """Nobody waits for it any more, and it is not to run."""
        with unheld(self._lock):
            spawn.given_up = True
            if (group := spawn.group) is None and spawn in self._staying.get(spawn.lane, ()):
                self._staying[spawn.lane].remove(spawn)
        if group is not None:
            group.cancel(spawn.position)
        elif spawn.name:
            self._client.send(m.Cancel(spawn.name))  # in vain, if it was not written

    def _leave_all(self) -> None:
        self._turn = None
        for lane in list(self._staying):
            self.leave(lane)

    def _go_on(self, lane: Lane) -> None:
        """No group of the lane is on its way: let the next one leave."""
        while (group := self._next(lane)) is not None and not group.leave():
            pass

    def _next(self, lane: Lane) -> Group | None:
        """The next group; where nobody has come the lane ends."""
        with unheld(self._lock):
            staying = self._staying.get(lane, [])
            count = size = 0
            while count < min(len(staying), GROUP_INPUTS) and size < GROUP_BYTES:
                size += len(staying[count].packed.data)
                count += 1
            if count < len(staying):
                self._staying[lane] = staying[count:]
            else:
                self._staying.pop(lane, None)
            if not count:
                self._travelling.discard(lane)
                return None
            return Group(self._client, lane, staying[:count], lambda: self._go_on(lane))


class Group(Inbox):
    """Spawns that travel together: one call, or in the eyes of who made them one each. Who reads drives it."""

    def __init__(self, client: Client, lane: Lane, spawns: list[Spawn], answered: Callable[[], None]) -> None:
        """`answered` is called once, when the server has answered, before anybody else hears of that."""
        super().__init__(client, new_id("fg") if len(spawns) > 1 else spawns[0].name or new_id("fc"), renewable=True)
        self._lane = lane
        self._spawns = spawns
        self._answered = [answered]  # until somebody takes it, to tell everybody what came of it
        function, method, parent = lane
        self._submission = Submission(self, self.name, function, "spawn", method=method, parent=parent)
        for position, spawn in enumerate(spawns):
            spawn.name, spawn.group, spawn.position = self.name, self, position if len(spawns) > 1 else -1

    @property
    def is_single(self) -> bool:
        """Whether one spawn travels alone."""
        return len(self._spawns) == 1

    def leave(self) -> bool:
        """Send it; whether it is on its way, and has not failed at once."""
        first, *others = self._spawns
        packed = Packed(join([spawn.packed.data for spawn in self._spawns])) if others else first.packed
        try:
            self._client.begin(self, lambda: self._submission.send(packed, len(self._spawns), last=True))
        except Exception as error:
            if self._answered_once() is not None:
                self._end(error)
                return False
        return True

    def read_here(self, wait: Wait) -> bool:
        """In the thread of who waits for one of them; whether that has been answered."""
        try:
            return super().read_here(wait)
        except BaseException:
            self.wake()  # a signal handler may have raised it between the arrival of the answer and a look at it
            raise

    def is_answered_by(self, message: m.Message) -> bool:
        """Whether the message says that the server has taken the spawns."""
        return isinstance(message, m.Accepted) and message.call == self.name

    def take_here(self, move: Callable[[], None]) -> bool:
        """As others leave with the answer, this is as `Spawning.leave` for a signal handler that comes in between."""
        leaving = self._client.spawning.leaving
        try:
            if not leaving.acquire(blocking=False):
                return False
            move()
            self.wake()
            return True
        finally:
            try:
                leaving.release()
            except RuntimeError:
                pass  # another thread has it

    def wake(self) -> None:
        """Called by who reads: look at what came."""
        error: Exception | None = None
        try:
            for message, _ in self.take():
                if isinstance(message, m.Refused):
                    raise failure(message.error)  # nobody waits for room here
                self._submission.answered(message)
                if isinstance(message, m.Accepted) and self.is_single:
                    self._client.spawning.spooling.permitted(self._lane, message.permit)
        except Exception as refused:
            error = refused
        if (error or not self._submission.unaccepted) and (answered := self._answered_once()) is not None:
            answered()
            if isinstance(error, ResourceExhaustedError):
                self.send(m.Cancel(self.name))  # it will not be offered again
            if isinstance(error, ResourceExhaustedError) and len(self._spawns) > 1:
                self._part()
            else:
                self._end(error)

    def _part(self) -> None:
        """There is no room for all of them: each goes on alone."""
        self.close()
        self._submission.close()
        for spawn in self._spawns:
            if not spawn.given_up:
                spawn.name = ""  # that was the group's
                Group(self._client, self._lane, [spawn], lambda: None).leave()

    def _answered_once(self) -> Callable[[], None] | None:
        try:
            return self._answered.pop()
        except IndexError:
            return None  # the reader has seen the connection end in the same moment as who was sending

    def _end(self, error: Exception | None) -> None:
        self.close()
        self._submission.close()
        spawns, self._spawns = self._spawns, []  # which refer to this group, and are not to wait for a collection
        for spawn in spawns:
            spawn.error = error
            if spawn.given_up and not error:
                self.cancel(spawn.position)  # in vain, if it was said before the server knew the call
        set_all(spawns)
