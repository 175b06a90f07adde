"""The short way of outputs: from the containers of a private server straight to its client, who is woken by who ran the
input, and not by a server that was woken by it.

It is a socket of packets, whose writing end the server has, and every process below. A packet is a whole frame, so that
any number may write at the same time. Nobody waits to write: what finds no room, or is more than a packet, goes by the
server, as does whatever is no plain output. The server is told in any case.
"""

from __future__ import annotations

import os
import socket

DESCRIPTOR = 3  # the end to write to, in the server and all processes below
PACKET_BYTES = 32 << 10  # of outputs, at most


def make() -> tuple[socket.socket, socket.socket]:
    """The ends to read from and to write to."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    writing.setblocking(False)  # for all who will have it
    return reading, writing


def deliver(frame: bytes, writing: int) -> bool:
    """Send the frame by the end to write to; whether there was room."""
    try:
        return os.write(writing, frame) > 0
    except OSError:
        return False


def first_other(writing: int) -> int:
    """The first descriptor that is neither one of the standard ones nor the end to write to (-1: there is none)."""
    return max(DESCRIPTOR, writing + 1)
