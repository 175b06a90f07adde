"""Puts a server together and runs it: listening sockets, perhaps a first client, an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from hmac import compare_digest
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..clock import Clock
from ..engine import Engine
from ..errors import Error, InvalidError
from ..home import DATABASE, SOCKET, Serving
from ..spec import Limits, ObjectLimits, app_of
from ..store import Snapshot, Store
from ..wire import messages as m
from .apps import AppService
from .calls import CallService
from .connections import GRACE_SECONDS, Connection, Peer, Sessions
from .dispatcher import Dispatcher
from .identity import NEIGHBOUR, Identity
from .ledger import Ledger
from .listing import Listings
from .objects import ObjectService
from .peers import ClientPeer, ContainerPeer, Services
from .receipts import Receipts
from .recovery import recovered
from .rejoining import Rejoining, WaitingClient
from .runtime import Runtime
from .timetable import Timetable

if TYPE_CHECKING:
    from pathlib import Path

    from .front import Front
    from .logs import Logs
    from .notice import Notice
    from .spools import Spools

    OpenStore = Callable[[Path, Callable[..., Any], Callable[[Error], None], Callable[..., Any]], Store]

BACKLOG = 1024  # containers that may be dialling at the same moment
CONTAINERS, CODE, LOGS = "containers.sock", "code", "logs"  # in the server's home
RETIRE_SECONDS = 10.0  # for exit hooks, when a server with a home ends; containers that take longer are killed
RETIRE_LOOK_SECONDS = 0.01
SWEEP_SECONDS = 60.0
CODE_SWEEP_SECONDS = 3600.0
CODE_SWEPT_AT_ONCE = 100  # files and trees, in one turn of the loop

log = logging.getLogger("upswell.server")


class Lifeline(Connection):
    """That of the first client: once it is gone `lost` is called, also where nothing was ever said over it."""

    def __init__(
        self, greet: Callable[[Connection, m.Hello], Peer | None], clock: Clock, lost: Callable[[], None]
    ) -> None:
        super().__init__(greet, clock)
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone, and with it the program."""
        super().connection_lost(exc)
        self._lost()


class Server:
    """A runtime, its dispatcher, and whom it talks to."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        limits: Limits,
        clock: Clock | None = None,
        home: Path | None = None,
        calendar: Callable[[], float] = time.time,
        front: Front | None = None,
    ) -> None:
        """With a `home` it goes on where the last server of that home has ended, and keeps what it is given.

        It listens there for clients of its user, and with a `front` for others too. `calendar` tells the seconds since
        the epoch.
        """
        loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._engine = engine
        self._store = store
        self._home = home
        self._front = front
        self._since = calendar()
        self._clock = clock or loop
        self._snapshot: Snapshot | None = store.load()  # until what it tells of goes on
        self._early: list[WaitingClient] = []  # that have come before that
        self._runtime = Runtime(engine, limits, self._clock, loop.call_soon, self._snapshot.first_id)
        self._logs: Logs | None = None
        self._spools: Spools | None = None
        code = None
        if home is not None:  # a private server keeps neither, and starts without what that takes
            from ..code import CodeStore
            from .logs import Logs

            code, self._logs = CodeStore(home / CODE), Logs(home / LOGS, calendar)
        dispatcher = Dispatcher(self._runtime, engine, store, Ledger(store, loop.call_later, calendar), self._logs)
        if home is not None:
            from .spools import Spools

            self._spools = Spools(home, dispatcher, self._runtime.plane.room_for_spawned, self._clock)
        self._runtime.begin(dispatcher.perform)
        self._rejoining = Rejoining(dispatcher, engine, self._clock)
        self._timetable = Timetable(dispatcher, self._clock)
        self._services = Services(
            self._runtime,
            dispatcher,
            CallService(dispatcher, self._clock, loop.call_soon),
            AppService(dispatcher, self._timetable, code),
            ObjectService(ObjectLimits(), self._clock),
            self._describe,
            Listings(dispatcher, self._runtime.plane, engine, self._timetable, self._clock),
            self._logs,
            self._spools,
        )
        self._sessions: Sessions | None = None if home is None else {}  # else clients end with their connection
        self._address = ""
        self._has_shortcut = False

    async def run(
        self,
        *,
        first_client: socket.socket | None = None,
        has_shortcut: bool = False,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Serve until a signal asks for the end, or the first client is gone, where there is one.

        With `has_shortcut` that is who reads what containers send by it. `ready` is called when clients can connect.
        """
        self._has_shortcut = has_shortcut
        loop = asyncio.get_running_loop()
        self._heed_signals(loop)
        # Where there is a home, containers of an earlier server dial what they have dialled before.
        listener, self._address = listen_abstract() if self._home is None else listen_at(self._home / CONTAINERS)
        # Those on nodes need an address: a free port of this machine could be anybody's, so without TLS it is none.
        secured = self._front is not None and self._front.address.startswith("tls:")
        abroad = self._front.address if self._front is not None and secured and self._engine.crosses_machines else ""
        self._rejoining.find(await self._engine.open(abroad or self._address, self._rejoining.report))
        # Held in names: a listening server that nobody refers to is closed by the garbage collector.
        listening = [
            await loop.create_unix_server(
                lambda: Connection(self._greet_container, self._clock, self._sessions), sock=listener, backlog=BACKLOG
            )
        ]
        door = None  # of the home, for clients
        if self._front is not None:  # before who comes back by it is awaited
            listening.append(await self._front.open(self._greet_remote, self._clock, self._sessions))
        if self._home is not None:
            await self._rejoining.gather()
            self._go_on()
            at_home, _ = listen_at(self._home / SOCKET)
            door = await loop.create_unix_server(
                lambda: Connection(self._greet_neighbour, self._clock, self._sessions), sock=at_home, backlog=BACKLOG
            )
        if first_client is not None:
            await loop.connect_accepted_socket(
                lambda: Lifeline(self._greet_first, self._clock, self.ended.set), first_client
            )
        if ready is not None:
            ready()
        await self.ended.wait()
        log.info("process %d was told to end, or its client has", os.getpid())
        if door is not None:
            door.close()  # by the others containers may come back, and end in good order
            await self._retire()
        for one in listening:
            one.close()
        await self._engine.close()
        for session in (self._sessions or {}).values():
            session.stop_waiting()
        if self._spools is not None:
            self._spools.end()
        self._services.dispatcher.ledger.commit()
        self._store.close()
        if self._spools is not None:
            self._spools.close()
        if self._logs is not None:
            self._logs.close()

    def _heed_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # which nohup has seen to
                loop.add_signal_handler(number, self.ended.set)

    def _go_on(self) -> None:
        """Serve what the last server of this home has left: apps, calls, schedules."""
        snapshot, self._snapshot = self._snapshot, None
        assert snapshot is not None
        self._services.apps.restore(snapshot)
        self._services.calls.restore(snapshot)
        self._timetable.restore(snapshot)
        self._rejoining.recovered(tuple(recovered(snapshot)))
        self._timetable.begin()
        early, self._early = self._early, []
        for client in early:
            client.go_on()
        self._sweep()
        self._sweep_code(self._services.apps.sweep_code())
        self._clock.call_later(GRACE_SECONDS, self._services.apps.expect_nobody)
        self._clock.call_later(GRACE_SECONDS, self._services.calls.expect_nobody)

    async def _retire(self) -> None:
        """Let containers run their exit hooks; what is kept goes on when the home is served again."""
        dispatcher, deadline = self._services.dispatcher, time.monotonic() + RETIRE_SECONDS
        dispatcher.retire()
        while dispatcher.containers and time.monotonic() < deadline:
            await asyncio.sleep(RETIRE_LOOK_SECONDS)
        assert self._home is not None
        for name in (SOCKET, CONTAINERS):
            (self._home / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Let go of what was kept long enough, now and again and again."""
        self._store.sweep(self._services.dispatcher.ledger.now(), lambda: None)
        if self._spools is not None:
            self._spools.sweep()
        self._clock.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep_code(self, steps: Iterator[None]) -> None:
        """The same for code, a little in each turn of the loop."""
        if sum(1 for _ in islice(steps, CODE_SWEPT_AT_ONCE)) == CODE_SWEPT_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._sweep_code, steps)
        else:
            self._clock.call_later(CODE_SWEEP_SECONDS, lambda: self._sweep_code(self._services.apps.sweep_code()))

    def _greet_first(self, connection: Connection, hello: m.Hello) -> Peer | None:
        if self._has_shortcut:
            self._services.dispatcher.delivers_to = connection
        return self._welcome(connection, NEIGHBOUR)

    def _greet_neighbour(self, connection: Connection, hello: m.Hello) -> Peer | None:
        """Who reaches the socket in the home is of the same user, as every connection makes sure."""
        if hello.role != "client":
            return None
        return self._welcome(connection, NEIGHBOUR, self._spools.folder if self._spools is not None else "")

    def _greet_remote(self, connection: Connection, hello: m.Hello) -> Peer | None:
        assert self._front is not None
        if self._is_too_late(connection, hello):
            return None
        if identity := self._front.identify(connection, hello):
            if self._snapshot is None:
                return self._welcome(connection, identity)
            client = WaitingClient(lambda: self._welcome(connection, identity))
            self._early.append(client)
            return client
        return self._greet_container(connection, hello) if self._engine.crosses_machines else None

    def _greet_container(self, connection: Connection, hello: m.Hello) -> Peer | None:
        """Containers, and clients inside them: both have the token that was made for the container."""
        if self._is_too_late(connection, hello):
            return None
        if hello.role == "container" and connection.going_on is not None:
            connection.welcome(self._address)
            return connection.going_on
        if found := self._rejoining.known(hello.token):
            if hello.role == "container":
                self._welcome_container(connection, hello)
                return self._rejoining.greet(connection, found, hello.loaded)
            identity = Identity("container", found.container, app_of(found.function))
            return self._rejoining.greet_client(found, lambda: self._welcome(connection, identity))
        served = self._services.dispatcher.containers.get(hello.token.partition(".")[0])
        if served is None or not compare_digest(served.token.encode(), hello.token.encode()):
            return None
        connection.identity = Identity("container", served.id, app_of(served.record.id))
        if hello.role == "client":
            return self._welcome(connection, connection.identity)
        if served.connection is not None:
            return None
        self._welcome_container(connection, hello)
        if not hello.loaded:
            connection.send(m.Load(served.record))
        dispatcher = self._services.dispatcher
        receipts = Receipts(connection, dispatcher.ledger, self._clock) if self._home is not None else None
        return ContainerPeer(connection, served, dispatcher, receipts)

    def _is_too_late(self, connection: Connection, hello: m.Hello) -> bool:
        """Whether it is a client that comes while the server ends: none is here for it, so it looks for the next."""
        if hello.role == "client" and self.ended.is_set():
            connection.hang_up()
            return True
        return False

    def _welcome_container(self, connection: Connection, hello: m.Hello) -> None:
        """Answer one that may come back over another stream; others know by what comes that they are welcome."""
        if hello.session:
            connection.welcome(self._address)

    def _welcome(self, connection: Connection, identity: Identity, spools: str = "") -> Peer:
        connection.identity = identity
        connection.welcome(self._address, spools)
        return ClientPeer(connection, self._services)

    def _describe(self, request: int) -> m.ServerDescribed:
        from .. import __version__

        dispatcher, addresses = self._services.dispatcher, [] if self._home is None else [f"unix:{self._home / SOCKET}"]
        return m.ServerDescribed(
            request,
            __version__,
            os.getpid(),
            addresses + ([self._front.address] if self._front is not None else []),
            self._since,
            len(dispatcher.apps),
            len(dispatcher.functions),
            len(dispatcher.containers),
            0 if self._home is None else kept_bytes(self._home),
            self._store.trouble,
        )


def listen_abstract() -> tuple[socket.socket, str]:
    """A socket without a place in the file system, and its address."""
    if not hasattr(socket, "SO_PEERCRED"):
        raise Error("upswell's server needs Linux's abstract sockets and peer credentials")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"upswell-{os.urandom(16).hex()}"
    listener.bind("\0" + name)
    listener.listen(BACKLOG)
    return listener, f"unix:@{name}"


def listen_at(path: Path) -> tuple[socket.socket, str]:
    """A socket at that path, in place of one that an earlier server has left, and its address; only its user can reach
    it.
    """
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(fresh))
    except OSError as error:
        listener.close()
        raise InvalidError(f"{path} can't be listened at: {error}: set UPSWELL_HOME to a shorter path") from None
    fresh.chmod(0o600)
    listener.listen(BACKLOG)
    fresh.rename(path)  # so that whoever finds it finds somebody there
    return listener, f"unix:{path.absolute()}"


def serve_private(engine: Engine, store: Store, first_client: socket.socket) -> None:
    """Run a private server for the client at the other end of `first_client`."""

    async def run() -> None:
        await Server(engine, store, Limits()).run(first_client=first_client, has_shortcut=True)

    _run(run())


def serve_home(engine: Engine, open_store: OpenStore, home: Path, serving: Serving, notice: Notice) -> None:
    """Run the server whose state is in the directory `home`, until a signal ends it.

    `open_store` makes its store, given the directory, what calls a function on the loop from any thread, whom to tell
    of the end, and what calls a function in the loop's next turn.
    Whoever waits for it gets `notice` when it answers.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()
        store = open_store(home, loop.call_soon_threadsafe, _fail, loop.call_soon)
        try:
            front = _front(home, serving)
            server = Server(engine, store, serving.limits, home=home, front=front)
        except BaseException:
            store.close()
            raise
        addresses = [f"unix:{home / SOCKET}", *([front.address] if front else [])]

        def ready() -> None:
            log.info("process %d serves at %s", os.getpid(), " and ".join(addresses))
            notice.ready(" and ".join(addresses))

        await server.run(ready=ready)

    _run(run())


def _front(home: Path, serving: Serving) -> Front | None:
    if not serving.listen:
        return None
    from .front import Front

    return Front(home, serving)


def kept_bytes(home: Path) -> int:
    """The size of the home's database, with the files that SQLite has beside it."""
    size = 0
    for entry in os.scandir(home):
        if entry.name.startswith(DATABASE):
            with suppress(FileNotFoundError):  # one that SQLite has just done away with
                size += entry.stat().st_size
    return size


def _fail(error: Error) -> None:
    """Nothing can be kept any more."""
    log.critical("%s", error)
    os._exit(74)  # EX_IOERR; what was accepted is on the disk


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
