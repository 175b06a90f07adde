"""What an engine and its zygotes say to one another: one message a packet, over a socket pair that both inherit."""

from __future__ import annotations

import os

import msgspec

from ..spec import Environment

MAX_PACKET_BYTES = 128 << 10


class Seed(msgspec.Struct, frozen=True):
    """What makes a zygote: its environment, where its containers dial, and the folder of the trees of code.

    With `fresh` it imports nothing, and each container is a new interpreter that does.
    """

    environment: Environment
    address: str
    fresh: bool = False
    code_root: str = ""


class Sprout(msgspec.Struct, frozen=True):
    """What a container needs that is a new interpreter."""

    environment: Environment
    address: str
    token: str
    in_group: bool
    code_root: str = ""


class Packet(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all packets."""


class Launch(Packet, tag=1, frozen=True):
    """engine → zygote: fork a container; `memory_bytes` is its limit, 0 where it has none."""

    container: str
    token: str
    memory_bytes: int = 0


class End(Packet, tag=2, frozen=True):
    """engine → zygote: kill the container and its children."""

    container: str


class Launched(Packet, tag=3, frozen=True):
    """zygote → engine: the container's process."""

    container: str
    process: int


class Ended(Packet, tag=4, frozen=True):
    """zygote → engine: the process is gone, and all it wrote was sent. Status as `os.waitstatus_to_exitcode`.

    `reason` says more than the status, where there is more to say.
    """

    container: str
    status: int
    reason: str = ""
    out_of_memory: bool = False


class Wrote(Packet, tag=5, frozen=True):
    """zygote → engine: whole lines of a container's output."""

    container: str
    stream: int
    text: str


class Awake(Packet, tag=6, frozen=True):
    """zygote → engine: the imports are done, from now on it obeys at once."""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Launch | End | Launched | Ended | Wrote | Awake).decode


def parcel(value: Seed | Sprout) -> int:
    """A descriptor from which another process reads the value: unlike a packet it may have any size."""
    descriptor = os.memfd_create("parcel", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(encode(value))
    return descriptor


def read_seed(descriptor: int) -> Seed:
    """What `parcel` put there; the descriptor is closed."""
    return msgspec.msgpack.decode(_read(descriptor), type=Seed)


def read_sprout(descriptor: int) -> Sprout:
    """What `parcel` put there; the descriptor is closed."""
    return msgspec.msgpack.decode(_read(descriptor), type=Sprout)


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb") as file:
        return file.read()
