"""What `Dict` and `Queue` have in common: names and ids, ephemeral ones, and how the server is asked.

They live at the server. A private server ends with the program that started it, so a program that has used a named
object keeps its server until it ends.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

from .. import errors
from .. import operations as o
from ..spec import check_name, require
from ..wire import messages as m
from ..wire.codec import MAX_FRAME_BYTES, Frame
from ..wire.payload import PackError, dump
from . import context
from .client import Client, new_id, new_request
from .clients import get_client, join_client, keep_client, leave_client, uses_kept_apps, where_apps_are_kept
from .dual import Dual, DualBlock, dual, run_sync
from .environment import is_by_value
from .frames import their_frames
from .variables import say_once

LARGEST_REQUEST_BYTES = MAX_FRAME_BYTES - (1 << 20)  # leaves room for what stands beside the values
LEND_AFTER_SECONDS = 0.005  # a request that takes longer lends its place in the container, if it may

T = TypeVar("T", bound="SharedObject")
Unwanted = Callable[[Client, m.ObjectAnswer, memoryview], None]


class Named(Generic[T]):
    """`Dict.objects` and `Queue.objects`: the named ones, as a whole."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind

    @dual
    async def create(self, name: str, *, allow_existing: bool = False) -> None:
        """Make one of that name; `AlreadyExistsError` where there is one, unless that is allowed."""
        kind = self._kind._kind
        operation = o.Open(kind, check_name(kind, name), new_id(kind[:2].lower()), True, not allow_existing)
        await request(keep_client(), "", operation)

    @dual
    async def list(self, *, max_objects: int | None = None) -> builtins.list[T]:
        """Handles on all, the newest first, or on the first `max_objects` of them."""
        require(max_objects is None or max_objects >= 0, f"max_objects must not be negative, as {max_objects} is")
        answer, _ = await request(keep_client(), "", o.Names(self._kind._kind))
        return [self._kind.from_name(name) for name in answer.texts[:max_objects]]

    @dual
    async def delete(self, name: str, *, allow_missing: bool = False) -> None:
        """Delete the one of that name with all it holds; `NotFoundError` for none, unless that is allowed."""
        try:
            await self._kind.from_name(name)._ask(o.Delete())
        except errors.NotFoundError:
            if not allow_missing:
                raise


class _Objects:
    def __get__(self, instance: object, owner: type[T]) -> Named[T]:
        return Named(owner)


class _Delete:
    def __get__(self, instance: object, owner: type[T]) -> Dual[..., None]:
        return Named(owner).delete


class SharedObject:
    """A handle on something that lives at the server; it can be passed to functions, and found there by its name."""

    objects = _Objects()
    delete = _Delete()
    _kind: ClassVar[o.ObjectKind]

    def __init__(self, *, name: str = "", object_id: str = "", create: bool = False) -> None:
        kind = self._kind
        require(bool(name or object_id), f"{kind}(...) makes nothing: use {kind}.from_name(name) or {kind}.ephemeral()")
        self._name = name
        self._id = object_id  # "" for one that is found by its name
        self._create = create
        self._found: tuple[Client, int, str] | None = None  # the id that the name has in a life of a server

    @classmethod
    def from_name(cls, name: str, *, environment_name: str | None = None, create_if_missing: bool = False) -> Self:
        """The object of that name at this program's server. Lazy: `NotFoundError` comes when it is used and missing.

        A server is one environment, so `environment_name` means nothing here.
        """
        return cls(name=check_name(cls._kind, name), create=create_if_missing)

    @classmethod
    def from_id(cls, object_id: str) -> Self:
        """The object with that `object_id`, as another part of the program has it."""
        return cls(object_id=object_id)

    @classmethod
    def ephemeral(cls) -> Ephemeral[Self]:
        """One without a name, for as long as a `with` or `async with` block lasts."""
        return Ephemeral(cls)

    @property
    def name(self) -> str | None:
        """The name; `None` for one without."""
        return self._name or None

    @property
    def object_id(self) -> str:
        """The id at the server, for `from_id`."""
        with their_frames:
            return self._id or run_sync(self._find())[1]

    @dual
    async def hydrate(self) -> Self:
        """Find the object now rather than when it is used first; `NotFoundError` where it is missing."""
        await self._find()
        return self

    def __repr__(self) -> str:
        return f"{self._kind}.from_name({self._name!r})" if self._name else f"{self._kind}.from_id({self._id!r})"

    def __reduce__(self) -> Any:
        return _restored, (type(self), self._name, self._id, self._create)

    # -- asking the server -------------------------------------------------------------------------

    async def _find(self) -> tuple[Client, str]:
        if context.importing:
            raise errors.InvalidError(
                f"{self!r} was used while a container imported this module: use it inside a function, or under "
                '`if __name__ == "__main__":`'
            )
        if self._id:
            return get_client(), self._id
        client = keep_client()
        if self._found is None or self._found[:2] != (client, client.life):
            life = client.life
            operation = o.Open(self._kind, self._name, new_id(self._kind[:2].lower()), self._create)
            try:
                answer, _ = await request(client, "", operation)
            except errors.NotFoundError as error:
                raise errors.NotFoundError(f"{error}{self._elsewhere(client, '; it was looked for')}") from None
            if uses_kept_apps(client) and (words := self._elsewhere(client, " is")):
                say_once(f"{self!r}{words}")
            self._found = client, life, answer.texts[0]
        return client, self._found[2]

    def _elsewhere(self, client: Client, found: str) -> str:
        """What is said where deployed apps may mean another one of that name."""
        address = where_apps_are_kept(client)
        return (
            f"{found} at this program's own server: that of deployed apps is UPSWELL_SERVER={address}"
            if address
            else ""
        )

    async def _ask(
        self, operation: o.AnyOperation, values: Sequence[bytes] = (), *, unwanted: Unwanted | None = None
    ) -> tuple[m.ObjectAnswer, memoryview]:
        client, object_id = await self._find()
        try:
            return await request(client, object_id, operation, values, unwanted=unwanted)
        except errors.NotFoundError:
            self._found = None  # another one may have the name by the next time
            raise errors.NotFoundError(f"{self!r} was deleted, or belongs to another server") from None

    def _dump(self, value: Any, what: str) -> bytes:
        try:
            return dump(value, by_value=is_by_value())
        except PackError as error:
            raise errors.SerializationError(f"{what} can't be stored in {self!r}: {error}") from None


def _restored(kind: type[T], name: str, object_id: str, create: bool) -> T:
    return kind(name=name, object_id=object_id, create=create)


class Ephemeral(DualBlock[T]):
    """The block in which an object without a name lives."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._object: T | None = None

    async def _open(self) -> T:
        kind = self._kind._kind
        client = join_client()
        try:
            answer, _ = await request(client, "", o.Open(kind, "", new_id(kind[:2].lower()), True))
        except BaseException:
            leave_client()
            raise
        self._object = self._kind.from_id(answer.texts[0])
        return self._object

    async def _close(self, failed: bool) -> None:
        assert self._object is not None
        try:
            await self._object._ask(o.Delete())
        except errors.Error:
            pass  # deleted already, or its server is gone
        finally:
            leave_client()


async def request(
    client: Client,
    object_id: str,
    operation: o.AnyOperation,
    values: Sequence[bytes] = (),
    *,
    unwanted: Unwanted | None = None,
) -> tuple[m.ObjectAnswer, memoryview]:
    """Ask the server and wait for the answer; `unwanted` gets one that comes after the caller has stopped waiting."""
    size = sum(map(len, values))
    if size > LARGEST_REQUEST_BYTES:
        raise errors.RequestSizeError(
            f"{size:,} bytes at once, and {LARGEST_REQUEST_BYTES:,} is the limit: store them in parts"
        )
    number = new_request()
    inbox = client.open_inbox(str(number))
    try:
        inbox.send(m.UseObject(number, object_id, operation, tuple(map(len, values))), b"".join(values))
        # What is answered at once is no reason to let another input run here meanwhile.
        patience = LEND_AFTER_SECONDS if may_wait(operation) else None
        await inbox.sleep(patience, lends=False)
        answer, payload = (await inbox.receive())[0]
    except BaseException as error:
        if isinstance(error, errors.ConnectionError):
            inbox.close()
            raise

        def arrived(frame: Frame | errors.Error) -> None:
            inbox.close()
            if unwanted and not isinstance(frame, errors.Error) and isinstance(frame[0], m.ObjectAnswer):
                unwanted(client, frame[0], frame[1])

        inbox.divert(arrived)
        try:
            inbox.send(m.Withdraw(number))
        except errors.ConnectionError:
            pass
        raise
    inbox.close()
    assert isinstance(answer, m.ObjectAnswer)
    if answer.problem:
        raise _error(answer)
    return answer, payload


def may_wait(operation: o.AnyOperation) -> bool:
    """Whether the answer may take as long as other programs do."""
    return isinstance(operation, o.QueuePut | o.QueueGet | o.QueuePeek) and operation.wait != 0


def pieces(answer: m.ObjectAnswer, payload: memoryview) -> list[memoryview | None]:
    """The values of an answer, `None` where there is none."""
    found: list[memoryview | None] = []
    position = 0
    for size in answer.sizes:
        found.append(None if size < 0 else payload[position : position + size])
        position += max(0, size)
    return found


def load(piece: memoryview, where: str) -> Any:
    """The value of a pickle; `DeserializationError` says where it was found."""
    import pickle

    try:
        return pickle.loads(piece)
    except Exception as error:
        raise errors.DeserializationError(f"{where} can't be loaded here: {type(error).__name__}: {error}") from error


def _error(answer: m.ObjectAnswer) -> Exception:
    match answer.problem:
        case "missing":
            return errors.NotFoundError(answer.reason)
        case "exists":
            return errors.AlreadyExistsError(answer.reason)
        case "too large":
            return errors.RequestSizeError(answer.reason)
        case "full":
            import queue

            return queue.Full(answer.reason)
        case _:
            return errors.ResourceExhaustedError(answer.reason)
