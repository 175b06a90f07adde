"""Containers of an earlier life of this server that call home again, with what they hold.

They are the core's again once their function is known, and their calls: those of a client that waits are known when it
has come back, so what such a container says is held back for a moment. Nothing of it is lost: it is handled then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hmac import compare_digest

import msgspec

from ..clock import Clock
from ..core import events as e
from ..engine import CapacityChanged, ContainerExit, ContainerFound, ContainerOutput, Engine, Reported
from ..spec import FunctionRecord, FunctionSpec, app_of
from ..wire import messages as m
from ..wire.codec import ProtocolError
from .connections import Connection, Peer
from .dispatcher import Dispatcher
from .model import Served
from .peers import ContainerPeer
from .receipts import Receipts
from .validation import check_container

RETURN_SECONDS = 1.0  # a server that begins waits so long for containers before it starts others
CALLERS_SECONDS = 10.0  # containers that have called wait so long for those whose calls they run
LOST_SECONDS = 60.0  # a container that has not called by then never will
NEVER = float("inf")
LOOK_SECONDS = 0.02  # between two looks whether somebody is waited for in vain

Known = e.FunctionDeclared | e.SettingsUpdated | e.CallRestored  # what an earlier life has left, less containers


class Absent(msgspec.Struct, eq=False):
    """A container that the core does not know yet."""

    found: ContainerFound
    connection: Connection | None = None
    is_told: bool = False  # what it is to be; one that waits for that holds nothing yet, and says nothing
    ranges: list[m.Holding] | None = None  # what it holds, once it has said so
    peer: ReturningPeer | None = None
    clients: list[WaitingClient] = []  # inside it
    awaited: set[str] = set()  # calls that are not kept: their clients have to tell of them
    patient_until: float = 0.0
    outputs: list[ContainerOutput] = []  # what it wrote meanwhile


class Rejoining:
    """The containers that an earlier server has left."""

    def __init__(self, dispatcher: Dispatcher, engine: Engine, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._engine = engine
        self._clock = clock
        self._absent: dict[str, Absent] = {}
        self._versions: dict[tuple[str, int], tuple[FunctionRecord, ...]] = {}  # that were read, by app and number
        self._gathered = asyncio.Event()
        self._begun = False  # apps and calls of the earlier server are known
        self._is_looking = False
        dispatcher.call_restored = self.restored

    def find(self, found: Sequence[ContainerFound]) -> None:
        """These containers are there, and will call."""
        self._absent = {one.container: Absent(one) for one in found}
        if found:
            self._clock.call_later(RETURN_SECONDS, self._gathered.set)
            self._clock.call_later(LOST_SECONDS, self._end_the_silent)
        else:
            self._gathered.set()

    def report(self, report: Reported) -> None:
        """What the engine says of a container."""
        absent = None if isinstance(report, CapacityChanged) else self._absent.get(report.container)
        if absent is None:
            self._dispatcher.report(report)
        elif isinstance(report, ContainerOutput):
            absent.outputs.append(report)
        elif isinstance(report, ContainerExit):
            del self._absent[report.container]
            self._count()

    def known(self, token: str) -> ContainerFound | None:
        """Whose token it is."""
        absent = self._absent.get(token.partition(".")[0])
        if absent is None or not compare_digest(absent.found.token.encode(), token.encode()):
            return None
        return absent.found

    def greet(self, connection: Connection, found: ContainerFound, is_told: bool) -> ReturningPeer | None:
        """The container calls, and knows (`is_told`) or may not know yet what it is to be."""
        absent = self._absent[found.container]
        if absent.connection is not None:
            return None
        absent.connection, absent.is_told = connection, is_told
        absent.peer = ReturningPeer(connection, absent, self)
        self._tell(absent, self._record(found) or self._as_it_was(found))
        if self._begun:
            self._look_again()
        return absent.peer

    def greet_client(self, found: ContainerFound, let_in: Callable[[], Peer]) -> WaitingClient:
        """A client inside the container calls; it is let in when the container is, as what it names may be unknown."""
        client = WaitingClient(let_in)
        self._absent[found.container].clients.append(client)
        return client

    async def gather(self) -> None:
        """Wait until all have called, or for a moment."""
        await self._gathered.wait()

    def _count(self) -> None:
        if all(one.ranges is not None for one in self._absent.values()):
            self._gathered.set()

    def recovered(self, events: Sequence[Known]) -> None:
        """The apps and calls of the earlier server are known; these are the events that tell the core of them."""
        self._begun = True
        self._happened(events, [one for one in self._absent.values() if self._is_complete(one)])
        self._look_again()

    def restored(self, event: e.CallRestored) -> None:
        """A client is back with its call: tell the core, together with the containers that run it."""
        now_complete = [one for one in self._absent.values() if self._is_complete(one, event.saved.id)]
        self._happened([event], now_complete)

    # -- one that has called -----------------------------------------------------------------------

    def returned(self, absent: Absent, ranges: list[m.Holding]) -> None:
        """It has said what it holds."""
        absent.ranges = ranges
        absent.awaited = {one.call for one in ranges if self._dispatcher.store.call(one.call) is None}
        absent.patient_until = self._clock.time() + CALLERS_SECONDS
        if self._begun and self._is_complete(absent):
            self._happened([], [absent])
        elif self._begun:
            self._look_again()
        else:
            self._count()

    def lost(self, absent: Absent) -> None:
        """Its connection is gone before the core has heard of it: then it must end."""
        absent.connection = absent.ranges = absent.peer = None
        self._engine.kill(absent.found.container)

    def _is_complete(self, absent: Absent, call: str = "") -> bool:
        """Whether its function, and all calls that it has ranges of, are known, or (`call`) about to be."""
        if absent.ranges is None or self._record(absent.found) is None:
            return False
        callers = self._dispatcher.calls
        here = {one for one in absent.awaited if (caller := callers.get(one)) is not None and caller.arriving is None}
        return absent.awaited <= here | {call}

    def _happened(self, events: Sequence[Known], absent: Sequence[Absent]) -> None:
        """Tell the core of all this as one, and then what the containers have said since they called."""
        for one in absent:
            del self._absent[one.found.container]
        rejoined = [self._rejoin(one) for one in absent]
        together = (*events, *rejoined)
        if together:
            self._dispatcher.happened(e.Recovered(together) if len(together) > 1 else together[0])
        for one in absent:
            assert one.peer is not None
            one.peer.go_on()
            for client in one.clients:
                client.go_on()
            for output in one.outputs:
                self._dispatcher.report(output)

    def _rejoin(self, absent: Absent) -> e.ContainerRejoined:
        """The container is one like all others from now on."""
        found, connection, record = absent.found, absent.connection, self._record(absent.found)
        assert connection is not None and absent.ranges is not None and absent.peer is not None and record is not None
        served = Served(found.container, found.token, record, found.version, connection)
        self._dispatcher.rejoined(served, absent.ranges)
        receipts = Receipts(connection, self._dispatcher.ledger, self._clock)
        absent.peer.become(ContainerPeer(connection, served, self._dispatcher, receipts))
        ranges = tuple(
            e.HeldRange(one.range, one.call, one.first, one.next, one.stop, one.batch, one.chunks, one.suspended)
            for one in absent.ranges
        )
        return e.ContainerRejoined(found.container, found.function, found.version, ranges, self._old_spec(found))

    def _record(self, found: ContainerFound) -> FunctionRecord | None:
        return self._dispatcher.functions.get(found.function)

    def _as_it_was(self, found: ContainerFound) -> FunctionRecord | None:
        """Its function as it was declared in the version it is of, where that is kept."""
        key = app_of(found.function), found.version
        if key not in self._versions:
            version = self._dispatcher.store.version(*key)
            self._versions[key] = version.functions if version is not None else ()
        return next((one for one in self._versions[key] if one.id == found.function), None)

    def _old_spec(self, found: ContainerFound) -> FunctionSpec | None:
        """How its function was declared, where that is not how it is now and is still known."""
        record = self._record(found)
        if record is None or found.version == record.version:
            return None
        was = self._as_it_was(found)
        return was.spec if was is not None else None

    def _tell(self, absent: Absent, record: FunctionRecord | None) -> None:
        """Tell it what it is to be, once that is known, unless it knows."""
        if absent.connection is not None and not absent.is_told and record is not None:
            absent.is_told = True
            absent.connection.send(m.Load(record))

    # -- waiting -----------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """Look soon, where there is somebody to look for."""
        here = [one for one in self._absent.values() if one.connection is not None]
        if not self._is_looking and any(one.ranges is not None or not one.is_told for one in here):
            self._is_looking = True
            self._clock.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Take those whose function and calls are known by now, or who have waited long enough."""
        self._is_looking = False
        now = self._clock.time()
        for one in self._absent.values():
            self._tell(one, self._record(one.found))
        for one in [one for one in self._absent.values() if one.ranges is not None]:
            is_over = now >= one.patient_until
            if self._is_complete(one) or (is_over and self._record(one.found)):
                self._happened([], [one])
            elif is_over:
                one.patient_until = NEVER
                self._engine.kill(one.found.container)  # nobody has its function any more
        self._look_again()

    def _end_the_silent(self) -> None:
        for one in self._absent.values():
            self._engine.kill(one.found.container)


class WaitingClient:
    """A client that names what may be unknown still: inside a container of an earlier server until the core knows that,
    and on another machine until the apps of the home go on.
    """

    def __init__(self, let_in: Callable[[], Peer]) -> None:
        self._let_in = let_in
        self._peer: Peer | None = None
        self._is_lost = False

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """What a client says: nothing, before it has had its answer."""
        if self._peer is None:
            raise ProtocolError(f"{type(message).__name__} before Welcome")
        self._peer.receive(message, payload)

    def go_on(self) -> None:
        """Let it in."""
        if not self._is_lost:
            self._peer = self._let_in()

    def lost(self) -> None:
        """Its connection is gone."""
        self._is_lost = True
        if self._peer is not None:
            self._peer.lost()


class ReturningPeer:
    """A container of an earlier server that has called home."""

    def __init__(self, connection: Connection, absent: Absent, rejoining: Rejoining) -> None:
        self._connection = connection
        self._absent = absent
        self._rejoining = rejoining
        self._said: list[tuple[m.Message, memoryview]] = []  # since it told what it holds
        self._peer: ContainerPeer | None = None  # what it is once the core knows it

    def receive(self, message: m.Message, payload: memoryview) -> None:
        """What a container says."""
        if self._peer is not None:
            self._peer.receive(message, payload)
            return
        check_container(message, self._connection)
        match message:
            case _ if self._absent.ranges is not None:
                self._said.append((message, payload))
            case m.Rejoin(ranges=ranges):
                self._rejoining.returned(self._absent, ranges)
            case m.Ready():  # it had just been started
                self._rejoining.returned(self._absent, [])
            case m.StartFailed() | m.Bye():
                pass  # it exits; another one will say why, if one is needed
            case _:
                raise ProtocolError(f"a container that comes back says what it holds, and not {type(message).__name__}")

    def become(self, peer: ContainerPeer) -> None:
        """The core is about to hear of it."""
        self._peer = peer

    def go_on(self) -> None:
        """The core has heard of it: handle what it has said since."""
        said, self._said = self._said, []
        try:
            for message, payload in said:
                self.receive(message, payload)
        except ProtocolError as error:
            self._connection.close(str(error))

    def lost(self) -> None:
        """Its connection is gone."""
        if self._peer is not None:
            self._peer.lost()
        else:
            self._rejoining.lost(self._absent)
