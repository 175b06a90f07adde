"""The door to other machines: a TCP socket, with TLS unless it is for this machine alone, and tokens that open it.

Not imported by a server that listens on its own sockets only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from pathlib import Path

from ..clock import Clock
from ..errors import Error, InvalidError, StoreError
from ..home import Serving
from ..wire import messages as m
from ..wire.network import is_loopback, keep_alive, split_address
from .connections import HELLO_SECONDS, Connection, DenialError, Sessions
from .identity import Identity
from .remote import Greet, RemoteConnection
from .tokens import TokenFile

BACKLOG = 128
LOOK_SECONDS = 1.0  # after which a token that was revoked or has expired ends the connections that it has opened

log = logging.getLogger("upswell.server")


class Front:
    """Listens as a home's configuration says; `InvalidError` where that would leave the server open."""

    def __init__(self, home: Path, serving: Serving) -> None:
        found = split_address(serving.listen)
        if found is None:
            raise InvalidError(f"listen={serving.listen!r} is no HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400")
        host, port = found
        self.tokens = TokenFile(home)
        self._tls = _context(serving)
        self._connections: dict[Connection, str] = {}  # those that a token has opened, by its id
        if not is_loopback(host):
            _require_safety(serving.listen, self._tls is not None, bool(self.tokens.list()))
        self._socket = _bind(serving.listen, host, port)
        kind, port = "tcp" if self._tls is None else "tls", self._socket.getsockname()[1]
        self.address = f"{kind}://[{host}]:{port}" if ":" in host else f"{kind}://{host}:{port}"

    async def open(self, greet: Greet, clock: Clock, sessions: Sessions | None) -> asyncio.Server:
        """Take connections from now on."""
        self._look(clock)
        return await asyncio.get_running_loop().create_server(
            lambda: RemoteConnection(greet, clock, sessions),
            sock=self._socket,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else HELLO_SECONDS,
        )

    def identify(self, connection: Connection, hello: m.Hello) -> Identity | None:
        """Who it is that says this; `None` where the token is not good."""
        now = time.time()
        try:
            token = self.tokens.check(hello.token, now) if hello.role == "client" else None
        except Error as error:
            log.error("%s", error)
            return None
        if token is None:
            return None
        try:
            self.tokens.used(token.id, now)
        except Error as error:
            log.error("a token opens the server, and its use is not noted: %s", error)
        self._connections[connection] = token.id
        return Identity(token.scope, token.id)

    def _look(self, clock: Clock) -> None:
        """End what tokens have opened that are not good any more, now and again and again."""
        now = time.time()
        for connection, token in list(self._connections.items()):
            if not connection.is_open:
                del self._connections[connection]
            elif not self._is_good(token, now):
                connection.refuse(DenialError("the token is not valid here any more"))
        clock.call_later(LOOK_SECONDS, self._look, clock)

    def _is_good(self, token: str, now: float) -> bool:
        try:
            return self.tokens.is_good(token, now)
        except Error as error:
            log.error("%s", error)
            return isinstance(error, StoreError)  # as it was the last time: it is looked at again in a moment


def _context(serving: Serving) -> ssl.SSLContext | None:
    if not serving.certificate and not serving.key:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(serving.certificate, serving.key or None, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        which = f"{serving.certificate} and its key {serving.key or 'in the same file'}"
        raise InvalidError(f"the certificate {which} can't be used: {error}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key has a password, and nobody is there to be asked for it")


def _require_safety(listen: str, secured: bool, has_tokens: bool) -> None:
    if not secured:
        raise InvalidError(
            f"listening at {listen} without TLS would show everything to the network: give --tls-cert and --tls-key "
            "(`certificate` and `key` in config.toml), or listen at 127.0.0.1"
        )
    if not has_tokens:
        raise InvalidError(f"nobody could connect to {listen}: make a token first, by `upswell server token create`")


def _bind(listen: str, host: str, port: int) -> socket.socket:
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidError(f"{listen} can't be listened at: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keep_alive(listener)  # accepted sockets have it from here
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidError(f"{listen} can't be listened at: {error.strerror or error}") from None
    return listener
