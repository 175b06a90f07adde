"""What an engine and its zygotes say to one another: one message a packet, over a socket pair that both inherit."""

from __future__ import annotations

import msgspec

MAX_PACKET_BYTES = 128 << 10
LINES_BYTES = 32 << 10  # of output in one packet


class Packet(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all packets."""


class Launch(Packet, tag=1, frozen=True):
    """engine → zygote: fork a container."""

    container: str
    token: str


class End(Packet, tag=2, frozen=True):
    """engine → zygote: kill the container and its children."""

    container: str


class Launched(Packet, tag=3, frozen=True):
    """zygote → engine: the container's process."""

    container: str
    process: int


class Ended(Packet, tag=4, frozen=True):
    """zygote → engine: the process is gone, and all it wrote was sent. Status as `os.waitstatus_to_exitcode`."""

    container: str
    status: int


class Wrote(Packet, tag=5, frozen=True):
    """zygote → engine: whole lines of a container's output."""

    container: str
    stream: int
    text: str


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Launch | End | Launched | Ended | Wrote).decode
