"""What the Ray engine and its leases say to one another, and the engine and the process that speaks to Ray.

Frames like all others, over connections on which nothing else is said, so tags are these messages' own.
"""

from __future__ import annotations

import msgspec

from ...spec import FunctionRecord
from ...wire.messages import Message, Received
from .sizing import Shape

LINK = 2  # the version of what is said here; both ends have the same


class Parcel(msgspec.Struct, frozen=True):
    """What a lease is told by way of Ray: where its engine is, how it proves itself, where its containers dial.

    `shape` and `slots` are for the engine of a later server, which it waits for during `rejoin_seconds` where its own
    is gone. `authority` is the text of the certificates that the engine's is checked against, with TLS; `code` the
    folder for trees of code on the node, "" for the usual one.
    """

    lease: str
    token: str
    engine_dial: str
    containers_dial: str
    cpus: float
    shape: Shape
    slots: int
    rejoin_seconds: float = 0.0
    authority: str = ""
    code: str = ""


# -- the engine and a lease --------------------------------------------------------------------------


class Opened(Message, tag=1, frozen=True):
    """lease → engine, first over every connection: it is there, and has `received` so many frames of `engine`."""

    link: int
    lease: str
    token: str
    node: str
    containers_dial: str
    shape: Shape
    slots: int
    engine: str = ""  # with which it was connected last
    received: int = 0


class Taken(Message, tag=11, frozen=True):
    """engine → lease, the answer, with the name that this engine has given itself. To the engine that it was connected
    with, which has `received` so many frames, it sends those that are lacking; to another it tells what it holds. A
    lease that is not to be is told to `End`.
    """

    engine: str
    received: int


class Held(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A container in a lease; see `ContainerFound`."""

    container: str
    token: str
    function: str
    version: int


class Holds(Message, tag=12, frozen=True):
    """lease → engine, first in a session: what is in it. That is something where another engine has started it."""

    containers: list[Held]


class Prepare(Message, tag=2, frozen=True):
    """engine → lease: containers of the function may soon be wanted."""

    function: FunctionRecord


class StartContainer(Message, tag=3, frozen=True):
    """engine → lease."""

    container: str
    token: str
    function: FunctionRecord
    version: int


class KillContainer(Message, tag=4, frozen=True):
    """engine → lease."""

    container: str


class End(Message, tag=5, frozen=True):
    """engine → lease: end all containers, and then yourself. lease → engine: that is what it does now."""


class Exited(Message, tag=6, frozen=True):
    """lease → engine: see `ContainerExit`."""

    container: str
    status: int
    reason: str
    out_of_memory: bool


class Wrote(Message, tag=7, frozen=True):
    """lease → engine: see `ContainerOutput`."""

    container: str
    stream: int
    text: str


class Usage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a container has used; -1 where that is not known."""

    container: str
    cpu_seconds: float
    memory_bytes: int


class Measured(Message, tag=8, frozen=True):
    """lease → engine, again and again: it lives, and so much its containers have used."""

    usages: list[Usage]


class Fetch(Message, tag=9, frozen=True):
    """lease → engine: it lacks these files of a tree of code."""

    tree: str
    digests: list[str]


class File(Message, tag=10, frozen=True):
    """engine → lease: a file of a tree, as payload; `is_there` is false where the engine lacks it too."""

    tree: str
    digest: str
    is_there: bool


LeaseMessage = (
    Opened
    | Taken
    | Holds
    | Received
    | Prepare
    | StartContainer
    | KillContainer
    | End
    | Exited
    | Wrote
    | Measured
    | Fetch
    | File
)


# -- the engine and the process that speaks to Ray -----------------------------------------------------


class Join(Message, tag=20, frozen=True):
    """engine → driver, first: the cluster. Of the leases with this prefix those in `held` are known."""

    address: str
    namespace: str
    prefix: str
    held: list[str]


class Acquire(Message, tag=21, frozen=True):
    """engine → driver: ask Ray for a lease that holds so much of a node."""

    lease: str
    cpus: float
    memory_bytes: int
    parcel: bytes
    gpus: int = 0
    gpu_kind: str = ""  # as Ray calls it; "" for any


class GiveBack(Message, tag=22, frozen=True):
    """engine → driver: let Ray have it again, whether it has begun or not."""

    lease: str


class Probe(Message, tag=27, frozen=True):
    """engine → driver: a lease on that node does not answer. Is the node still there?"""

    node: str


class Missing(Message, tag=28, frozen=True):
    """driver → engine: its machine says that the node is gone; Ray may take long to believe it."""

    node: str


class Node(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a node of the cluster has, and what of it is free, as Ray counts it."""

    id: str
    address: str
    cpus: float
    memory_bytes: int
    cpus_free: float
    memory_free: int
    gpus: int = 0
    gpus_free: int = 0
    gpu_kinds: tuple[str, ...] = ()  # as Ray calls them


class Nodes(Message, tag=23, frozen=True):
    """driver → engine: the nodes that are there; first when the cluster is joined, then when something changes."""

    nodes: list[Node]
    here: str  # the address of the node that this is


class Gone(Message, tag=24, frozen=True):
    """driver → engine: Ray has the lease no more. `reason` is empty where it was given back.

    `failed`: the lease itself did not work, as another one would not.
    """

    lease: str
    reason: str
    failed: bool = False


class Found(Message, tag=26, frozen=True):
    """driver → engine, before the nodes: a lease that is not in `held`. One that has not begun waits for a node."""

    lease: str
    has_begun: bool


class NotJoined(Message, tag=25, frozen=True):
    """driver → engine: the cluster could not be joined."""

    reason: str


DriverMessage = Join | Acquire | GiveBack | Probe | Missing | Nodes | Gone | Found | NotJoined

decode_lease = msgspec.msgpack.Decoder(LeaseMessage).decode
decode_driver = msgspec.msgpack.Decoder(DriverMessage).decode
encode_parcel = msgspec.msgpack.Encoder().encode
decode_parcel = msgspec.msgpack.Decoder(Parcel).decode
