"""Zygotes: processes that have done the imports, and fork containers in about a millisecond.

The root zygote is forked by the engine before the server starts threads or a loop; it forks one zygote per environment,
which imports the user's code once and forks a container for every `Launch`. A zygote owns its containers: it reads what
they write, reaps them, and takes them with it when it dies.
"""

from __future__ import annotations

import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec

from ..errors import InvalidError
from ..sdk import context
from ..sdk.app import App
from ..spec import Environment
from . import control
from .loader import enter_environment, import_user_code
from .runtime import run_container

PR_SET_PDEATHSIG = 1
READ_BYTES = 64 << 10
LONGEST_LINE_BYTES = 64 << 10  # an unfinished line is sent in pieces of this size
UNFINISHED_LINE_SECONDS = 0.5  # a line without its end is shown after this long without more of it


class Seed(msgspec.Struct, frozen=True):
    """What the root zygote needs to fork a zygote; the control socket comes with it."""

    environment: Environment
    address: str


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which forked it, dies."""
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


_libc = ctypes.CDLL(None)


def run_root(control_socket: socket.socket, parent: int) -> NoReturn:
    """Be the root zygote: fork a zygote for every `Seed`, and reap those that end."""
    die_with_parent(parent)
    _settle_in(control_socket.fileno())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # zygotes are not waited for: their control socket tells
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control_socket, control.MAX_PACKET_BYTES, 1)
        if not packet:
            os._exit(0)
        me = os.getpid()
        if os.fork() == 0:
            die_with_parent(me)
            control_socket.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run_guarded(Zygote(socket.socket(fileno=descriptors[0]), msgspec.msgpack.decode(packet, type=Seed)))
        os.close(descriptors[0])


def _run_guarded(zygote: Zygote) -> NoReturn:
    try:
        zygote.run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def _settle_in(keep: int) -> None:
    """Leave behind what belongs to the parent: its descriptors, its terminal's signals, its output."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)


@dataclass(slots=True, eq=False)
class Child:
    """A container's process, and what it wrote of a line not finished."""

    container: str
    process: int
    pipes: dict[int, int]  # descriptor → stream
    rests: dict[int, bytes] = field(default_factory=lambda: {1: b"", 2: b""})


class Zygote:
    """One environment: imports its code, forks and owns its containers."""

    def __init__(self, control_socket: socket.socket, seed: Seed) -> None:
        self._control = control_socket
        self._seed = seed
        self._children: dict[int, Child] = {}
        self._failed: BaseException | None = None
        self._imported = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> NoReturn:
        """Import, then serve the engine until it is gone."""
        # Output of the user's module as it is imported would appear twice: the client has imported it too.
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.close(nothing)
        self._prepare()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(wake_read, selectors.EVENT_READ)
        self._selector.register(self._control, selectors.EVENT_READ)
        while True:
            unfinished = any(rest for child in self._children.values() for rest in child.rests.values())
            ready = self._selector.select(UNFINISHED_LINE_SECONDS if unfinished else None)
            if not ready:
                self._send_unfinished_lines()
            for key, _ in ready:
                if key.fileobj is self._control:
                    self._obey(self._control.recv(control.MAX_PACKET_BYTES))
                elif key.fd == wake_read:
                    os.read(wake_read, 4096)
                    self._reap()
                else:
                    self._read(key.data, key.fd)

    def _prepare(self) -> None:
        """Import the user's code, unless that starts threads: what they hold would be held for ever in a fork."""
        context.importing = True
        try:
            enter_environment(self._seed.environment)
            import_user_code(self._seed.environment)
            if any(function.is_async for app in App.all_apps() for function in app.functions.values()):
                import asyncio  # noqa: F401 - so that no container has to
        except BaseException as error:
            self._failed = error
        context.importing = False
        if threading.active_count() > 1:
            names = ", ".join(thread.name for thread in threading.enumerate()[1:])
            self._failed = InvalidError(
                f"importing {self._seed.environment.origin} started threads ({names}), and a process with threads "
                "can't be forked safely: start them on first use, inside a function"
            )
        gc.collect()
        gc.freeze()

    def _obey(self, packet: bytes) -> None:
        if not packet:
            os._exit(0)  # the engine is gone; the containers die with this process
        match control.decode(packet):
            case control.Launch(container=container, token=token):
                self._fork(container, token)
            case control.End(container=container):
                for child in self._children.values():
                    if child.container == container:
                        _kill_group(child.process)

    def _fork(self, container: str, token: str) -> None:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        me = os.getpid()
        process = os.fork()
        if process == 0:
            try:
                die_with_parent(me)
                self._become_container(out_write, err_write)
                run_container(self._seed.address, token, self._failed)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        os.close(out_write)
        os.close(err_write)
        child = self._children[process] = Child(container, process, {out_read: 1, err_read: 2})
        for descriptor in child.pipes:
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, child)
        self._send(control.Launched(container, process))

    def _become_container(self, out: int, err: int) -> None:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115

    # -- what containers write, and their end ------------------------------------------------------

    def _read(self, child: Child, descriptor: int) -> bool:
        """Forward what can be read now; whether there may be more."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        stream = child.pipes[descriptor]
        if not data:
            self._close(child, descriptor)
            return False
        whole, newline, rest = (child.rests[stream] + data).rpartition(b"\n")
        child.rests[stream] = rest
        if newline:
            self._forward(child, stream, whole + newline)
        if len(rest) > LONGEST_LINE_BYTES:
            self._forward(child, stream, rest)
            child.rests[stream] = b""
        return True

    def _close(self, child: Child, descriptor: int) -> None:
        stream = child.pipes.pop(descriptor)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        if child.rests[stream]:
            self._forward(child, stream, child.rests[stream] + b"\n")
            child.rests[stream] = b""

    def _send_unfinished_lines(self) -> None:
        for child in self._children.values():
            for stream, rest in child.rests.items():
                if rest:
                    self._forward(child, stream, rest)
                    child.rests[stream] = b""

    def _forward(self, child: Child, stream: int, data: bytes) -> None:
        text = data.decode("utf-8", "backslashreplace")
        for start in range(0, len(text), control.LINES_BYTES // 2):
            self._send(control.Wrote(child.container, stream, text[start : start + control.LINES_BYTES // 2]))

    def _reap(self) -> None:
        while self._children:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            child = self._children.pop(process)
            _kill_group(process)  # what it started and left behind
            for descriptor in list(child.pipes):
                while self._read(child, descriptor):
                    pass
                if descriptor in child.pipes:
                    self._close(child, descriptor)
            self._send(control.Ended(child.container, os.waitstatus_to_exitcode(status)))

    def _send(self, packet: control.Packet) -> None:
        try:
            self._control.send(control.encode(packet))
        except OSError:
            os._exit(0)


def _kill_group(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
