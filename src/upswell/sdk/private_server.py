"""The private server of a program: a child process at the other end of a socket pair, which ends when that closes.

It is started before anything is imported that talks to it, as it takes longer to boot than that: so this needs little.
"""

from __future__ import annotations

import os
import select
import socket
import sys

CLIENT = 3  # the server's descriptor of the pair


class PrivateServer:
    """The process, and this end of the pair as `socket`."""

    def __init__(self) -> None:
        _open_standard_descriptors()
        self.socket, theirs = socket.socketpair()
        # -P: a file in the user's folder that is named like a module of the standard library is none of the server's.
        command = [sys.executable, "-P", "-m", "upswell.server", "--client-fd", str(CLIENT)]
        environment = dict(os.environ)
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
        self._process = os.posix_spawn(
            sys.executable,
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CLIENT),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable() if descriptor > CLIENT),
            ],
            setsid=True,  # Ctrl-C in the terminal is for the user's program
        )
        theirs.close()

    def end(self, seconds: float) -> None:
        """Wait for its end, which the end of the connection is the signal for; after so many seconds it is killed."""
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
