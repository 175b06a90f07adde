"""Channels to servers elsewhere: over TCP with TLS, or on this machine over plain TCP. Imported by who dials one."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from ..errors import ConnectionError
from .channel import Channel
from .codec import Bytes, Frame, encode_parts
from .messages import Message, Piece, Release
from .passage import Arrivals, buffers_of, detached, pieces
from .reentry import unheld

if TYPE_CHECKING:
    from .tls import TlsStream


def dial_network(address: str, timeout: float, ca: str) -> Channel | None:
    """Connect to `tls://host:port` or, on this machine, `tcp://host:port`; `None` where the address is neither."""
    kind, _, name = address.partition("://")
    found = split_address(name)
    if found is None or not found[1] or not (kind == "tls" or is_loopback(found[0])):
        return None
    return RemoteChannel(_connect(address, *found, timeout, secured=kind == "tls", ca=ca))


def why_silent(address: str, timeout: float) -> str:
    """What may be wrong with the address, as the connection was closed without a word; "" where it is right."""
    kind, _, name = address.partition("://")
    found = split_address(name) if kind == "tcp" else None
    if found is None:
        return ""
    from .tls import is_spoken

    try:
        with socket.create_connection(found, timeout) as stream:
            return f"who listens at {address} speaks TLS: the address is tls://{name}" if is_spoken(stream) else ""
    except OSError:
        return ""


def split_address(text: str) -> tuple[str, int] | None:
    """Host and port of `host:port` or `[host]:port`; `None` where it is neither."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+)):([0-9]{1,5})", text, re.ASCII)
    if found is None or int(found[3]) >= 1 << 16:
        return None
    return found[1] or found[2], int(found[3])


def is_loopback(host: str) -> bool:
    """Whether nobody on another machine can be meant."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())


def keep_alive(stream: socket.socket) -> None:
    """Have the kernel find out when the other machine is gone without a word."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class RemoteChannel(Channel):
    """A channel over a network: what stands in shared memory goes in pieces, before the message that names it."""

    def __init__(self, stream: socket.socket | TlsStream) -> None:
        super().__init__(stream)
        self._arrivals = Arrivals(lambda descriptor: super(RemoteChannel, self).send(Release(descriptor)))

    def send(self, message: Message, payload: Bytes = b"") -> None:
        if isinstance(message, Release):
            self._arrivals.taken(message.descriptor)
        elif (buffers := buffers_of(message)) is None:
            super().send(message, payload)
        else:
            with unheld(self._sending):
                for piece in pieces(buffers):
                    self._write(encode_parts(Piece(), piece))
                self._write(encode_parts(detached(message), payload))

    def receive(self) -> list[Frame]:
        while frames := super().receive():
            seen = [(self._arrivals.take(message, payload), payload) for message, payload in frames]
            if there := [(message, payload) for message, payload in seen if message is not None]:
                return there
        return []

    def succeed(self, broken: Channel) -> None:
        if isinstance(broken, RemoteChannel):
            self._arrivals.succeed(broken._arrivals)
        super().succeed(broken)

    def close(self) -> None:
        super().close()
        self._arrivals.close()


def _connect(
    address: str, host: str, port: int, timeout: float, *, secured: bool, ca: str
) -> socket.socket | TlsStream:
    stream: socket.socket | TlsStream | None = None
    try:
        stream = plain = socket.create_connection((host, port), timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(plain)
        if secured:
            from .tls import secure

            stream = secure(plain, host, ca)
    except (OSError, ConnectionError) as error:
        if stream is not None:
            stream.close()
        if isinstance(error, ConnectionError):
            raise ConnectionError(f"no server is trusted at {address}: {error}") from None
        raise ConnectionError(f"no server answers at {address}: {error.strerror or error}") from None
    stream.settimeout(None)
    return stream
