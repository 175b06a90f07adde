"""The private server of a program: a child process at the other end of a socket pair, which ends when that closes.

It is started before anything is imported that talks to it, as it takes longer to boot than that: so this needs little.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from .. import home
from ..wire import shortcut

CLIENT = shortcut.DESCRIPTOR + 1  # the server's descriptor of the pair


class PrivateServer:
    """The process, this end of the pair as `socket`, and as `outputs` what containers send straight to this program."""

    def __init__(self) -> None:
        """Start it; `InvalidError` where the environment names no engine that there is."""
        home.local_engine()  # which nobody would hear of later
        _open_standard_descriptors()
        self.socket, theirs = socket.socketpair()
        self.outputs, writing = shortcut.make()
        # -P: a file in the user's folder that is named like a module of the standard library is none of the server's.
        command = [sys.executable, "-P", "-m", "upswell.server", "--client-fd", str(CLIENT)]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [os.path.dirname(home.PACKAGE), environment.get("PYTHONPATH")])
        )
        self._process = os.posix_spawn(
            sys.executable,
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, writing.fileno(), shortcut.DESCRIPTOR),  # neither is the number of the next one
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CLIENT),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable() if descriptor > CLIENT),
            ],
            setsid=True,  # Ctrl-C in the terminal is for the user's program
        )
        theirs.close()
        self._writing = writing.detach()  # kept, so that no end of all others comes before the last words of the server

    def end(self, seconds: float) -> None:
        """Wait for its end, which the end of the connection is the signal for; after so many seconds it is killed."""
        self.forget()
        try:
            handle = os.pidfd_open(self._process)
        except ProcessLookupError:
            return  # the program has waited for any child, and it was this one
        try:
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            if not poller.poll(1000 * seconds):
                import signal

                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.waitid(os.P_PIDFD, handle, os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            pass
        finally:
            os.close(handle)

    def forget(self) -> None:
        """In a forked child, which leaves the sockets to whom they were given: it is the parent's."""
        writing, self._writing = self._writing, -1
        if writing >= 0:
            os.close(writing)


def _open_standard_descriptors() -> None:
    """Where the shell has closed one of them (`>&-`), a socket would get its number, and be taken for output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _inheritable() -> list[int]:
    """The descriptors that a child would have, beyond those of its input and output."""
    found = [int(name) for name in os.listdir("/dev/fd")]
    return [descriptor for descriptor in found if descriptor > 2 and _is_inheritable(descriptor)]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # it was the folder's own
