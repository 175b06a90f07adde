"""The root zygote: forks a zygote for every seed, and is what is left when the server is gone.

Of a private server it then ends every process below. Where the engine said `keep`, it first waits for a successor: it
has the engine's end of every zygote's socket too, so what zygotes say meanwhile waits there, and hands all of them to
the engine of the next server. It must not read from them, and it runs no code of users.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import sys
from time import monotonic
from typing import NoReturn

from ..wire.messages import PROTOCOL
from ..wire.shortcut import first_other
from . import control, groups
from .lineage import Guardian, close_descriptors, die_with_parent
from .rehearsal import rehearse
from .title import entitle
from .zygote import Zygote

REHEARSALS = 8  # after so many calls CPython has adapted a function's code
HANDOVER_SECONDS = 5.0  # a successor that does not take what it came for by then is none
NEVER = float("inf")


def run_root(engine: socket.socket, shortcut: int) -> NoReturn:
    """Be the root zygote of the engine at the other end. All that is forked here has the `shortcut`, or -1: none.

    It has a session of its own, so that whatever is done to the server's does not keep it from its work.
    """
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        close_descriptors(first_other(shortcut), keep=engine.fileno())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        rehearse(REHEARSALS)
        entitle("upswell: root zygote")
        # What is there by now no collection in a zygote goes through, which would copy all of it. Here none is made
        # either: it would find a twentieth to be garbage, and take longer than to fork the first container.
        gc.freeze()
        gc.enable()
        Root(engine).serve()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


class Root:
    """What the root zygote knows: whom it obeys, and what it keeps."""

    def __init__(self, engine: socket.socket) -> None:
        self._engine: socket.socket | None = engine  # none while there is no server
        self._listener: socket.socket | None = None  # where a successor calls; none where nothing is to be kept
        self._seconds = 0.0  # how long it is waited for
        self._ends_at = NEVER
        self._kept: dict[int, tuple[int, int]] = {}  # zygote → the engine's end of its socket, and its seed's parcel
        self._guardian = Guardian()

    def serve(self) -> NoReturn:
        """Obey engine after engine, until one says `end` or none comes."""
        while True:
            ready = self._wait()
            if self._guardian.wake in ready:
                for process, _ in self._guardian.reap():  # what a dead zygote had comes here, and is ended
                    self._let_go(process)
            if self._engine is not None:
                if self._engine.fileno() in ready:
                    self._obey(self._engine)
            elif self._listener is not None and self._listener.fileno() in ready:
                self._meet_successor(self._listener)
            elif monotonic() >= self._ends_at:
                self._end()

    def _wait(self) -> set[int]:
        poller = select.poll()
        poller.register(self._guardian.wake, select.POLLIN)
        if awaited := self._engine or self._listener:
            poller.register(awaited, select.POLLIN)
        patience = None if self._ends_at == NEVER else max(0.0, self._ends_at - monotonic())
        return {descriptor for descriptor, _ in poller.poll(None if patience is None else 1000 * patience + 1)}

    def _obey(self, engine: socket.socket) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(engine, control.MAX_PACKET_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            packet, descriptors = b"", []
        match packet.split():
            case [control.SEED]:
                self._fork_zygote(*descriptors)
            case [control.KEEP, seconds]:
                self._listener, self._seconds = socket.socket(fileno=descriptors[0]), float(seconds)
            case [] if self._listener is not None:
                self._lose(engine)
            case _:
                self._end()

    # -- zygotes -----------------------------------------------------------------------------------

    def _fork_zygote(self, its_control: int, parcel: int, engines: int = -1) -> None:
        me = os.getpid()
        try:
            process = os.fork()
        except OSError:
            process = -1  # its control socket is closed below, which says so
        if process == 0:
            try:
                die_with_parent(me)
                self._guardian.leave()
                seed = control.read_seed(parcel)
                close_descriptors(first_other(seed.shortcut), keep=its_control)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
                Zygote(socket.socket(fileno=its_control), seed).run()
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        os.close(its_control)
        if process > 0:
            self._guardian.own.add(process)
            self._kept[process] = (engines, parcel)
        else:
            _close(engines, parcel)

    def _let_go(self, process: int) -> None:
        """The zygote is gone, and its containers with it."""
        _close(*self._kept.pop(process, ()))

    # -- between two servers -----------------------------------------------------------------------

    def _lose(self, engine: socket.socket) -> None:
        """The server is gone and has not said that this is the end: the next one may come."""
        engine.close()
        self._engine, self._ends_at = None, monotonic() + self._seconds
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # nobody is to wait for more of what the server wrote
            os.dup2(nothing, stream)
        os.close(nothing)

    def _meet_successor(self, listener: socket.socket) -> None:
        """Hand over to who calls, if that is a server of this user that takes it."""
        successor, _ = listener.accept()
        try:
            successor.settimeout(HANDOVER_SECONDS)
            _, user, _ = struct.unpack("3i", successor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user != os.getuid():
                raise PermissionError("a stranger")
            successor.send(b"%s %d %d" % (control.KEPT, PROTOCOL, os.getpid()))
            for engines, parcel in self._kept.values():
                socket.send_fds(successor, [control.ZYGOTE], [engines, parcel])
            successor.send(control.ALL)
        except OSError:
            successor.close()
            return
        successor.settimeout(None)
        self._engine, self._ends_at = successor, NEVER

    def _end(self) -> NoReturn:
        """End every process below, and this one. Who calls meanwhile is turned away first."""
        if self._listener is not None:
            self._listener.close()
        self._guardian.end_all()
        groups.remove_all(os.getpid())
        os._exit(0)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


if __name__ == "__main__":
    run_root(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
