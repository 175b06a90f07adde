"""The local engine: containers are processes of this machine, forked from zygotes that have done the imports.

Making the engine forks the root zygote at once, so it must be made before the process starts threads or a loop. The
root holds the other end of a socket: when the server is gone, however that came, it ends every process of the engine.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ..container import control
from ..engine import Capacity, ContainerExit, ContainerOutput, Report
from ..errors import InvalidError
from ..spec import Environment, FunctionRecord

if not hasattr(os, "fork"):
    raise InvalidError(f"the local engine forks processes, which {sys.platform} can't: use Linux, or macOS")

RESERVE_BYTES, RESERVE_SHARE = 1 << 30, 0.1  # memory of the machine that is left alone: the lesser of the two
CLOSE_SECONDS = 2.0
PACKETS_AT_ONCE = 8  # of one zygote in a turn of the loop: a container may write faster than anybody reads


@dataclass(slots=True, eq=False)
class Zygote:
    """The engine's end of one zygote."""

    control: socket.socket
    is_awake: bool = False  # it has done its imports and obeys
    outgoing: deque[bytes] = field(default_factory=deque)
    containers: dict[str, int] = field(default_factory=dict)  # → process, 0 until it is known


class LocalEngine:
    """Starts and ends containers on this machine. `code_root` is the folder of the trees that environments name."""

    _fresh = False  # whether each container is an interpreter of its own instead of a fork

    def __init__(self, code_root: Path | None = None) -> None:
        self._code_root = str(code_root.absolute()) if code_root is not None else ""
        self._root, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._root_process = os.fork()
        if self._root_process == 0:
            self._root.close()
            _be_root(theirs)
        theirs.close()
        self._zygotes: dict[Environment, Zygote] = {}
        self._of: dict[str, Zygote] = {}  # container → its zygote

    async def open(self, address: str, report: Report) -> None:
        """Begin; see `Engine`."""
        import asyncio  # here and below, so that the root zygote does not wait for it: see `_be_root`

        self._loop = asyncio.get_running_loop()
        self._address = address
        self._report = report

    def prepare(self, function: FunctionRecord) -> None:
        """Have the function's environment imported."""
        self._zygote(function.environment)

    def start(self, container: str, token: str, function: FunctionRecord) -> None:
        """Fork a container."""
        zygote = self._zygote(function.environment)
        zygote.containers[container] = 0
        self._of[container] = zygote
        self._send(zygote, control.Launch(container, token, function.spec.resources.memory_mib << 20))

    def kill(self, container: str) -> None:
        """Kill the container and what it started."""
        if zygote := self._of.get(container):
            self._send(zygote, control.End(container))
            if not zygote.is_awake:
                # It may import for long before it obeys: nobody needs to wait for what has not begun.
                words = "killed before it was started"
                self._loop.call_soon(self._ended, zygote, container, -signal.SIGKILL, words)

    def cpu_seconds(self, container: str) -> float | None:
        """CPU time of the container's process, from its own clock."""
        process = self._process(container)
        if not process or sys.platform != "linux":
            return None
        try:
            return time.clock_gettime((~process << 3) | 2)  # the process's CPU clock: clock_getcpuclockid(3)
        except OSError:
            return None

    def memory_bytes(self, container: str) -> int | None:
        """The container's share of memory (PSS)."""
        return _kibibytes(f"/proc/{self._process(container)}/smaps_rollup", "Pss:")

    def capacity(self) -> Capacity:
        """Cores this process may use, and memory free now less the reserve."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        total = _kibibytes("/proc/meminfo", "MemTotal:") or 8 << 30
        available = _kibibytes("/proc/meminfo", "MemAvailable:") or total // 2
        reserve = int(min(RESERVE_BYTES, RESERVE_SHARE * total))
        return Capacity(float(cores), max(0, available - reserve))

    async def close(self) -> None:
        """End every process of the engine."""
        import asyncio

        for zygote in list(self._zygotes.values()):
            for container in list(zygote.containers):
                self.kill(container)
        deadline = self._loop.time() + CLOSE_SECONDS
        while self._of and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        for zygote in list(self._zygotes.values()):
            self._lost(zygote)
        self._root.close()  # and the root ends what is left
        deadline = self._loop.time() + CLOSE_SECONDS
        while os.waitpid(self._root_process, os.WNOHANG) == (0, 0):
            if self._loop.time() > deadline:
                os.kill(self._root_process, signal.SIGKILL)
            await asyncio.sleep(0.001)

    # -- zygotes -----------------------------------------------------------------------------------

    def _zygote(self, environment: Environment) -> Zygote:
        zygote = self._zygotes.get(environment)
        if zygote is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            parcel = control.parcel(control.Seed(environment, self._address, self._fresh, self._code_root))
            try:
                socket.send_fds(self._root, [b"seed"], [theirs.fileno(), parcel])
            except OSError:
                pass  # the root was killed; nobody has the other end now, and that says so
            theirs.close()
            os.close(parcel)
            ours.setblocking(False)
            zygote = self._zygotes[environment] = Zygote(ours)
            self._loop.add_reader(ours, self._read, environment, zygote)
        return zygote

    def _send(self, zygote: Zygote, packet: control.Packet) -> None:
        zygote.outgoing.append(control.encode(packet))
        if len(zygote.outgoing) == 1:
            self._write(zygote)

    def _write(self, zygote: Zygote) -> None:
        while zygote.outgoing:
            try:
                zygote.control.send(zygote.outgoing[0])
            except BlockingIOError:
                self._loop.add_writer(zygote.control, self._write, zygote)
                return
            except OSError:
                break  # its end is read as an end of file
            zygote.outgoing.popleft()
        self._loop.remove_writer(zygote.control)

    def _read(self, environment: Environment, zygote: Zygote) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                packet = zygote.control.recv(control.MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                del self._zygotes[environment]
                self._lost(zygote)
                return
            match control.decode(packet):
                case control.Awake():
                    zygote.is_awake = True
                case control.Launched(container=container, process=process) if container in zygote.containers:
                    zygote.containers[container] = process
                case control.Wrote(container=container, stream=stream, text=text) if container in zygote.containers:
                    self._report(ContainerOutput(container, stream, text))
                case control.Ended(container=container, status=status, reason=reason, out_of_memory=out_of_memory):
                    self._ended(zygote, container, status, reason or _in_words(status), out_of_memory)

    def _lost(self, zygote: Zygote) -> None:
        """The zygote is gone, and its containers with it."""
        self._loop.remove_reader(zygote.control)
        self._loop.remove_writer(zygote.control)
        zygote.control.close()
        for container in list(zygote.containers):
            self._ended(zygote, container, -signal.SIGKILL, "its zygote died, and it with it")

    def _ended(self, zygote: Zygote, container: str, status: int, reason: str, out_of_memory: bool = False) -> None:
        if zygote.containers.pop(container, None) is not None:
            del self._of[container]
            self._report(ContainerExit(container, status, reason, out_of_memory))

    def _process(self, container: str) -> int:
        zygote = self._of.get(container)
        return zygote.containers.get(container, 0) if zygote else 0


def _be_root(control_socket: socket.socket) -> NoReturn:
    """Be the root zygote. What zygotes need is imported here, beside the server, which imports what it needs itself."""
    try:
        from ..container.zygote import run_root

        run_root(control_socket)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _in_words(status: int) -> str:
    if status < 0:
        try:
            return f"killed by signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exited with status {status}"


def _kibibytes(path: str, field: str) -> int | None:
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
