"""Puts a server together and runs it: a listening socket for containers, the first client, an orderly end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket

from ..clock import Clock
from ..engine import Engine
from ..errors import Error
from ..spec import Limits, ObjectLimits
from ..store import Store
from ..wire import messages as m
from .connections import Connection, Peer
from .dispatcher import Dispatcher
from .objects import ObjectService
from .peers import ClientPeer, ContainerPeer
from .runtime import Runtime

BACKLOG = 1024  # containers that may be dialling at the same moment


class Server:
    """A runtime, its dispatcher, and whom it talks to."""

    def __init__(self, engine: Engine, store: Store, limits: Limits, clock: Clock | None = None) -> None:
        self.ended = asyncio.Event()
        self._engine = engine
        self._store = store
        self._clock = clock or asyncio.get_running_loop()
        self._runtime = Runtime(engine, limits, self._clock)
        self._dispatcher = Dispatcher(self._runtime, engine, store)
        self._runtime.begin(self._dispatcher.perform)
        self._objects = ObjectService(ObjectLimits(), self._clock)
        self._address = ""

    async def run(self, first_client: socket.socket) -> None:
        """Serve until the first client is gone or a signal asks for the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)
        listener, self._address = listen_abstract()
        await self._engine.open(self._address, self._dispatcher.report)
        # Held in a name: a listening server that nobody refers to is closed by the garbage collector.
        listening = await loop.create_unix_server(
            lambda: Connection(self._greet_stranger, self._clock), sock=listener, backlog=BACKLOG
        )
        await loop.connect_accepted_socket(lambda: Connection(self._greet_first, self._clock), first_client)
        await self.ended.wait()
        listening.close()
        await self._engine.close()
        self._store.close()

    def _greet_first(self, connection: Connection, hello: m.Hello) -> Peer | None:
        connection.send(m.Welcome(m.PROTOCOL, os.getpid(), self._address))
        return ClientPeer(connection, self._dispatcher, self._runtime, self._objects, self.ended.set)

    def _greet_stranger(self, connection: Connection, hello: m.Hello) -> Peer | None:
        """Containers, and clients inside them: both have the token that was made for the container."""
        served = self._dispatcher.containers.get(hello.token.partition(".")[0])
        if served is None or not secrets.compare_digest(served.token.encode(), hello.token.encode()):
            return None
        if hello.role == "container":
            return None if served.connection else ContainerPeer(connection, served, self._dispatcher)
        connection.send(m.Welcome(m.PROTOCOL, os.getpid(), self._address))
        return ClientPeer(connection, self._dispatcher, self._runtime, self._objects, None)


def listen_abstract() -> tuple[socket.socket, str]:
    """A socket without a place in the file system, and its address."""
    if not hasattr(socket, "SO_PEERCRED"):
        raise Error("upswell's server needs Linux's abstract sockets and peer credentials")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"upswell-{secrets.token_hex(16)}"
    listener.bind("\0" + name)
    listener.listen(BACKLOG)
    return listener, f"unix:@{name}"


def serve_private(engine: Engine, store: Store, first_client: socket.socket) -> None:
    """Run a private server for the client at the other end of `first_client`."""

    async def run() -> None:
        await Server(engine, store, Limits()).run(first_client)

    try:
        import uvloop
    except ImportError:
        asyncio.run(run())
    else:
        uvloop.run(run())
