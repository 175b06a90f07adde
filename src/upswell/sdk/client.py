"""The connection to the server: one a process, made when it is first needed, with one thread that reads.

Calls register an `Inbox` under their id; the reader puts frames into inboxes and wakes whoever waits. A program without
a configured server gets a private one as a child process, which ends with this connection. To a configured one the
connection is made again when it is lost, and what holds for as long as this program is declared again.
"""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from .. import home
from ..errors import (
    ConnectionError,
    Error,
    FunctionTimeoutError,
    InvalidError,
    NotFoundError,
    OutputExpiredError,
    PermissionDeniedError,
    RemoteError,
    ResourceExhaustedError,
)
from ..wire import messages as m
from ..wire.buffers import Block
from ..wire.channel import Channel, dial
from ..wire.codec import Bytes
from ..wire.payload import Packed
from . import context, output
from .inbox import Inbox
from .link import Link

SERVER_EXIT_SECONDS = 3.0  # a private server that takes longer to end is killed

REPEATABLE = (m.Resolve, m.OfferFiles, m.Inquire, m.Cancel)  # requests that may as well come twice

Declared = m.OpenApp | m.AttendApp | m.Declare | m.Watch  # what is to hold in every life of a server

_requests = itertools.count(1)

Answer = TypeVar("Answer", bound=m.Message)


def new_id(kind: str) -> str:
    """A fresh id such as "fc-5f3a…"."""
    return f"{kind}-{os.urandom(10).hex()}"


def new_request() -> int:
    """A number for a request and its answer, whose inbox is named after it."""
    return next(_requests)


class Client:
    """One connection to a server: a private one, whose `process` it is, or one that is found at an address."""

    def __init__(
        self,
        channel: Channel | None,
        *,
        process: subprocess.Popen[bytes] | None = None,
        server: home.Server | None = None,
    ) -> None:
        from .spawning import Spawning  # which is above

        self._link = Link(channel, server)
        self._process = process
        self._inboxes: dict[str, Inbox] = {}
        self._lent: dict[int, Block] = {}  # shared memory the server has not taken over
        self._watchers: dict[str, Any] = {}
        self.spawning = Spawning(self)
        self._declared: dict[tuple[type[m.Message], str, str], Declared] = {}
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

    def watch(self, app_id: str, callback: Any) -> None:
        """Have `callback(Progress)` called, in the reader thread, while the app's state changes."""
        self._watchers[app_id] = callback
        self.declare(m.Watch(app_id))

    def close(self) -> None:
        """End the connection, and the private server with it."""
        self._link.close()
        self._reader.join(SERVER_EXIT_SECONDS)
        self._link.release()
        if self._process is not None:
            try:
                self._process.wait(SERVER_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's."""
        self._link.forget()

    def _read(self) -> None:
        lost = self._link.read(self._route, self._restarted)
        for inbox in list(self._inboxes.values()):
            inbox.put(lost)

    def _restarted(self) -> None:
        """The server knows nothing: say what holds, and let each call say the rest."""
        for block in self._lent.values():
            block.close()
        self._lent.clear()
        for message in self._declared.values():
            self._link.send(message)
        for inbox in list(self._inboxes.values()):
            inbox.restarted(self._link.life)

    def _route(self, message: m.Message, payload: memoryview) -> None:
        match message:
            case m.Outputs(call=name) | m.Failed(call=name) | m.Accepted(call=name) | m.Refused(call=name):
                pass
            case m.Invited(call=name) | m.CallDescribed(call=name) | m.Chunks(call=name):
                pass
            case m.AppOpened(app=name) | m.AppClosed(app=name):
                pass
            case m.Statistics(request=request) | m.ObjectAnswer(request=request) | m.Done(request=request):
                name = str(request)
            case m.Listed(request=request) | m.Logged(request=request):
                name = str(request)
            case m.MissingFiles(request=request) | m.Deployed(request=request) | m.Resolved(request=request):
                name = str(request)
            case m.CallGraph(request=name):
                pass
            case m.Release(descriptor=descriptor):
                if block := self._lent.pop(descriptor, None):
                    block.close()
                return
            case m.Log():
                output.show(message)
                return
            case m.Progress(app=app):
                if callback := self._watchers.get(app):
                    callback(message)
                return
            case m.Denied(about=name, reason=reason):
                if inbox := self._inboxes.get(name):
                    inbox.put(PermissionDeniedError(reason))
                return
            case m.Welcome():
                self._link.welcomed(message)
                return
            case m.Received(count=count):
                self._link.confirmed(count)
                return
            case m.Bye():
                self._link.dismissed(message)
                return
            case _:
                return
        if inbox := self._inboxes.get(name):
            inbox.put((message, payload))
        elif isinstance(message, m.Outputs | m.Chunks) and message.buffers is not None:
            self.send(m.Release(message.buffers.descriptor))  # nobody wants it any more


_client: Client | None = None
_making = threading.Lock()


def get_client() -> Client:
    """The connection of this process; made now if there is none."""
    global _client
    with _making:
        if _client is None:
            if context.server is not None and context.server_keeps_apps:
                _client = Client(None, server=home.Server(*context.server))  # it may just be started again
            elif (server := home.Server(*context.server) if context.server else home.chosen_server()) is not None:
                _client = Client(dial(server.address, ca=server.ca), server=server)
            else:
                _client = start_private_server()
        return _client


_keeper: Client | None = None  # looked up once: every call by name passes here


def get_keeper() -> Client:
    """The connection to the server that keeps apps; made now if there is none.

    That is the server of this process, unless that is a private one: then it is the background server of the user.
    """
    global _keeper
    if (keeper := _keeper) is None:
        chosen = home.chosen_server()
        if context.server_keeps_apps or (context.server is None and chosen is not None):
            keeper = _keeper = keep_client()
        else:
            keeper = _dial_keeper(chosen)
    return keeper


def _dial_keeper(chosen: home.Server | None) -> Client:
    global _keeper
    server = chosen or home.background_server()
    with _making:
        if _keeper is None:
            try:
                _keeper = Client(dial(server.address, ca=server.ca), server=server)
            except ConnectionError:
                if chosen is not None:
                    raise
                words = f"no server runs in {home.directory()}: `upswell server start` and `upswell deploy` start one"
                raise ConnectionError(words) from None
            atexit.register(close_keeper)
        return _keeper


def sees_our_files() -> bool:
    """Whether the server of this program is on this machine, so that containers find the program's files in place."""
    chosen = home.chosen_server()
    return chosen is None or chosen.address.startswith("unix:")


def client_of_call(is_kept: bool | None) -> Client:
    """The connection to the server that has a call, which may be one that keeps apps; `None` where nobody knows.

    Then it is that of this process, if there is one, or else the other one.
    """
    if is_kept is None:
        is_kept = _client is None and context.server is None
    return get_keeper() if is_kept else get_client()


def keeper_is_another() -> bool:
    """Whether there is a server that keeps apps beside that of this process."""
    try:
        return get_keeper() is not _client
    except ConnectionError:
        return False


def close_keeper() -> None:
    """End the connection to the server that keeps apps, where that is one of its own."""
    global _keeper
    with _making:
        keeper, _keeper = _keeper, None
    if keeper is not None:
        atexit.unregister(close_keeper)
        keeper.close()


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


def join_client() -> Client:
    """The connection of this process, which stays until as many have left it as have joined."""
    client = get_client()
    client.users += 1
    return client


def leave_client() -> None:
    """One who joined does not need the connection any more; with the last it ends, and a private server with it."""
    if _client is not None:
        _client.users -= 1
        if not _client.users and context.server is None:  # a container's inputs share one, whoever joined it
            close_client()


_kept: Client | None = None


def keep_client() -> Client:
    """The connection of this process, kept until the program ends, as what it stored at the server may be wanted."""
    global _kept
    client = get_client()
    if client is not _kept and context.server is None:
        if _kept is None:
            atexit.register(leave_client)
        _kept = join_client()
    return client


def close_client() -> None:
    """End the connection of this process, and with it a private server."""
    global _client, _keeper
    with _making:
        client, _client = _client, None
        _keeper = None if _keeper is client else _keeper
    if client is not None:
        client.close()


def start_private_server() -> Client:
    """Start a server as a child of this process, and connect to it before it has booted."""
    _open_standard_descriptors()
    ours, theirs = socket.socketpair()
    # -P: a file in the user's folder that is named like a module of the standard library is none of the server's.
    command = [sys.executable, "-P", "-m", "upswell.server", "--client-fd", str(theirs.fileno())]
    environment = dict(os.environ)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is for the user's program
        env=environment,
    )
    theirs.close()
    return Client(Channel(ours), process=process)


def _open_standard_descriptors() -> None:
    """Where the shell has closed one of them (`>&-`), a socket would get its number, and be taken for output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _after_fork() -> None:
    global _client, _keeper, _making
    _making = threading.Lock()
    for client in {_client, _keeper}:
        if client is not None:
            client.forget()
    _client = _keeper = None


os.register_at_fork(after_in_child=_after_fork)
