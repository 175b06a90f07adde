"""A connection to a server, with one thread that reads.

Calls register an `Inbox` under their id; the reader puts frames into inboxes and wakes whoever waits. A private server
ends with its connection. To one with an address the connection is made again when it is lost, and what holds for as
long as this program is declared again.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from .. import home
from ..errors import (
    Error,
    FunctionTimeoutError,
    InvalidError,
    NotFoundError,
    OutputExpiredError,
    PermissionDeniedError,
    RemoteError,
    ResourceExhaustedError,
)
from ..spec import app_of, label_of
from ..wire import messages as m
from ..wire.buffers import Block
from ..wire.channel import Channel, dial
from ..wire.codec import Bytes
from ..wire.payload import Packed
from . import output
from .dual import Wait
from .inbox import Inbox
from .link import Link
from .private_server import PrivateServer

if TYPE_CHECKING:
    from .mapping import Mapping

SERVER_EXIT_SECONDS = 3.0  # a private server that takes longer to end is killed

REPEATABLE = (m.Resolve, m.OfferFiles, m.Inquire, m.Cancel)  # requests that may as well come twice

Declared = m.OpenApp | m.AttendApp | m.Declare | m.Watch  # what is to hold in every life of a server

ABOUT: dict[type[m.Message], str] = {  # what is for an inbox, and the field that says for which
    **dict.fromkeys((m.Outputs, m.Failed, m.Accepted, m.Refused, m.Invited, m.CallDescribed, m.Chunks), "call"),
    m.AppClosed: "app",
    **dict.fromkeys((m.Statistics, m.ObjectAnswer, m.Done, m.Listed, m.Logged, m.CallGraph), "request"),
    **dict.fromkeys((m.MissingFiles, m.Deployed, m.Resolved), "request"),
}

_requests = itertools.count(1)

Answer = TypeVar("Answer", bound=m.Message)


def new_id(kind: str) -> str:
    """A fresh id such as "fc-5f3a…". In their order it comes after those made before, so that a store finds a place for
    it beside them, and writes one page for many.
    """
    return f"{kind}-{time.time_ns() >> 20:011x}{os.urandom(8).hex()}"


def new_request() -> int:
    """A number for a request and its answer, whose inbox is named after it."""
    return next(_requests)


class Client:
    """One connection to a server: the `private` one of this program, or one that is found at an address."""

    def __init__(
        self,
        channel: Channel | None,
        *,
        private: PrivateServer | None = None,
        server: home.Server | None = None,
    ) -> None:
        from .spawning import Spawning  # which is above

        self._link = Link(channel, server)
        self._private = private
        self._inboxes: dict[str, Inbox] = {}
        self._lent: dict[int, Block] = {}  # shared memory the server has not taken over
        self._watchers: dict[str, Callable[[m.Progress], None]] = {}
        self.maps: dict[str, tuple[str, Mapping]] = {}  # call → function and map, while somebody watches
        self.spawning = Spawning(self)
        self._declared: dict[tuple[type[m.Message], str, str], Declared] = {}
        self.attended: set[str] = set()  # spawned calls that may get more inputs from here
        self.users = 0  # apps that run over this connection
        self._reader = threading.Thread(target=self._read, name="upswell-reader", daemon=True)
        self._reader.start()

    @property
    def life(self) -> int:
        """Counts how often the server was started again, from 1 on: what it held in memory belongs to one of them."""
        return self._link.life

    @property
    def is_broken(self) -> bool:
        """Whether the connection is lost just now, and being made again."""
        return self._link.is_broken

    @property
    def spools(self) -> str:
        """The directory for a spool, where this program may have one and the server is there; else ""."""
        return "" if self._link.is_broken else self._link.spools

    @property
    def is_watched(self) -> bool:
        """Whether somebody is told how functions progress."""
        return bool(self._watchers)

    def open_inbox(self, name: str, *, renewable: bool = False) -> Inbox:
        """Frames about `name` (a call, an app, a request) go there until it is closed.

        Who opens a `renewable` one must look for `Restarted` among them, and say then again what is to be done.
        """
        inbox = Inbox(self, name, renewable=renewable)
        with self._link.lock:
            inbox.life = self._link.life
            self._inboxes[name] = inbox
        if self._link.lost is not None:
            inbox.put(self._link.lost)
        return inbox

    def share_inbox(self, inbox: Inbox) -> Inbox:
        """The inbox that is open under this one's name, or else this one, from now on."""
        with self._link.lock:
            inbox.life = self._link.life
            shared = self._inboxes.setdefault(inbox.name, inbox)
        if shared is inbox and self._link.lost is not None:
            inbox.put(self._link.lost)
        return shared

    def begin(self, inbox: Inbox, say: Callable[[], None]) -> None:
        """Open the inbox and `say` the first of it, with no life of the server beginning in between."""
        with self._link.lock:
            if (lost := self._link.lost) is not None:
                raise type(lost)(*lost.args)
            inbox.life = self._link.life
            self._inboxes[inbox.name] = inbox
            say()

    def read_for(self, inbox: Inbox, wait: Wait) -> bool:
        """Read in this thread, until there is a frame for that inbox; false where another thread reads, or has to."""
        if len(self._inboxes) == 1:
            return self._link.read_for(inbox, wait)
        self.read_elsewhere()
        return False

    def read_here(self, wait: Wait) -> bool:
        """Who waits for something else than frames must not read: it would not wake up for that."""
        self.read_elsewhere()
        return False

    def read_elsewhere(self) -> None:
        """See to it that the reader reads."""
        self._link.read_elsewhere()

    def close_inbox(self, name: str) -> None:
        """Frames about `name` are dropped from now on."""
        self._inboxes.pop(name, None)

    def send(self, message: m.Message, payload: Bytes = b"", life: int = 0) -> None:
        """Send a frame, where a `life` is given only in that one; `ConnectionError` when the connection is lost."""
        self._link.send(message, payload, life)

    def submit(self, message: m.Submit | m.Restore, packed: Packed, life: int = 0) -> None:
        """Send inputs. Their shared memory is lent to the server, and remains the caller's to close."""
        if packed.block is None:
            self._link.send(message, packed.data, life)
            return
        with self._link.lock:
            if life in (0, self._link.life):
                lent = packed.block.share()
                self._lent[lent.buffers.descriptor] = lent
                self._link.send(replace(message, buffers=lent.buffers), packed.data)

    def declare(self, message: Declared) -> None:
        """Say what is to hold from now on: to this server, and to any that is started in its place."""
        function = message.function.id if isinstance(message, m.Declare) else ""
        with self._link.lock:
            self._declared[type(message), message.app, function] = message
            self._link.send(message)

    def undeclare(self, app_id: str) -> None:
        """Nothing of the app is to hold any more; the server is told otherwise."""
        with self._link.lock:
            self._watchers.pop(app_id, None)
            for key in [key for key in self._declared if key[1] == app_id]:
                del self._declared[key]

    def watch(self, app_id: str, callback: Callable[[m.Progress], None]) -> None:
        """Have `callback(Progress)` called, in the reader thread, while the app's state changes."""
        self._watchers[app_id] = callback
        self.declare(m.Watch(app_id))

    def close(self) -> None:
        """End the connection, and the private server with it."""
        self.spawning.spooling.close()
        self._link.close()
        self._reader.join(SERVER_EXIT_SECONDS)
        self._link.release()
        if self._private is not None:
            self._private.end(SERVER_EXIT_SECONDS)

    def forget(self) -> None:
        """In a forked child: the connection is the parent's."""
        self._link.forget()
        self.spawning.spooling.forget()
        if self._private is not None:
            self._private.forget()

    def _read(self) -> None:
        lost = self._link.read(self._route, self._restarted)
        self.spawning.spooling.close()
        for inbox in list(self._inboxes.values()):
            inbox.put(lost)

    def _restarted(self) -> None:
        """The server knows nothing: say what holds, and let each call say the rest."""
        for block in self._lent.values():
            block.close()
        self._lent.clear()
        for message in self._declared.values():
            self._link.send(message)
        for call in tuple(self.attended):
            self._link.send(m.AttendCall(call))
        self.spawning.spooling.restarted()
        for inbox in list(self._inboxes.values()):
            inbox.restarted(self._link.life)

    def _foreseen(self, progress: m.Progress) -> m.Progress:
        """The same, where what maps have yet to pull is pending too, as far as that is known."""
        more: dict[str, int] = {}
        for function, mapping in list(self.maps.values()):
            if app_of(function) == progress.app:
                more[label_of(function)] = more.get(label_of(function), 0) + mapping.to_be_pulled
        functions = [replace(one, pending=one.pending + more.get(one.name, 0)) for one in progress.functions]
        return m.Progress(progress.app, functions)

    def _route(self, message: m.Message, payload: memoryview) -> None:
        if (field := ABOUT.get(type(message))) is not None:
            if inbox := self._inboxes.get(str(getattr(message, field))):
                inbox.put((message, payload))
            elif isinstance(message, m.Outputs | m.Chunks) and message.buffers is not None:
                self.send(m.Release(message.buffers.descriptor))  # nobody wants it any more
            return
        match message:
            case m.Release(descriptor=descriptor):
                if block := self._lent.pop(descriptor, None):
                    block.close()
            case m.Log():
                output.show(message)
            case m.Progress(app=app):
                if callback := self._watchers.get(app):
                    callback(self._foreseen(message))
            case m.Denied(about=name, reason=reason):
                if inbox := self._inboxes.get(name):
                    inbox.put(PermissionDeniedError(reason))
            case m.Welcome():
                self._link.welcomed(message)
            case m.Received(count=count):
                self._link.confirmed(count)
            case m.Bye():
                self._link.dismissed(message)


def connect(server: home.Server | PrivateServer) -> Client:
    """A connection to that server; `ConnectionError` where none answers."""
    if isinstance(server, PrivateServer):
        return Client(Channel(server.socket, server.outputs), private=server)
    return Client(dial(server.address, ca=server.ca), server=server)


async def ask(client: Client, message: Any, kind: type[Answer]) -> Answer:
    """Send a request, which has a number, and return its answer; what the server refused it with is raised.

    What may as well be asked twice is, where the server is started again before it answers; other requests raise
    `ConnectionError` then.
    """
    inbox = client.open_inbox(str(message.request), renewable=isinstance(message, REPEATABLE))
    try:
        answer = await inbox.ask(message)
    finally:
        inbox.close()
    if isinstance(error := getattr(answer, "error", None), m.ErrorRecord):
        raise failure(error)
    assert isinstance(answer, kind)
    return answer


FAILURES: dict[m.ErrorKind, type[Error]] = {
    "missing": NotFoundError,
    "invalid": InvalidError,
    "denied": PermissionDeniedError,
    "exhausted": ResourceExhaustedError,
    "full": ResourceExhaustedError,
    "timeout": FunctionTimeoutError,
    "expired": OutputExpiredError,
}


def failure(error: m.ErrorRecord) -> Exception:
    """The exception for a failure that is not the user's own."""
    return FAILURES.get(error.kind, RemoteError)(error.message)
