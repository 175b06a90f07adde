"""A real server on the test's loop, whose containers the test plays: over the wire, with the tokens they are given."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from upswell.capacity import Capacity
from upswell.clock import ManualClock
from upswell.engine import CapacityChanged, ContainerDelayed, ContainerExit, ContainerFound, ContainerOutput, Report
from upswell.errors import Error
from upswell.home import SOCKET, Serving
from upswell.server.front import Front
from upswell.server.serve import Server
from upswell.spec import AutoscalerSettings, Cron, Environment, FunctionRecord, FunctionSpec, Limits, Period, Retries
from upswell.store import Store
from upswell.stores.memory import MemoryStore
from upswell.stores.sqlite import SqliteStore
from upswell.wire import messages as m
from upswell.wire.codec import Decoder, encode

HERE = Environment(kind="module", origin="", module="", main=False, sys_path=(), directory="/")
PATIENCE_SECONDS = 60.0
AnyM = TypeVar("AnyM", bound=m.Message)


def record(
    name: str,
    app: str = "ap-1",
    settings: AutoscalerSettings | None = None,
    retries: Retries | None = None,
    schedule: Cron | Period | None = None,
) -> FunctionRecord:
    spec = FunctionSpec(settings=settings or AutoscalerSettings(), retries=retries, schedule=schedule)
    return FunctionRecord(id=f"{app}/{name}", app_name="app", name=name, spec=spec, environment=HERE)


@dataclass
class PlayedEngine:
    """Starts nothing: who holds the token is the container."""

    tokens: dict[str, str] = field(default_factory=dict)  # of containers that were started and have not ended
    functions: dict[str, str] = field(default_factory=dict)
    records: list[FunctionRecord] = field(default_factory=list)  # of those that were started, as they were
    killed: list[str] = field(default_factory=list)
    dying: set[str] = field(default_factory=set)  # of those that were killed, whose end is about to be reported
    found: list[ContainerFound] = field(default_factory=list)  # what an earlier one has left
    address: str = ""
    crosses_machines: bool = False
    has: Capacity = Capacity(2.0, 1 << 40)  # noqa: RUF009 - frozen

    async def open(self, address: str, report: Report) -> list[ContainerFound]:
        self.address, self._report = address, report
        self._loop = asyncio.get_running_loop()
        for one in self.found:
            self.tokens[one.container], self.functions[one.container] = one.token, one.function
        return self.found

    def prepare(self, function: FunctionRecord) -> None:
        pass

    def start(self, container: str, token: str, function: FunctionRecord, version: int = 0) -> None:
        self.tokens[container] = token
        self.functions[container] = function.id
        self.records.append(function)

    def kill(self, container: str) -> None:
        self.killed.append(container)
        self.dying.add(container)
        self._loop.call_soon(self.end, container, -9)

    def end(self, container: str, status: int) -> None:
        """The container's process ends."""
        self.dying.discard(container)
        if self.tokens.pop(container, None):
            self._report(ContainerExit(container, status, f"status {status}"))

    def write(self, container: str, stream: int, text: str) -> None:
        """The container's process writes whole lines."""
        self._report(ContainerOutput(container, stream, text))

    def delay(self, container: str, reason: str) -> None:
        """There is no room for the container yet."""
        self._report(ContainerDelayed(container, reason))

    def grow(self, capacity: Capacity) -> None:
        """There are other nodes."""
        self.has = capacity
        self._report(CapacityChanged())

    def cpu_seconds(self, container: str) -> float | None:
        return None

    def sample(self, containers: Sequence[str]) -> list[tuple[str, float]]:
        return []

    def memory_bytes(self, container: str) -> int | None:
        return None

    def capacity(self) -> Capacity:
        return self.has

    async def close(self) -> None:
        for container in list(self.tokens):
            self.end(container, -9)


class Peer:
    """One end of a connection to the server."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.spools = ""  # where the server says that it may have a spool
        self.closed = False
        self._decoder = Decoder()
        self._frames: list[tuple[m.Message, bytes]] = []
        stream.setblocking(False)

    async def send(self, *messages: m.Message, payload: bytes = b"") -> None:
        await self.send_bytes(b"".join(encode(message, payload) for message in messages))

    async def send_bytes(self, data: bytes) -> None:
        """Send, unless the server has closed meanwhile."""
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self.stream, data)
        except (ConnectionResetError, BrokenPipeError):
            pass

    def _read(self, data: bytes) -> bytes:
        """What came, as the server has sent it; nothing more when it has closed."""
        self.closed = not data
        return data

    async def receive(self) -> tuple[m.Message, bytes] | None:
        """The next frame; `None` when the server has closed."""
        while not self._frames and not self.closed:
            try:
                data = await asyncio.get_running_loop().sock_recv(self.stream, 1 << 16)
            except ConnectionResetError:
                data = b""
            frames = self._decoder.feed(self._read(data))
            self._frames += [(message, bytes(payload)) for message, payload in frames]
        return self._frames.pop(0) if self._frames else None

    async def expect(self, kind: type[AnyM]) -> tuple[AnyM, bytes]:
        """The next frame of this kind; others are passed over."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while frame := await self.receive():
                if isinstance(frame[0], kind):
                    return frame[0], frame[1]
        raise AssertionError(f"the server closed before it sent {kind.__name__}")

    async def dismissed(self) -> str:
        """Why the server closes the connection; "" where it was closed without a word."""
        reason = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while frame := await self.receive():
                if isinstance(frame[0], m.Bye):
                    reason = frame[0].reason
        return reason

    def is_dismissed(self) -> bool:
        """Whether the server has closed, as far as can be read now; what it says is dropped."""
        while not self.closed:
            try:
                data = self.stream.recv(1 << 16)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                data = b""
            self._decoder.feed(self._read(data))
        return True

    def close(self) -> None:
        self.stream.close()


class SecuredPeer(Peer):
    """The same with TLS between."""

    def __init__(self, stream: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(stream)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    async def shake_hands(self) -> None:
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                await self._write(self._outgoing.read())
                self._incoming.write(await asyncio.get_running_loop().sock_recv(self.stream, 1 << 16))
            else:
                await self._write(self._outgoing.read())
                return

    async def send_bytes(self, data: bytes) -> None:
        self._session.write(data)
        await self._write(self._outgoing.read())

    def _read(self, data: bytes) -> bytes:
        self._incoming.write(super()._read(data))
        opened = bytearray()
        try:
            while piece := self._session.read(1 << 16):
                opened += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return bytes(opened)


class Stage:
    """A server, its first client, and whoever else the test wants to be."""

    def __init__(self, server: Server, engine: PlayedEngine, clock: ManualClock, client: Peer) -> None:
        self.server = server
        self.engine = engine
        self.clock = clock
        self.client = client
        self.peers = [client]
        self.home: Path | None = None
        self.front: Front | None = None
        self.trusted: ssl.SSLContext | None = None  # where the front has TLS: what its certificate is checked against
        self.played: set[str] = set()  # containers that have called home

    async def stranger(self) -> Peer:
        """Somebody who has dialled and said nothing."""
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.setblocking(False)
        name = self.engine.address.removeprefix("unix:")
        await asyncio.get_running_loop().sock_connect(stream, "\0" + name[1:] if name.startswith("@") else name)
        self.peers.append(Peer(stream))
        return self.peers[-1]

    async def neighbour(self) -> Peer:
        """A client of the same user, over the socket in the home."""
        assert self.home is not None
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.setblocking(False)
        await asyncio.get_running_loop().sock_connect(stream, str(self.home / SOCKET))
        self.peers.append(Peer(stream))
        return await self._greeted(self.peers[-1], "")

    async def remote(self, token: str | None) -> Peer:
        """Somebody from elsewhere: a client with this token, or with `None` one who has said nothing."""
        assert self.front is not None
        host, _, port = self.front.address.rpartition("/")[2].rpartition(":")
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent now arrives now
        stream.setblocking(False)
        await asyncio.get_running_loop().sock_connect(stream, (host, int(port)))
        if self.trusted is None:
            peer = Peer(stream)
        else:
            peer = SecuredPeer(stream, self.trusted)
            await peer.shake_hands()
        self.peers.append(peer)
        return peer if token is None else await self._greeted(peer, token)

    async def _greeted(self, peer: Peer, token: str) -> Peer:
        await peer.send(m.Hello(m.PROTOCOL, "client", token, os.getpid()))
        peer.spools = (await peer.expect(m.Welcome))[0].spools
        return peer

    async def has_taken_all(self) -> None:
        """Return when the server has taken all that the first client has sent."""
        await self.client.send(m.Inquire(1, "ap-1/f"))
        await self.client.expect(m.Statistics)

    async def container(self, name: str) -> Peer:
        """The container, loaded and ready."""
        self.played.add(name)
        peer = await self.stranger()
        await peer.send(m.Hello(m.PROTOCOL, "container", self.engine.tokens[name], os.getpid()))
        await peer.expect(m.Load)
        await peer.send(m.Ready())
        return peer

    async def client_inside(self, name: str) -> Peer:
        """A client that has the token of the container, as user code in it has."""
        return await self._greeted(await self.stranger(), self.engine.tokens[name])

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the server's loop run until the condition is true."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0)

    async def started(self, function: str) -> str:
        """A container of the function, once the server has had it started."""

        def there() -> list[str]:
            return [name for name in self.engine.tokens if self.engine.functions[name] == function]

        await self.until(there)
        return there()[-1]


def store_at(home: Path | None) -> Store:
    if home is None:
        return MemoryStore()

    def failed(error: Error) -> None:
        raise error

    loop = asyncio.get_running_loop()
    return SqliteStore(home, loop.call_soon_threadsafe, failed, loop.call_soon)


@asynccontextmanager
async def stage(
    limits: Limits | None = None,
    home: Path | None = None,
    calendar: Callable[[], float] = time.time,
    serving: Serving | None = None,
    found: Sequence[ContainerFound] = (),
    arrive: Callable[[Stage], Awaitable[None]] | None = None,
    has_shortcut: bool = False,
) -> AsyncIterator[Stage]:
    """A server that has greeted its first client; with a `home`, one that goes on where the last one there ended.

    With `serving` it listens as that says, too. `found` are containers that were left to it, and what they do at once
    is in `arrive`.
    """
    ours, theirs = socket.socketpair()
    engine, clock = PlayedEngine(found=list(found)), ManualClock()
    front = Front(home, serving) if home and serving else None
    server = Server(engine, store_at(home), limits or Limits(), clock, home, calendar, front)
    running = asyncio.create_task(server.run(first_client=theirs, has_shortcut=has_shortcut))
    client = Peer(ours)
    await client.send(m.Hello(m.PROTOCOL, "client", "", os.getpid()))
    on_stage = Stage(server, engine, clock, client)
    on_stage.home, on_stage.front = home, front
    if serving and serving.certificate:
        on_stage.trusted = ssl.create_default_context(cafile=serving.certificate)
    try:
        if arrive is not None:
            await on_stage.until(lambda: engine.address)
            await arrive(on_stage)
        await client.expect(m.Welcome)
        yield on_stage
    finally:
        for peer in on_stage.peers:
            peer.close()
        server.ended.set()
        await running
