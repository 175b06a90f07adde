"""The server of the user's home, in the background: whether it runs, its start, its end, and what it says of itself.

Whoever holds the home's lock is the server; a file with a number in it would be believed too long.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from time import monotonic, sleep
from typing import NamedTuple, TypeVar

from .. import home
from ..errors import ConnectionError, Error
from ..wire import messages as m
from ..wire.channel import dial
from .link import farewell

START_SECONDS = 30.0  # until it must answer: a large store is opened in that time, too
STOP_SECONDS = 30.0  # for exit hooks of containers, and the last write
LOOK_SECONDS = 0.05  # whether a server that somebody else has started answers
ANSWER_SECONDS = 10.0
LAST_LINES = 5  # of the log, where the start has failed without a word
NOT_THE_SERVERS = ("UPSWELL_SERVER", "UPSWELL_TOKEN", "UPSWELL_CA", "NOTIFY_SOCKET")

Answer = TypeVar("Answer", bound=m.Message)


class Started(NamedTuple):
    """A server that answers at `address`; `fresh` where it did not run before."""

    process: int
    address: str
    fresh: bool


def ensure_background_server() -> home.Server:
    """The server of the home, started now if it does not run, which is said on standard error.

    Raises `ConnectionError` with the reason where it can't be started.
    """
    started = start()
    if started.fresh:
        words = f"started a server in the background, process {started.process}, which keeps all in {home.directory()}"
        print(f"upswell: {words}; `upswell server stop` ends it", file=sys.stderr)
    return home.background_server()


def running_process() -> int | None:
    """The process that serves the home, or is about to; `None` where nobody does."""
    try:
        descriptor = home.open_file(os.path.join(home.directory(), home.LOCK), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(written) if written.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def start(options: tuple[str, ...] = ()) -> Started:
    """Start the server, unless it runs, apart from this process and its terminal; returns when it answers."""
    directory = home.directory()
    home.make(directory)
    address = home.background_server().address
    if (process := running_process()) is not None:
        _await_answer(address)
        return Started(process, address, fresh=False)
    # As systemd has it: the server says to this socket that it is ready.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        name = f"upswell-{secrets.token_hex(16)}"
        notices.bind("\0" + name)
        log = os.path.join(directory, home.LOG)
        begun = os.path.getsize(log) if os.path.exists(log) else 0
        server = _spawn(directory, log, {"NOTIFY_SOCKET": f"@{name}"}, options)
        ready, reason = _await_notice(notices, server.pid)
        if ready:
            server.returncode = 0  # it goes on without us
            return Started(server.pid, address, fresh=True)
        server.kill()
        server.wait()
    if (process := running_process()) is not None:  # another one was started at the same moment
        _await_answer(address)
        return Started(process, address, fresh=False)
    raise ConnectionError(f"the server could not be started: {reason or _said_since(log, begun)}")


def stop() -> int | None:
    """End the server of the home; the process that it was, or `None` where none ran.

    Containers run their exit hooks; what they have not finished is done when the home is served again.
    """
    process = running_process()
    if process is None:
        return None
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return None
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not _poll(handle, STOP_SECONDS):
            raise ConnectionError(
                f"the server, process {process}, has not ended within {STOP_SECONDS:g} s: `kill -9 {process}` loses "
                "nothing that it has accepted"
            )
    finally:
        os.close(handle)
    return process


def describe(server: home.Server) -> m.ServerDescribed:
    """What the server says of itself. Raises `ConnectionError`, or `AuthError`."""
    return ask(server, m.DescribeServer(1), m.ServerDescribed, ANSWER_SECONDS)


def back_up(path: str, seconds: float) -> None:
    """Have the server of the home write a consistent copy of what it keeps to `path`, within `seconds`."""
    answer = ask(home.background_server(), m.BackUp(1, os.path.abspath(path)), m.Done, seconds)
    if answer.error is not None:
        raise Error(answer.error.message)


def ask(server: home.Server, message: m.Message, kind: type[Answer], seconds: float) -> Answer:
    """One question over a connection of its own."""
    channel = dial(server.address, ca=server.ca)
    try:
        channel.be_patient(seconds)
        channel.send(m.Hello(m.PROTOCOL, "client", server.token, os.getpid()))
        channel.send(message)
        while frames := channel.receive():
            for answer, _ in frames:
                if isinstance(answer, kind):
                    return answer
                if isinstance(answer, m.Bye):
                    raise farewell(answer)
    except TimeoutError:
        pass
    except OSError as error:
        raise ConnectionError(f"the server at {server.address} is gone: {error}") from None
    finally:
        channel.close()
    from ..wire.network import why_silent

    raise ConnectionError(why_silent(server.address, seconds) or f"the server at {server.address} does not answer")


def _spawn(directory: str, log: str, more: dict[str, str], options: tuple[str, ...]) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in NOT_THE_SERVERS}
    environment["PYTHONPATH"] = os.path.dirname(home.PACKAGE)
    said = home.open_file(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "upswell.server", "--home", directory, "--background", *options],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            env=environment | more,
        )
    finally:
        os.close(said)


def _await_notice(notices: socket.socket, process: int) -> tuple[bool, str]:
    """Whether the process has said that it is ready, and what it has said otherwise."""
    handle = os.pidfd_open(process)
    try:
        poller = select.poll()
        poller.register(notices, select.POLLIN)
        poller.register(handle, select.POLLIN)
        poller.poll(1000 * START_SECONDS)
        try:
            text = notices.recv(1 << 16, socket.MSG_DONTWAIT).decode(errors="replace")
        except BlockingIOError:
            ended = _poll(handle, 0)
            return False, "" if ended else f"it does not answer within {START_SECONDS:g} s"
    finally:
        os.close(handle)
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    return said.get("READY") == "1", said.get("STATUS", "")


def _await_answer(address: str) -> None:
    """Wait for a server that somebody else has started; `ConnectionError` where it never answers."""
    deadline = monotonic() + START_SECONDS
    while True:
        try:
            return dial(address).close()
        except ConnectionError:
            if monotonic() > deadline or running_process() is None:
                raise
        sleep(LOOK_SECONDS)


def _said_since(log: str, begun: int) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        file.seek(begun)
        lines = file.read().strip().splitlines()
    return "\n".join([f"it says in {log}:", *lines[-LAST_LINES:]]) if lines else "it ended without a word"


def _poll(descriptor: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(1000 * seconds))
