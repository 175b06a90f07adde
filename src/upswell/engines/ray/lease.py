"""A lease: the local engine on a node, at the end of a connection to the engine of the server.

`python -m upswell.engines.ray.lease NODE` reads its parcel from standard input, and ends with that. When the
connection is lost it looks for that engine, or the next one of its home, for as long as the parcel says, and what it
holds runs on; then every container here ends too. Code that the node lacks it fetches over the connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...code import CodeStore
from ...engine import ContainerExit, ContainerOutput, Reported
from ...errors import Error
from ...spec import FunctionRecord
from ...wire.codec import ProtocolError
from ...wire.network import split_address
from ..local import LocalEngine
from . import messages as r
from .link import Link, Session

DIAL_SECONDS = 20.0  # that the engine may take to answer the first time
TRY_SECONDS, PAUSE_SECONDS = 5.0, 0.2  # ... and later, of which there are several tries
SILENCE_SECONDS = 10.0  # what was said and is not acknowledged by then will not be: the connection is lost
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
        self._engine = LocalEngine(self._code.trees, rejoin_seconds=parcel.rejoin_seconds)
        self._containers: dict[str, r.Held] = {}  # those that the local engine knows
        self._early: set[str] = set()  # those that wait for their code
        self._fetching: dict[str, Fetching] = {}
        self._absent: set[str] = set()  # trees that the engine lacks too
        self._turns = 0

    async def serve(self) -> None:
        """Serve until the holder of this lease is gone, or the engine says `End` or is gone for long."""
        self._session = Session()
        self._life = ""  # the engine that it was connected with last
        let_go = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, let_go.set)  # nothing comes there any more but its end
        await self._engine.open(self._parcel.containers_dial, self._report)
        measuring = asyncio.create_task(self._measure())
        ends = [asyncio.create_task(let_go.wait()), asyncio.create_task(self._converse())]
        ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        measuring.cancel()
        self._session.send(r.End())
        await self._engine.close()
        await self._session.close()
        for one in ends:
            one.cancel()
        for one in ended:
            one.result()  # raises what it has ended by

    # -- the connection ----------------------------------------------------------------------------

    async def _converse(self) -> None:
        """Do as the engine says, this one or the next, until it says `End` or there has been none for too long."""
        patience = max(DIAL_SECONDS, self._parcel.rejoin_seconds)
        while link := await self._call(patience):
            async for message, payload in self._session.frames():
                if isinstance(message, r.End):
                    return
                self._obey(message, payload)
            self._session.lose(link)
            patience = self._parcel.rejoin_seconds

    async def _call(self, patience: float) -> Link | None:
        """Be connected; `None` where that can't be for so long, or is not wanted."""
        loop = asyncio.get_running_loop()
        deadline, is_first = loop.time() + patience, not self._life
        while is_first or loop.time() < deadline:
            try:
                async with asyncio.timeout(DIAL_SECONDS if is_first else TRY_SECONDS):
                    link = await dial(self._parcel)
                    answer = await self._greet(link)
                if isinstance(answer, r.Taken):
                    self._begin(link, answer)
                    return link
                link.abort()
                if isinstance(answer, r.End):
                    return None
                raise ConnectionResetError("the engine has closed the connection, as one that does not know this lease")
            except ssl.SSLCertVerificationError:
                raise
            except OSError:  # a `TimeoutError` among them
                if is_first and (not self._parcel.rejoin_seconds or loop.time() >= deadline):
                    raise
            await asyncio.sleep(PAUSE_SECONDS)
        return None

    async def _greet(self, link: Link) -> object:
        """Say who this is; what the engine answers, if it does."""
        parcel = self._parcel
        link.send(
            r.Opened(
                r.LINK,
                parcel.lease,
                parcel.token,
                self._node,
                parcel.containers_dial,
                parcel.shape,
                parcel.slots,
                self._life,
                self._session.received,
            )
        )
        async for message, _ in link.frames():
            return message
        return None

    def _begin(self, link: Link, taken: r.Taken) -> None:
        """Go on over this link with the same engine, or begin with another, which has yet to hear what there is."""
        if taken.engine == self._life:
            self._session.resume(link, taken.received)
            return
        self._life = taken.engine
        meanwhile = self._session.begin(link)
        self._early.clear()  # it will ask for what it wants
        self._session.send(r.Holds(list(self._containers.values())))
        for message, _ in meanwhile:
            if isinstance(message, r.Wrote) and message.container in self._containers:
                self._session.send(message)
        for tree in list(self._fetching):
            self._fetching[tree].asked.clear()
            self._go_on(tree)

    def _obey(self, message: object, payload: memoryview) -> None:
        match message:
            case r.Prepare(function=function):
                self._with_code(function, lambda: self._engine.prepare(function))
            case r.StartContainer(container=container, function=function):
                self._early.add(container)
                self._with_code(function, lambda: self._start(message))
            case r.KillContainer(container=container):
                self._kill(container)
            case r.File(tree=tree, digest=digest, is_there=is_there):
                self._take(tree, digest, payload, is_there)
            case _:
                raise ProtocolError(f"an engine does not send {type(message).__name__}")

    def _start(self, wanted: r.StartContainer) -> None:
        container, token, function, version = wanted.container, wanted.token, wanted.function, wanted.version
        if container in self._early:
            self._early.discard(container)
            self._containers[container] = r.Held(container, token, function.id, version)
            self._engine.start(container, token, function, version)

    def _kill(self, container: str) -> None:
        if container in self._early:
            self._report(ContainerExit(container, -9, "killed before it was started"))
        else:
            self._engine.kill(container)

    def _report(self, report: Reported) -> None:
        match report:
            case ContainerOutput(container=container, stream=stream, text=text):
                if self._session.is_connected or not self._session.is_full:
                    self._session.send(r.Wrote(container, stream, text))
            case ContainerExit(container=container):
                self._early.discard(container)
                self._containers.pop(container, None)
                self._session.send(r.Exited(container, report.status, report.reason, report.out_of_memory))

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
            if self._session.is_connected:
                self._session.send(r.Measured(usages))
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
                self._session.send(r.Fetch(tree, lacking))
                return
            self._code.make(tree)
        except (Error, OSError) as error:
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
    """Connect to the engine, and with TLS make sure that it is the one; `OSError` where it can't be done."""
    kind, _, place = parcel.engine_dial.partition(":")
    if kind == "unix":
        reader, writer = await asyncio.open_unix_connection(place.replace("@", "\0", 1) if place[0] == "@" else place)
        return Link(reader, writer, r.decode_lease)
    found = split_address(place.removeprefix("//"))
    assert found is not None
    trusted = ssl.create_default_context(cadata=parcel.authority)
    reader, writer = await asyncio.open_connection(*found, ssl=trusted)
    # There is something to say all the time, so that it is noticed when nothing passes any more.
    stream = writer.get_extra_info("socket")
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_SECONDS))
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
