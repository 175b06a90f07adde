"""The connection to the server: one a process, made when it is first needed, with one thread that reads.

Calls register an `Inbox` under their id; the reader puts frames into inboxes and wakes whoever waits. A program without
a configured server gets a private one as a child process, which ends with this connection.
"""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .. import home
from ..errors import (
    AuthError,
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
from ..wire.channel import Channel, dial
from ..wire.codec import Bytes, Frame, ProtocolError
from ..wire.payload import Packed
from . import context, output
from .dual import Wait

LAST_WORDS_SECONDS = 1.0  # for what the server has said before it closed the connection
SERVER_EXIT_SECONDS = 3.0  # a private server that takes longer to end is killed

_requests = itertools.count(1)

Answer = TypeVar("Answer", bound=m.Message)


def new_id(kind: str) -> str:
    """A fresh id such as "fc-5f3a…"."""
    return f"{kind}-{os.urandom(10).hex()}"


def new_request() -> int:
    """A number for a request and its answer, whose inbox is named after it."""
    return next(_requests)


class Inbox:
    """Frames for one call, in the order they came."""

    __slots__ = ("_diverted", "_frames", "_wait")

    def __init__(self) -> None:
        self._frames: deque[Frame | Error] = deque()
        self._wait: Wait | None = None
        self._diverted: Callable[[Frame | Error], None] | None = None

    def put(self, frame: Frame | Error) -> None:
        """Called by the reader."""
        self._frames.append(frame)
        if self._diverted is not None:
            self.divert(self._diverted)
        self.wake()

    def divert(self, callback: Callable[[Frame | Error], None]) -> None:
        """Nobody will wait here any more: hand what is here and what comes to `callback`, in whatever thread."""
        self._diverted = callback  # before looking, as `put` appends before it looks here
        while self._frames:
            try:
                frame = self._frames.popleft()
            except IndexError:
                return  # the other thread had it
            callback(frame)

    def wake(self) -> None:
        """Let whoever waits look again."""
        if (wait := self._wait) is not None and not wait.done:
            wait.set()

    async def sleep(self, timeout: float | None = None, *, lends: bool = True) -> bool:
        """Wait until there are frames or somebody calls `wake`; false when `timeout` seconds passed first."""
        self._wait = wait = Wait(timeout, lends=lends)
        if not self._frames:
            await wait
        self._wait = None
        return wait.done or bool(self._frames)

    def take(self) -> list[Frame]:
        """The frames that are there; raises what stands in their place: a lost connection, a refusal."""
        taken: list[Frame] = []
        while self._frames:
            frame = self._frames.popleft()
            if isinstance(frame, Error):
                self._frames.appendleft(frame)
                if taken:
                    break
                raise type(frame)(*frame.args)
            taken.append(frame)
        return taken

    async def receive(self) -> list[Frame]:
        """Wait for at least one frame."""
        while not self._frames:
            await self.sleep()
        return self.take()


class Client:
    """One connection to a server."""

    def __init__(self, channel: Channel, role_token: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self._channel = channel
        self._process = process
        self._inboxes: dict[str, Inbox] = {}
        self._lent: dict[int, Packed] = {}  # shared memory the server has not taken over
        self._watchers: dict[str, Any] = {}
        self._lost: Error | None = None
        self.users = 0  # apps that run over this connection
        channel.send(m.Hello(m.PROTOCOL, "client", role_token, os.getpid()))
        self._reader = threading.Thread(target=self._read, name="upswell-reader", daemon=True)
        self._reader.start()

    def open_inbox(self, name: str) -> Inbox:
        """Frames about `name` (a call, an app, a request) go there until it is closed."""
        inbox = self._inboxes[name] = Inbox()
        if self._lost is not None:
            inbox.put(self._lost)
        return inbox

    def share_inbox(self, name: str, inbox: Inbox) -> Inbox:
        """The inbox that is open under `name`, or else this one, from now on."""
        shared = self._inboxes.setdefault(name, inbox)
        if shared is inbox and self._lost is not None:
            inbox.put(self._lost)
        return shared

    def close_inbox(self, name: str) -> None:
        """Frames about `name` are dropped from now on."""
        self._inboxes.pop(name, None)

    def send(self, message: m.Message, payload: Bytes = b"") -> None:
        """Send a frame; `ConnectionError` when the connection is lost."""
        try:
            self._channel.send(message, payload)
        except OSError:
            if threading.current_thread() is not self._reader:
                self._reader.join(LAST_WORDS_SECONDS)  # the server may have said why
            raise self._lost or _lost_connection() from None

    def submit(self, message: m.Submit, packed: Packed) -> None:
        """Send inputs; their shared memory is kept until the server has taken it over."""
        if packed.block is not None:
            self._lent[packed.block.buffers.descriptor] = packed
        self.send(message, packed.data)

    def watch(self, app_id: str, callback: Any) -> None:
        """Have `callback(Progress)` called, in the reader thread, while the app's state changes."""
        self._watchers[app_id] = callback
        self.send(m.Watch(app_id))

    def close(self) -> None:
        """End the connection, and the private server with it."""
        self._channel.shutdown()
        self._reader.join(SERVER_EXIT_SECONDS)
        self._channel.close()
        if self._process is not None:
            try:
                self._process.wait(SERVER_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's."""
        self._channel.forget()

    def _read(self) -> None:
        try:
            while frames := self._channel.receive():
                for message, payload in frames:
                    self._route(message, payload)
        except (OSError, ProtocolError) as error:
            self._lost = ConnectionError(f"the connection to the server was lost: {error}")
        self._lost = self._lost or _lost_connection()
        for inbox in list(self._inboxes.values()):
            inbox.put(self._lost)

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
            case m.Listed(request=request) | m.Logged(request=request) | m.Deployed(request=request):
                name = str(request)
            case m.MissingFiles(request=request) | m.Deployed(request=request) | m.Resolved(request=request):
                name = str(request)
            case m.Done(request=request):
                name = str(request)
            case m.CallGraph(request=name):
                pass
            case m.Release(descriptor=descriptor):
                if (packed := self._lent.pop(descriptor, None)) and packed.block:
                    packed.block.close()
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
            case m.Bye():
                self._lost = farewell(message)
                return
            case _:
                return
        if inbox := self._inboxes.get(name):
            inbox.put((message, payload))
        elif isinstance(message, m.Outputs | m.Chunks) and message.buffers is not None:
            self.send(m.Release(message.buffers.descriptor))  # nobody wants it any more


def farewell(message: m.Bye) -> Error:
    """The error of a connection that the server has closed with these words."""
    if message.denied:
        return AuthError(f"the server does not let this program in: {message.reason} (UPSWELL_TOKEN)")
    return ConnectionError(f"the server closed the connection: {message.reason}")


def _lost_connection() -> ConnectionError:
    return ConnectionError("the server is gone; what it had not returned is lost: run the program again")


_client: Client | None = None
_making = threading.Lock()


def get_client() -> Client:
    """The connection of this process; made now if there is none."""
    global _client
    with _making:
        if _client is None:
            if (server := home.Server(*context.server) if context.server else home.chosen_server()) is not None:
                _client = Client(dial(server.address, ca=server.ca), server.token)
            else:
                _client = start_private_server()
        return _client


_keeper: Client | None = None


def get_keeper() -> Client:
    """The connection to the server that keeps apps; made now if there is none.

    That is the server of this process, unless that is a private one: then it is the background server of the user.
    """
    global _keeper
    chosen = home.chosen_server()
    if context.server_keeps_apps or (context.server is None and chosen is not None):
        return keep_client()
    with _making:
        if _keeper is None:
            server = chosen or home.background_server()
            _keeper = Client(dial(server.address, ca=server.ca), server.token)
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

    It is answered at once, so who asks inside a container keeps its place.
    """
    name = str(message.request)
    inbox = client.open_inbox(name)
    try:
        client.send(message)
        while not (frames := inbox.take()):
            await inbox.sleep(lends=False)
    finally:
        client.close_inbox(name)
    answer = frames[0][0]
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


def current_client() -> Client | None:
    """The connection of this process, if there is one."""
    return _client


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
    global _client
    with _making:
        client, _client = _client, None
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
    return Client(Channel(ours), "", process)


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
    for client in (_client, _keeper):
        if client is not None:
            client.forget()
    _client = _keeper = None


os.register_at_fork(after_in_child=_after_fork)
