"""The local engine: containers are processes of this machine, forked from zygotes that have done the imports.

Making the engine forks the root zygote at once, so it must be made before the process starts threads or a loop. The
root holds the other end of a socket: when the server is gone, however that came, it ends every process of the engine,
at once or, where a successor may come, after some time.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec.structs import replace

from ..capacity import Capacity
from ..container import control
from ..engine import ContainerDelayed, ContainerExit, ContainerFound, ContainerOutput, Report, Reported
from ..errors import InvalidError
from ..spec import Environment, FunctionRecord
from ..wire import channel, payload  # noqa: F401 - both sides of the fork need them: imported once, before it
from . import machine
from .devices import found

if TYPE_CHECKING:
    from pathlib import Path

    from .succession import Legacy

if not hasattr(os, "fork"):
    raise InvalidError(f"the local engine forks processes, which {sys.platform} can't: use Linux, or macOS")

RESERVE_BYTES, RESERVE_SHARE = 1 << 30, 0.1  # memory of the machine that is left alone: the lesser of the two
CLOSE_SECONDS = 2.0  # for containers that were killed
ROOT_SECONDS = 10.0  # ... and for the root to end what they have started: where it is killed at that, some lives on
UNUSED_SECONDS = 300.0  # after which a zygote without containers ends, where a server keeps apps: it imports again
PACKETS_AT_ONCE = 8  # of one zygote in a turn of the loop: a container may write faster than anybody reads
REJOIN_SECONDS = 60.0  # so long what a killed server has started goes on, and looks for the next one
INVENTORY_SECONDS = 1.0  # zygotes of an earlier server that import have no containers, and are not waited for
ROOT_SOCKET = "root.sock"  # in the home of a server, where the root zygote waits for the next one


class Zygote(msgspec.Struct, eq=False):
    """The engine's end of one zygote."""

    control: socket.socket
    is_awake: bool = False  # it has done its imports and obeys
    unused_since: float = 0.0  # meaningful while it has no containers
    expects: FunctionRecord | None = None  # of which containers it was told last
    is_counted: bool = True  # false where it is an earlier server's, and has not said yet which containers it has
    outgoing: deque[bytes] = msgspec.field(default_factory=deque)
    containers: dict[str, int] = {}  # → process, 0 until it is known


class LocalEngine:
    """Starts and ends containers on this machine.

    Where their server is gone these look for another for `rejoin_seconds`: by default a minute with a `home`, the
    directory of a server, and not at all without. With one, the engine of the next server that has it finds them.
    `code_root` is the folder of the trees that environments name; `shortcut` a descriptor that containers are to have,
    where they are forked.
    """

    crosses_machines = False
    _fresh = False  # whether each container is an interpreter of its own instead of a fork

    def __init__(
        self,
        code_root: Path | None = None,
        home: Path | None = None,
        rejoin_seconds: float | None = None,
        *,
        shortcut: int = -1,
    ) -> None:
        self._code_root = str(code_root.absolute()) if code_root is not None else ""
        self._root_socket = home.absolute() / ROOT_SOCKET if home is not None else None
        usual = REJOIN_SECONDS if home is not None else 0.0
        self._rejoin_seconds = usual if rejoin_seconds is None else rejoin_seconds
        self._shortcut = -1 if self._fresh else shortcut
        self._unused_seconds = UNUSED_SECONDS
        self._devices = found(os.environ)
        self._without_gpus: dict[str, tuple[Zygote, control.Launch, FunctionRecord]] = {}  # containers that wait
        self._zygotes: dict[control.Seed, Zygote] = {}
        self._of: dict[str, Zygote] = {}  # container → its zygote
        self._found: list[ContainerFound] = []
        self._early: list[Reported] | None = []  # reports that wait until this is open
        self._root, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._root_process = os.fork()
        if self._root_process == 0:
            self._root.close()
            _be_root(theirs, self._shortcut)
        theirs.close()
        self._root_is_ours = True  # a child of this process
        self._is_open = False

    async def open(self, address: str, report: Report) -> Sequence[ContainerFound]:
        """Begin; see `Engine`. The caller must hold the home's lock."""
        import asyncio  # here and below, so that the root zygote does not wait for it: see `_be_root`

        self._loop = asyncio.get_running_loop()
        self._address = address
        self._report = report
        self._is_open = True
        for seed, zygote in self._zygotes.items():
            self._listen(seed, zygote)
            self._write(zygote)
        if self._root_socket is not None:
            from .succession import take_over

            if legacy := take_over(self._root_socket):
                await self._take_over(legacy)
            else:
                self._await_successor(self._root_socket)
            self._loop.call_later(self._unused_seconds, self._dismiss_unused)
        self._loop.call_soon(self._report_early)
        found, self._found = self._found, []
        return found

    def prepare(self, function: FunctionRecord) -> None:
        """Have the function's environment imported; also before this is open.

        The first function of an environment is the first to be launched, unless its zygote hears otherwise: so a
        container that it has ready by then is one of that function.
        """
        zygote = self._zygote(function.environment)
        if zygote.expects is None:
            self._expect(zygote, function)

    def start(self, container: str, token: str, function: FunctionRecord, version: int = 0) -> None:
        """Fork a container."""
        zygote = self._zygote(function.environment)
        zygote.containers[container] = 0
        self._of[container] = zygote
        resources = function.spec.resources
        launch = control.Launch(container, token, self._address, resources.memory_mib << 20, function.id, version)
        if not resources.gpus:
            self._launch(zygote, launch, function)
            return
        self._without_gpus[container] = (zygote, launch, function)
        self._give_gpus()
        if container in self._without_gpus:
            words = f"it waits for gpu={resources.gpus[0]}, as others have them"
            self._loop.call_soon(self._tell, ContainerDelayed(container, words))

    def _give_gpus(self) -> None:
        """Let who waits for GPUs have those that are free, the first to have come first."""
        for container, (zygote, launch, function) in list(self._without_gpus.items()):
            if (devices := self._devices.take(container, function.spec.resources.gpus[0])) is not None:
                del self._without_gpus[container]
                self._launch(zygote, replace(launch, devices=devices), function)

    def _launch(self, zygote: Zygote, launch: control.Launch, function: FunctionRecord) -> None:
        if zygote.expects != function:
            self._expect(zygote, function)
        self._send(zygote, launch)

    def _expect(self, zygote: Zygote, function: FunctionRecord) -> None:
        zygote.expects = function
        expect = control.Expect(function)
        is_small = len(control.encode(expect)) <= control.MAX_RECORD_BYTES
        self._send(zygote, expect if is_small else control.Expect(None))

    def kill(self, container: str) -> None:
        """Kill the container and what it started."""
        if zygote := self._of.get(container):
            self._send(zygote, control.End(container))
            if not zygote.is_awake or container in self._without_gpus:
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

    def sample(self, containers: Sequence[str]) -> list[tuple[str, float]]:
        """CPU time of each, now."""
        return [(name, seconds) for name in containers if (seconds := self.cpu_seconds(name)) is not None]

    def memory_bytes(self, container: str) -> int | None:
        """The container's share of memory (PSS)."""
        return machine.kibibytes(f"/proc/{self._process(container)}/smaps_rollup", "Pss")

    def capacity(self) -> Capacity:
        """Cores this process may use, and memory free now less the reserve."""
        available, total = machine.memory()
        reserve = int(min(RESERVE_BYTES, RESERVE_SHARE * total))
        gpus = self._devices.counts() if self._devices else None
        return Capacity(machine.cores(), max(0, available - reserve), gpus=gpus)

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
        await self._end_root()
        if self._root_socket is not None:
            self._root_socket.unlink(missing_ok=True)

    # -- the root ----------------------------------------------------------------------------------

    async def _end_root(self) -> None:
        """Have it end everything that is left; returns when it has."""
        import asyncio

        self._root.setblocking(False)
        deadline, ended = self._loop.time() + ROOT_SECONDS, False
        try:
            self._root.send(control.END)
            while not ended:
                try:
                    ended = not self._root.recv(1)
                except BlockingIOError:
                    if self._loop.time() > deadline:
                        os.kill(self._root_process, signal.SIGKILL)
                    await asyncio.sleep(0.001)
        except OSError:
            pass  # it was killed
        self._root.close()
        if self._root_is_ours:
            os.waitpid(self._root_process, 0)

    async def _take_over(self, legacy: Legacy) -> None:
        """Go on with what an earlier server has left."""
        import asyncio

        await self._end_root()
        self._root, self._root_process, self._root_is_ours = legacy.root, legacy.root_process, False
        for seed, its_control in legacy.zygotes:
            zygote = self._add(seed, its_control)
            zygote.is_counted = False
            self._send(zygote, control.Inventory())
        deadline = self._loop.time() + INVENTORY_SECONDS
        while not all(zygote.is_counted for zygote in self._zygotes.values()) and self._loop.time() < deadline:
            await asyncio.sleep(0.001)

    def _report_early(self) -> None:
        early, self._early = self._early, None
        for report in early or ():
            self._report(report)

    def _tell(self, report: Reported) -> None:
        if self._early is not None:
            self._early.append(report)
        else:
            self._report(report)

    def _replace_root(self) -> None:
        """The root was killed, and every zygote with it. By now there are threads, so the next is a program."""
        self._root.close()
        if self._root_is_ours:
            os.waitpid(self._root_process, 0)
        self._root, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_inheritable(theirs.fileno(), True)
        command = [sys.executable, "-P", "-m", "upswell.container.root", str(theirs.fileno()), str(self._shortcut)]
        inherited = [(os.POSIX_SPAWN_DUP2, self._shortcut, self._shortcut)] if self._shortcut >= 0 else []
        self._root_process = os.posix_spawn(sys.executable, command, os.environ, file_actions=inherited)
        self._root_is_ours = True
        theirs.close()
        if self._root_socket is not None:
            self._await_successor(self._root_socket)

    def _await_successor(self, path: Path) -> None:
        from .succession import await_successor

        await_successor(self._root, path, self._rejoin_seconds)

    # -- zygotes -----------------------------------------------------------------------------------

    def _zygote(self, environment: Environment) -> Zygote:
        seed = control.Seed(environment, self._fresh, self._code_root, self._rejoin_seconds, self._shortcut)
        zygote = self._zygotes.get(seed)
        if zygote is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            parcel = control.parcel(seed)
            descriptors = [theirs.fileno(), parcel]
            if self._root_socket is not None:
                descriptors.append(ours.fileno())
            try:
                socket.send_fds(self._root, [control.SEED], descriptors)
            except OSError:
                self._replace_root()
                socket.send_fds(self._root, [control.SEED], descriptors)
            theirs.close()
            os.close(parcel)
            zygote = self._add(seed, ours)
        return zygote

    def _dismiss_unused(self) -> None:
        """End zygotes that have had no containers for long: of apps at rest, and of versions that were replaced."""
        since = self._loop.time() - self._unused_seconds
        for seed, zygote in list(self._zygotes.items()):
            if not zygote.containers and zygote.is_counted and zygote.unused_since <= since:
                del self._zygotes[seed]
                self._send(zygote, control.Leave())
                self._lost(zygote)
        self._loop.call_later(self._unused_seconds, self._dismiss_unused)

    def _add(self, seed: control.Seed, its_control: socket.socket) -> Zygote:
        its_control.setblocking(False)
        zygote = self._zygotes[seed] = Zygote(its_control)
        if self._is_open:
            self._listen(seed, zygote)
        return zygote

    def _listen(self, seed: control.Seed, zygote: Zygote) -> None:
        zygote.unused_since = self._loop.time()
        self._loop.add_reader(zygote.control, self._read, seed, zygote)

    def _send(self, zygote: Zygote, packet: control.Packet) -> None:
        zygote.outgoing.append(control.encode(packet))
        if len(zygote.outgoing) == 1:
            self._write(zygote)

    def _write(self, zygote: Zygote) -> None:
        while zygote.outgoing:
            try:
                zygote.control.send(zygote.outgoing[0])
            except BlockingIOError:
                if self._is_open:  # else that goes on with it
                    self._loop.add_writer(zygote.control, self._write, zygote)
                return
            except OSError:
                break  # its end is read as an end of file
            zygote.outgoing.popleft()
        if self._is_open:
            self._loop.remove_writer(zygote.control)

    def _read(self, seed: control.Seed, zygote: Zygote) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                packet = zygote.control.recv(control.MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                if self._zygotes.get(seed) is zygote:
                    del self._zygotes[seed]
                self._lost(zygote)
                return
            match control.decode(packet):
                case control.Awake():
                    zygote.is_awake = True
                case control.Launched(processes=processes):
                    zygote.containers.update((name, processes[name]) for name in processes if name in zygote.containers)
                case control.Wrote(container=container, stream=stream, text=text):
                    if container in zygote.containers or not zygote.is_counted:
                        self._tell(ContainerOutput(container, stream, text))
                case control.Ended(container=container, status=status, reason=reason, out_of_memory=out_of_memory):
                    self._ended(zygote, container, status, reason or _in_words(status), out_of_memory)
                case control.Inhabitants(present=present, is_all=is_all):
                    self._count(zygote, present, is_all)

    def _count(self, zygote: Zygote, present: list[control.Present], is_all: bool) -> None:
        """These containers of an earlier server are there."""
        zygote.is_awake = True
        zygote.is_counted = is_all
        for one in present:
            launch = one.launch
            if self._early is None:  # it began so late that nobody knows of it
                self._send(zygote, control.End(launch.container))
                continue
            zygote.containers[launch.container] = one.process
            self._of[launch.container] = zygote
            self._devices.hold(launch.container, launch.devices or ())
            self._found.append(ContainerFound(launch.container, launch.token, launch.function, launch.version))

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
            self._without_gpus.pop(container, None)
            self._devices.give_back(container)
            zygote.unused_since = self._loop.time()
            self._tell(ContainerExit(container, status, reason, out_of_memory))
            self._give_gpus()

    def _process(self, container: str) -> int:
        zygote = self._of.get(container)
        return zygote.containers.get(container, 0) if zygote else 0


def _be_root(control_socket: socket.socket, shortcut: int) -> NoReturn:
    """Be the root zygote. What zygotes need is imported here, beside the server, which imports what it needs itself."""
    try:
        from ..container.root import run_root

        run_root(control_socket, shortcut)
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
