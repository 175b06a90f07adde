"""TLS for the blocking side: a stream that one thread reads while others write, which an `SSLSocket` does not allow.

Imported only by who dials `tls://`.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import cast

from ..errors import ConnectionError

RECORD_BYTES = 16 << 10  # what one record of TLS carries at most
NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")  # how OpenSSL says that the other end speaks something else


def secure(stream: socket.socket, host: str, ca: str) -> TlsStream:
    """Shake hands with the server `host`, whose certificate must be signed by the system's authorities, or by `ca`."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConnectionError(f"the certificates in {ca} (UPSWELL_CA) can't be read: {error}") from None
    return _agreed(TlsStream(stream, context, host), host)


def is_spoken(stream: socket.socket) -> bool:
    """Whether who is at the other end speaks TLS, whoever that is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        TlsStream(stream, context, None).shake_hands()
    except OSError:
        return False
    return True


def _agreed(secured: TlsStream, host: str) -> TlsStream:
    try:
        secured.shake_hands()
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message.rstrip(".")
        raise ConnectionError(
            f"the certificate of {host} is not trusted here: {why}; a server's own certificate is trusted by "
            "UPSWELL_CA=FILE, or `ca` in config.toml"
        ) from None
    except ssl.SSLError as error:
        if error.reason not in NO_TLS:
            raise
        raise ConnectionError("who listens there speaks no TLS: of a server without, the address is tcp://…") from None
    return secured


class TlsStream:
    """Like a connected socket. The session is kept apart from the socket, and touched for moments only."""

    def __init__(self, stream: socket.socket, context: ssl.SSLContext, host: str | None) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._touching = threading.RLock()  # what is collected while a thread has it may send something
        self._writing = threading.Lock()  # records must leave in the order in which they were made

    def shake_hands(self) -> None:
        """Agree with the server; `OSError` (an `ssl.SSLError` among them) where that fails."""
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self._drain()
                self._fetch()
            except ssl.SSLError:
                self._drain()  # so that the server's log has the reason too
                raise
            else:
                self._drain()
                return

    def recv_into(self, buffer: memoryview) -> int:
        """Wait for some bytes; 0 at the end."""
        while True:
            with self._touching:
                try:
                    # With a buffer it returns how many bytes it has put there, whatever its annotation says.
                    return cast(int, self._session.read(min(len(buffer), RECORD_BYTES), buffer))
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    return 0
                except ssl.SSLEOFError:
                    raise ConnectionResetError("the server has gone without a word") from None
            self._fetch()
            if self._outgoing.pending and self._writing.acquire(blocking=False):
                try:
                    self._drain()  # what TLS itself has to answer; whoever writes now sends it along
                finally:
                    self._writing.release()

    def recv(self, size: int) -> bytes:
        """Wait for some bytes, at most `size`; none at the end."""
        buffer = bytearray(min(size, RECORD_BYTES))
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        view = memoryview(data)
        with self._writing:
            while len(view):
                with self._touching:
                    view = view[self._session.write(view[:RECORD_BYTES]) :]
                self._drain()

    def _drain(self) -> None:
        with self._touching:
            records = self._outgoing.read()
        if records:
            self._stream.sendall(records)

    def _fetch(self) -> None:
        records = self._stream.recv(4 * RECORD_BYTES)
        with self._touching:
            if records:
                self._incoming.write(records)
            else:
                self._incoming.write_eof()

    # -- what is the socket's ----------------------------------------------------------------------

    def settimeout(self, seconds: float | None) -> None:
        """How long a single operation may take."""
        self._stream.settimeout(seconds)

    def fileno(self) -> int:
        """The descriptor."""
        return self._stream.fileno()

    def shutdown(self, how: int) -> None:
        """End the connection; a `recv` that waits returns."""
        self._stream.shutdown(how)

    def detach(self) -> int:
        """Let go of the descriptor without closing it."""
        return self._stream.detach()

    def close(self) -> None:
        """Close the descriptor."""
        self._stream.close()
