"""A lease: the local engine on a node, at the end of a connection to the engine of the server.

`python -m upswell.engines.ray.lease NODE` reads its parcel from standard input, and ends with that, or with the
connection: then every container here ends too. Code that the node lacks it fetches over the connection.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...code import CodeStore
from ...engine import ContainerExit, ContainerOutput, Reported
from ...errors import InvalidError
from ...spec import FunctionRecord
from ...wire.codec import ProtocolError
from ..local import LocalEngine
from . import messages as r
from .link import Link

DIAL_SECONDS = 20.0
MEASURE_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class Fetching:
    """A tree of code on its way here."""

    asked: set[str] = field(default_factory=set)  # files that have not come
    waiting: list[Callable[[], None]] = field(default_factory=list)  # what to do when it is here, or can't be


class Lease:
    """Does as the engine says, and tells it what becomes of the containers."""

    def __init__(self, parcel: r.Parcel, node: str) -> None:
        """To be called before this process has threads or a loop: see `LocalEngine`."""
        self._parcel = parcel
        self._node = node
        self._code = CodeStore(code_folder(parcel.code), is_shared=True)
        self._engine = LocalEngine(self._code.trees)
        self._containers: dict[str, bool] = {}  # → whether the local engine knows it; else it waits for its code
        self._fetching: dict[str, Fetching] = {}
        self._absent: set[str] = set()  # trees that the engine lacks too
        self._turns = 0

    async def serve(self) -> None:
        """Serve until the engine or the holder of this lease is gone, or says `End`."""
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, ended.set)  # nothing comes there any more but its end
        await self._engine.open(self._parcel.containers_dial, self._report)
        self._link = await dial(self._parcel)
        self._link.send(r.Opened(r.LINK, self._parcel.token, self._node, os.getpid()))
        working = [asyncio.create_task(self._measure()), asyncio.create_task(self._read(ended))]
        await ended.wait()
        self._link.send(r.End())
        working[0].cancel()
        await self._engine.close()
        await self._link.close()
        working[1].cancel()

    async def _read(self, ended: asyncio.Event) -> None:
        try:
            async for message, payload in self._link.frames():
                if isinstance(message, r.End):
                    break
                self._obey(message, payload)
        finally:
            ended.set()

    def _obey(self, message: object, payload: memoryview) -> None:
        match message:
            case r.Prepare(function=function):
                self._with_code(function, lambda: self._engine.prepare(function))
            case r.StartContainer(container=container, token=token, function=function):
                self._containers[container] = False
                self._with_code(function, lambda: self._start(container, token, function))
            case r.KillContainer(container=container):
                self._kill(container)
            case r.File(tree=tree, digest=digest, is_there=is_there):
                self._take(tree, digest, payload, is_there)
            case _:
                raise ProtocolError(f"an engine does not send {type(message).__name__}")

    def _start(self, container: str, token: str, function: FunctionRecord) -> None:
        if container in self._containers:
            self._containers[container] = True
            self._engine.start(container, token, function)

    def _kill(self, container: str) -> None:
        if self._containers.get(container) is False:
            self._report(ContainerExit(container, -9, "killed before it was started"))
        else:
            self._engine.kill(container)

    def _report(self, report: Reported) -> None:
        match report:
            case ContainerOutput(container=container, stream=stream, text=text):
                self._link.send(r.Wrote(container, stream, text))
            case ContainerExit(container=container):
                self._containers.pop(container, None)
                self._link.send(r.Exited(container, report.status, report.reason, report.out_of_memory))

    async def _measure(self) -> None:
        """Say how much the containers use: processor time of all, memory of one after the other, as that costs more."""
        while True:
            names = list(self._containers)
            self._turns += 1
            usages = []
            for position, name in enumerate(names):
                cpu = self._engine.cpu_seconds(name)
                memory = self._engine.memory_bytes(name) if position == self._turns % len(names) else None
                usages.append(r.Usage(name, -1.0 if cpu is None else cpu, -1 if memory is None else memory))
            self._link.send(r.Measured(usages))
            await asyncio.sleep(MEASURE_SECONDS)

    # -- code --------------------------------------------------------------------------------------

    def _with_code(self, function: FunctionRecord, then: Callable[[], None]) -> None:
        """Do that once the function's tree of code is here, or can't be had, which containers say themselves."""
        tree = function.environment.code
        if not tree or tree in self._absent or self._code.path(tree).is_dir():
            then()
            return
        is_new = tree not in self._fetching
        self._fetching.setdefault(tree, Fetching()).waiting.append(then)
        if is_new:
            self._go_on(tree)

    def _go_on(self, tree: str) -> None:
        """Ask for what is lacking of the tree next; make it when nothing is."""
        try:
            if lacking := self._code.lacking(tree):
                self._fetching[tree].asked.update(lacking)
                self._link.send(r.Fetch(tree, lacking))
                return
            self._code.make(tree)
        except (InvalidError, OSError) as error:
            print(f"upswell: the code {tree[:12]} can't be kept on this node: {error}", file=sys.stderr)
            self._absent.add(tree)
        self._fetched(tree)

    def _take(self, tree: str, digest: str, content: memoryview, is_there: bool) -> None:
        fetching = self._fetching.get(tree)
        if fetching is None or digest not in fetching.asked:
            return
        fetching.asked.discard(digest)
        if not is_there:
            self._absent.add(tree)
            self._fetched(tree)
            return
        self._code.put(digest, content)
        if not fetching.asked:
            self._go_on(tree)

    def _fetched(self, tree: str) -> None:
        for then in self._fetching.pop(tree).waiting:
            then()


async def dial(parcel: r.Parcel) -> Link:
    """Connect to the engine, and with TLS make sure that it is the one."""
    secured = ssl.create_default_context(cadata=parcel.authority) if parcel.authority else None
    async with asyncio.timeout(DIAL_SECONDS):
        reader, writer = await asyncio.open_connection(parcel.host, parcel.port, ssl=secured)
    return Link(reader, writer, r.decode_lease)


def code_folder(chosen: str) -> Path:
    """Where trees of code are kept on this node: the same for all leases of this user, until the machine starts again.

    A folder that others could write to is not used: what is in it is run.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        boot = str(os.getpid())
    folder = Path(chosen or tempfile.gettempdir()) / f"upswell-code-{os.getuid()}-{boot}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        return Path(tempfile.mkdtemp(prefix="upswell-code-"))
    return folder


def trust(authority: str) -> None:
    """Have the containers of this process check the server's certificate against these."""
    descriptor = os.memfd_create("authority", 0)
    os.write(descriptor, authority.encode())
    os.environ["UPSWELL_CA"] = f"/proc/{os.getpid()}/fd/{descriptor}"


def main() -> None:
    """Be the lease that standard input describes, on the given node."""
    size = int.from_bytes(os.read(0, 4), "little")
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit(1)
    parcel = r.decode_parcel(data)
    if parcel.authority:
        trust(parcel.authority)
    lease = Lease(parcel, sys.argv[1])
    asyncio.run(lease.serve())
    sys.exit(0)


if __name__ == "__main__":
    main()
