"""What has come of a spawned call: collected once in a process, looked at by every handle on the call.

Frames are decoded by whoever waits, never by the reader. Once everything is here the connection forgets the call.
"""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..errors import InvalidError
from ..wire import messages as m
from ..wire import reentry
from .client import Client, failure
from .dual import Wait
from .inbox import Inbox, Restarted
from .outcomes import Failure, outcomes_of, raisable


def collection_of(client: Client, call: str) -> Collection:
    """The collection of that call; begun now where it is the first of this process. `InvalidError` while another thread
    of this process still gives inputs to the call, which is what it hears about.
    """
    fresh = Collection(client, call)
    collection = client.share_inbox(fresh)
    if not isinstance(collection, Collection):
        raise InvalidError(f"{call} is being spawned by this program: collect it once its spawn_map has returned")
    if collection is fresh:
        collection.send(m.Collect(call, 0, -1))
    return collection


class Collection(Inbox):
    """The results of one call, as far as they have come. Any number of threads and tasks may wait for more of them."""

    def __init__(self, client: Client, call: str) -> None:
        super().__init__(client, call, renewable=True)
        self.total: int | None = None  # inputs, once that is known
        self._values: dict[int, Any] = {}
        self._failures: dict[int, BaseException] = {}
        self._missing: Exception | None = None  # there is no such call, or not any more
        self._is_described = False  # what the server had at first is here
        self._waits: set[Wait] = set()
        self._receiving = reentry.lock()

    @property
    def results(self) -> int:
        """How many of them are here."""
        return len(self._values) + len(self._failures)

    def __contains__(self, index: int) -> bool:
        return index in self._values or index in self._failures

    def result(self, index: int) -> Any:
        """The output of an input whose result is here, or its exception, raised."""
        if (error := self._failures.get(index)) is not None:
            raise raisable(error)
        return self._values[index]

    async def until(self, enough: Callable[[], bool], timeout: float | None, known_as: str) -> None:
        """Wait for `enough()`; the builtin `TimeoutError` after `timeout` seconds, with the name that the call is
        `known_as`, `NotFoundError` for no such call, `OutputExpiredError` for one that was.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not enough():
            wait = Wait(reader=self._client)
            self._waits.add(wait)  # before the look, so that nothing comes unnoticed in between
            try:
                self._receive()
                if enough():
                    return
                if self._missing is not None:
                    raise self._missing
                # The server's first answer is immediate, and a look without waiting waits for that.
                if deadline is not None and self._is_described:
                    wait.timeout = deadline - monotonic()
                    if wait.timeout <= 0:
                        raise builtins.TimeoutError(f"{known_as} has no result yet")
                await wait
            finally:
                self._waits.discard(wait)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for wait in tuple(self._waits):
            wait.set()

    def _receive(self) -> None:
        with reentry.unheld(self._receiving):
            for message, payload in self.take():
                match message:
                    case m.CallDescribed(total=total):
                        self._is_described = True
                        self.total = total if total >= 0 else self.total
                    case m.Failed(count=0, error=error):
                        self._missing = failure(error)
                    case Restarted():
                        self._is_described = False
                        self.send(m.Collect(self.name, self._first_missing(), -1))
                    case m.Outputs() | m.Failed():
                        for first, outcome in outcomes_of(self, message, payload):
                            if isinstance(outcome, Failure):
                                self._failures |= dict.fromkeys(range(first, first + outcome.inputs), outcome.error)
                            else:
                                self._values.update(enumerate(outcome, first))
                if self.results == self.total or self._missing is not None:
                    self.close()
                    self.send(m.Uncollect(self.name))

    def _first_missing(self) -> int:
        """The first input whose result is not here."""
        return next(index for index in itertools.count() if index not in self)
