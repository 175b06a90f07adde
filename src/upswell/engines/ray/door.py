"""Where leases dial, and how they show whose they are.

Where there is a home, both are the same in every life of its server, so that the leases of one that was killed find the
next one, and are known to it. What lets them in is derived from a secret in the home, which is nowhere else.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import msgspec

from ...errors import InvalidError
from ...wire.codec import ProtocolError
from . import messages as r
from .link import Link

FILE, SOCKET = "leases.json", "leases.sock"  # in the home
MAX_HELLO_BYTES = 64 << 10  # of a frame, before a lease has said which it is
HELLO_SECONDS = 5.0  # who dials and has not said by then which lease it is, is sent away

log = logging.getLogger("upswell.engine")

Welcome = Callable[[r.Opened, Link], Awaitable[bool]]


class Kept(msgspec.Struct, frozen=True):
    """What is the same in every life."""

    secret: str
    port: int = 0


class Door:
    """Listens for leases: on this machine at a socket, or with a certificate at a port, for other machines too."""

    def __init__(self, home: Path | None, host: str, bind: str, certificate: str, key: str) -> None:
        self._home = home
        self._host = f"[{host}]" if ":" in host else host
        self._bind = bind
        self._certificate = certificate
        self._key = key
        self._kept = _read(home) if home is not None else Kept(secrets.token_hex(32))
        self._server: asyncio.Server | None = None
        self._inside: set[Link] = set()  # of those who have dialled
        self.address = ""
        self.authority = Path(certificate).read_text() if certificate else ""  # what leases check the certificate by

    def token(self, lease: str) -> str:
        """What lets the lease of that name in."""
        return hmac.digest(self._kept.secret.encode(), lease.encode(), "sha256").hex()

    async def open(self, welcome: Welcome) -> None:
        """Hand over each that shows its token; it is told to end where that returns false. The link is closed then.

        The caller holds the home's lock.
        """
        self._welcome = welcome
        if not self._certificate:
            await self._listen_here()
        else:
            await self._listen_abroad()
        if self._home is not None:
            _write(self._home, self._kept)

    async def _listen_here(self) -> None:
        """At a path, where a later server finds it, and nobody of another user can be in its place."""
        place = str(self._home / SOCKET) if self._home is not None else f"\0upswell-{secrets.token_hex(16)}"
        try:
            self._server = await asyncio.start_unix_server(self._greet, place)
        except OSError as error:
            raise InvalidError(f"{place} can't be listened at: {error}: set UPSWELL_HOME to a shorter path") from None
        self.address = f"unix:{place}" if self._home is not None else f"unix:@{place[1:]}"

    async def _listen_abroad(self) -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self._certificate, self._key or None)
        try:
            self._server = await asyncio.start_server(self._greet, self._bind, self._kept.port, ssl=tls)
        except OSError as error:
            log.warning("port %d, where leases dial, is taken: those there are will end: %s", self._kept.port, error)
            self._server = await asyncio.start_server(self._greet, self._bind, 0, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self._kept = msgspec.structs.replace(self._kept, port=port)
        self.address = f"tls://{self._host}:{port}"

    async def close(self) -> None:
        """Let nobody in any more, and leave nothing."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for link in list(self._inside):
            link.abort()
        if self._home is not None:
            (self._home / SOCKET).unlink(missing_ok=True)

    def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Coroutine[None, None, None]:
        """Somebody dials. The link is known from now on, as what is done with it may never begin."""
        link = Link(reader, writer, r.decode_lease)
        self._inside.add(link)
        return self._let_in(link)

    async def _let_in(self, link: Link) -> None:
        """It is a lease, if it can name itself."""
        link.most_bytes = MAX_HELLO_BYTES
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello, _ = await anext(link.frames())
            if not isinstance(hello, r.Opened) or not self._shows_token(hello):
                return
            link.most_bytes = None
            if not await self._welcome(hello, link):
                link.send(r.End())
                async with asyncio.timeout(HELLO_SECONDS):
                    await link.close()
        except (TimeoutError, StopAsyncIteration):
            pass
        except ProtocolError as error:
            log.warning("a lease was closed: %s", error)
        finally:
            link.abort()
            self._inside.discard(link)

    def _shows_token(self, hello: r.Opened) -> bool:
        return hmac.compare_digest(hello.token.encode(), self.token(hello.lease).encode())


def _read(home: Path) -> Kept:
    """What an earlier life has left, or else something new, which is kept once this life begins."""
    try:
        return msgspec.json.decode((home / FILE).read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept(secrets.token_hex(32))
    except msgspec.MsgspecError as error:
        raise InvalidError(f"{home / FILE} is not valid: {error}: move it away; leases that run will end") from None


def _write(home: Path, kept: Kept) -> None:
    part = home / f"{FILE}.part"
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(kept))
    part.rename(home / FILE)
