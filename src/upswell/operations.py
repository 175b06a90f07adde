"""What can be asked of Dicts and Queues: values that travel over the wire as they are, and that the core decides on.

What is stored does not stand in them but comes along; keys are pickles, compared byte by byte. `wait` is how many
seconds the answer may take: 0 not at all, `None` for ever. Nothing here acts.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ObjectKind = Literal["Dict", "Queue"]
Problem = Literal["", "missing", "exists", "full", "exhausted", "too large"]

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


class Operation(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True, gc=False):
    """Base of all operations."""


# -- objects as a whole ----------------------------------------------------------------------------


class Open(Operation, tag=1, frozen=True):
    """Find the object of that name, or with `create` make it, under `object` as its id; the answer names the id.

    Without a name it is ephemeral: always made, and gone with the connection. With `fresh` it must not exist yet.
    """

    kind: ObjectKind
    name: str
    object: str
    create: bool = False
    fresh: bool = False


class Delete(Operation, tag=2, frozen=True):
    """End the object, and every request that waits at it."""


class Names(Operation, tag=3, frozen=True):
    """The names of all objects of the kind, the newest first."""

    kind: ObjectKind


# -- Dicts -----------------------------------------------------------------------------------------


class DictPut(Operation, tag=10, frozen=True):
    """Set the keys to the values that come along, all of them or none; the answer counts those that were set."""

    keys: tuple[bytes, ...]
    skip_if_exists: bool = False


class DictGet(Operation, tag=11, frozen=True):
    """The values of the keys, in order and as far as they fit into one answer, but at least one."""

    keys: tuple[bytes, ...]


class DictPop(Operation, tag=12, frozen=True):
    """Remove the key; the answer has its value."""

    key: bytes


class DictContains(Operation, tag=13, frozen=True):
    """Whether the key is there: a count of 1 or 0."""

    key: bytes


class DictKeys(Operation, tag=14, frozen=True):
    """All keys, in the order in which they were first set."""


class DictLength(Operation, tag=15, frozen=True):
    """How many keys there are."""


class DictClear(Operation, tag=16, frozen=True):
    """Remove everything."""


# -- Queues ----------------------------------------------------------------------------------------


class QueuePut(Operation, tag=20, frozen=True):
    """Append the values that come along, all of them or none, once there is room.

    The partition is emptied `lifetime` seconds after its last put. With `returned`, the values are ones that were taken
    and not wanted: they go back to the front, whether there is room or not.
    """

    partition: str
    lifetime: Annotated[float, Meta(gt=0)]
    wait: Seconds | None = None
    returned: bool = False


class QueueGet(Operation, tag=21, frozen=True):
    """Remove and answer up to `count` values, once there is at least one; none when the time is up."""

    partition: str
    count: Count = 1
    wait: Seconds | None = None


class QueuePeek(Operation, tag=22, frozen=True):
    """The values behind number `after`, which stay where they are; the answer's count is the number of the last."""

    partition: str
    after: int | None = None
    wait: Seconds | None = 0.0


class QueueLength(Operation, tag=23, frozen=True):
    """How many values the partition holds; with `total`, all partitions."""

    partition: str
    total: bool = False


class QueueClear(Operation, tag=24, frozen=True):
    """Remove everything from the partition; with `total`, from all."""

    partition: str
    total: bool = False


OfObjects = Open | Delete | Names
OfDicts = DictPut | DictGet | DictPop | DictContains | DictKeys | DictLength | DictClear
OfQueues = QueuePut | QueueGet | QueuePeek | QueueLength | QueueClear
AnyOperation = OfObjects | OfDicts | OfQueues
