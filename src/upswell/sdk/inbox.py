"""What the server says of one call, app or request, in the order it came, for whoever waits for it.

A server that was started again knows nothing of the call. An inbox that is `renewable` hears of that as `Restarted`,
and whoever waits there says again what is to be done; for others the connection is lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ConnectionError, Error, ExecutionError
from ..wire import messages as m
from ..wire.codec import Bytes, Frame
from .dual import Wait

if TYPE_CHECKING:
    from ..wire.payload import Packed
    from .client import Client


class Restarted(m.Message, frozen=True):
    """Never sent: the server that this client now speaks to knows nothing of what was said before."""

    life: int


RESTARTED = "the server was started again before it answered, and may or may not have done it"


class Inbox:
    """Frames about `name`, and what is said of that in the same life of the server."""

    __slots__ = ("_client", "_diverted", "_wait", "frames", "life", "name", "renewable")

    def __init__(self, client: Client, name: str, *, renewable: bool = False) -> None:
        self.name = name
        self.renewable = renewable
        self.life = 0  # of the server, as far as whoever waits here has heard
        self._client = client
        self.frames: deque[Frame | Error] = deque()
        self._wait: Wait | None = None
        self._diverted: Callable[[Frame | Error], None] | None = None

    # -- the reader's side -------------------------------------------------------------------------

    def put(self, frame: Frame | Error) -> None:
        """Take what has come. Called by the reader."""
        self.frames.append(frame)
        if self._diverted is not None:
            self.divert(self._diverted)
        self.wake()

    def restarted(self, life: int) -> None:
        """Called by the reader: this life of the server knows nothing of what was said so far."""
        self.put((Restarted(life), memoryview(b"")) if self.renewable else ConnectionError(RESTARTED))

    def divert(self, callback: Callable[[Frame | Error], None]) -> None:
        """Nobody will wait here any more: hand what is here and what comes to `callback`, in whatever thread."""
        self._client.read_elsewhere()
        self._diverted = callback  # before looking, as `put` appends before it looks here
        while self.frames:
            try:
                frame = self.frames.popleft()
            except IndexError:
                return  # the other thread had it
            callback(frame)

    def wake(self) -> None:
        """Let whoever waits look again."""
        if (wait := self._wait) is not None and not wait.done:
            wait.set()

    # -- the side of whoever waits -----------------------------------------------------------------

    def send(self, message: m.Message, payload: Bytes = b"") -> None:
        """Say something of it; nothing happens where the server has forgotten what it is about."""
        self._client.send(message, payload, self.life)

    def cancel(self, position: int = -1, *, running: bool = True) -> None:
        """Nobody waits for the call any more, or for its input at `position`: end what has not started of it, with
        `running` also what has.

        Raises nothing, as who leaves has a reason of its own. And it may leave in the midst of another frame: Python
        closes a generator that is part of a cycle wherever it happens to collect that.
        """
        try:
            self.send(m.Cancel(self.name, running=running, position=position))
        except ExecutionError:
            again = partial(self.cancel, position, running=running)
            threading.Thread(target=again, name="upswell-cancel", daemon=True).start()
        except Error:
            pass  # the connection is lost, and the call with it

    def submit(self, message: m.Submit | m.Restore, packed: Packed) -> None:
        """Send inputs, which whoever sends them keeps until they have their outputs; otherwise as `send`."""
        self._client.submit(message, packed, self.life)

    async def ask(self, question: m.Message) -> m.Message:
        """The answer to a question; in a renewable inbox it is put again where the server is started again.

        It is answered at once, so who asks inside a container keeps its place.
        """
        self.send(question)
        while True:
            while not (frames := self.take()):
                await self.sleep(lends=False)
            answer, _ = frames[0]
            if not isinstance(answer, Restarted):
                return answer
            self.send(question)

    def close(self) -> None:
        """Frames that come from now on are dropped."""
        self._client.close_inbox(self.name)

    async def sleep(
        self, timeout: float | None = None, *, lends: bool = True, unless: Callable[[], bool] | None = None
    ) -> bool:
        """Wait until there are frames or somebody calls `wake`; false when `timeout` seconds passed first.

        Who wakes for another reason than frames must not come unnoticed just before: `unless` is looked at last.
        """
        return await self._sleep(Wait(timeout, lends=lends, reader=self._client), unless)

    async def _sleep(self, wait: Wait, unless: Callable[[], bool] | None = None) -> bool:
        self._wait = wait
        if self.frames or (unless is not None and unless()):
            wait.done = True
        else:
            await wait
        self._wait = None
        return wait.done

    def take(self) -> list[Frame]:
        """The frames that are there, `Restarted` before all others; raises what stands in their place: a lost
        connection, a refusal.
        """
        taken: list[Frame] = []
        while self.frames:
            frame = self.frames.popleft()
            if isinstance(frame, Error):
                self.frames.appendleft(frame)
                if taken:
                    break
                raise type(frame)(*frame.args)
            if isinstance(frame[0], Restarted):
                if taken and not isinstance(taken[-1][0], Restarted):
                    # What came before is of another life: it is looked at first.
                    self.frames.appendleft(frame)
                    break
                self.life = frame[0].life
                taken = [frame]
            else:
                taken.append(frame)
        return taken

    async def arrival(self) -> None:
        """Wait for at least one frame; whoever waits here reads it for itself, where it can."""
        while not self.frames:
            await self._sleep(Wait(reader=self))

    async def receive(self) -> list[Frame]:
        """Wait for at least one frame."""
        await self.arrival()
        return self.take()

    # -- in whose thread it is read -------------------------------------------------------------------

    def read_here(self, wait: Wait) -> bool:
        """Whoever waits here waits for frames alone, and so may read them for itself."""
        return self._client.read_for(self, wait)

    def take_here(self, move: Callable[[], None]) -> bool:
        """Have `move` append the frame that who waits here has read; false where another thread has to."""
        move()
        return True

    def read_elsewhere(self) -> None:
        """Have another thread read, as who waits can't."""
        self._client.read_elsewhere()

    def is_answered_by(self, message: m.Message) -> bool:
        """Whether the message is an outcome of this call."""
        return isinstance(message, m.Outputs | m.Failed) and message.call == self.name and self._diverted is None
