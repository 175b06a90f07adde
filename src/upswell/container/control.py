"""What an engine and its zygotes say to one another, one message a packet: with the root over one socket, in words that
stay the same from version to version, and with each zygote over a socket pair of its own.
"""

from __future__ import annotations

import os

import msgspec

from ..spec import Environment, FunctionRecord

MAX_PACKET_BYTES = 128 << 10
MAX_RECORD_BYTES = 64 << 10  # of a function that zygotes are told of
PRESENT_AT_ONCE = 200  # containers in one packet

# engine → root, with descriptors beside them
SEED = (
    b"seed"  # fork a zygote: its end of its socket, the parcel of its `Seed`, and the engine's end where that is kept
)
KEEP = b"keep"  # ... and the seconds that a successor is waited for, at the listening socket that comes with it
END = b"end"  # end everything; so does, without KEEP, the end of the connection
# root → the engine of a successor
KEPT = b"kept"  # ... and the number of the protocol, and the root's process
ZYGOTE = b"zygote"  # the engine's end of a zygote's socket, and the parcel of its seed
ALL = b"all"  # no more zygotes come


class Seed(msgspec.Struct, frozen=True):
    """What makes a zygote: its environment, and the folder of the trees of code.

    With `fresh` it imports nothing, and each container is a new interpreter that does.
    """

    environment: Environment
    fresh: bool = False
    code_root: str = ""
    rejoin_seconds: float = 0.0  # containers look so long for another server when theirs is gone
    shortcut: int = -1  # the descriptor of every process from the server down to its containers: `wire/shortcut.py`

    @property
    def label(self) -> str:
        """Whose code its containers run, for people."""
        return self.environment.module or "code by value"


class Packet(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all packets."""


class Launch(Packet, tag=1, frozen=True):
    """engine → zygote: start a container, which dials `address`; `memory_bytes` is its limit, 0 where it has none.

    `devices` are the GPUs that are its own, and all that it sees; with `None` it sees what the zygote does. What it is
    a container of, the function and its version, is for the engine of a later server.
    """

    container: str
    token: str
    address: str = ""
    memory_bytes: int = 0
    function: str = ""
    version: int = 0
    devices: tuple[str, ...] | None = None


class Expect(Packet, tag=10, frozen=True):
    """engine → zygote: what is launched from here on is of this function; `None`: the server will tell each of what."""

    function: FunctionRecord | None


class End(Packet, tag=2, frozen=True):
    """engine → zygote: kill the container and its children."""

    container: str


class Launched(Packet, tag=3, frozen=True):
    """zygote → engine: the processes of containers, which were born together."""

    processes: dict[str, int]


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


class Inventory(Packet, tag=7, frozen=True):
    """engine → zygote: which containers are there? Answered by `Inhabitants`."""


class Leave(Packet, tag=9, frozen=True):
    """engine → zygote: exit, as nobody needs you now. It has no containers."""


class Present(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A container that is there."""

    launch: Launch
    process: int


class Inhabitants(Packet, tag=8, frozen=True):
    """zygote → engine: containers that are there; with `is_all` no more follow."""

    present: list[Present]
    is_all: bool = False


class Name(msgspec.Struct, frozen=True):
    """zygote → container: which one it is; `in_group`, that the kernel counts its memory and that of what it starts.

    The body that it was born with is its own only if it `fits`: else it is a container of another function.
    """

    launch: Launch
    in_group: bool = False
    fits: bool = True


class Sprout(msgspec.Struct, frozen=True):
    """What a container needs that is a new interpreter."""

    seed: Seed
    name: Name


UNNAMED = Launch("", "")  # what a spare is, until it is named

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(
    Launch | Expect | End | Launched | Ended | Wrote | Awake | Inventory | Inhabitants | Leave
).decode
decode_name = msgspec.msgpack.Decoder(Name).decode


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
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()
