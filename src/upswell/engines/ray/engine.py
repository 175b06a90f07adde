"""The Ray engine: containers on the nodes of a cluster, each below a lease, which is the local engine there.

Ray places leases and says when one is gone; which container goes to which lease is decided here (`stock.py`). Leases
dial the engine, so a container starts and ends by one frame each, and Ray sees nothing of it.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import secrets
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace

from ...capacity import MIB, Capacity
from ...code import CodeStore
from ...engine import CapacityChanged, ContainerDelayed, ContainerExit, ContainerFound, ContainerOutput, Report
from ...errors import InvalidError
from ...spec import FunctionRecord, Gpu
from ...wire.codec import ProtocolError
from . import messages as r
from .link import Link
from .ray_process import RayProcess
from .sizing import Shape, capacity_of
from .stock import Lease, Stock, Wanted, free_of

LOOK_SECONDS = 1.0
MAX_HELLO_BYTES = 64 << 10  # of a frame, before a lease has said which it is
HELLO_SECONDS = 5.0  # who dials and has not said by then which lease it is, is sent away
CLOSE_SECONDS = 5.0
SHOWN = 8  # of a node's id, which has 56 characters
LOST = "its lease {lease} on node {node} was lost"

log = logging.getLogger("upswell.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which cluster it is, and how its nodes reach this engine.

    Leases dial `host`: this machine alone, or with `certificate` and `key` (files) a name or address that the nodes
    know, of which `bind` is the interface here. `grows_to_cpus` and `grows_to_gpus` are what Ray's own autoscaler may
    make of the cluster. `prefix` is that of the leases' names.
    """

    address: str = "auto"
    namespace: str = "upswell"
    prefix: str = "upswell-"
    host: str = "127.0.0.1"
    bind: str = "127.0.0.1"
    certificate: str = ""
    key: str = ""
    grows_to_cpus: float = 0.0
    grows_to_gpus: int = 0
    code: str = ""  # the folder for code on nodes, "" for the usual one


class RayEngine:
    """Starts and ends containers on a Ray cluster. `code_root` is the folder of the trees that environments name."""

    crosses_machines = True

    def __init__(self, cluster: Cluster, code_root: Path | None = None) -> None:
        """Join the cluster, which may take seconds; `ConnectionError` where that fails."""
        if find_spec("ray") is None:
            raise InvalidError("containers on a Ray cluster need Ray: pip install 'upswell[ray]'")
        if not cluster.certificate and cluster.host not in ("127.0.0.1", "localhost"):
            raise InvalidError(f"leases would reach {cluster.host} without TLS: give a certificate and its key")
        self._cluster = cluster
        self._code = CodeStore(code_root.parent, is_shared=True) if code_root is not None else None
        self._stocks: dict[Shape, Stock] = {}
        self._of: dict[str, Stock] = {}  # container → where it waits or is
        self._in: dict[str, Lease] = {}  # ... and the lease in which it is
        self._fresh: set[str] = set()  # containers that were measured since they were sampled
        self._numbers = itertools.count(1)
        self._sending: set[asyncio.Task[None]] = set()  # files of code; held here, as a loop holds its tasks weakly
        self._settling = False
        self._closing = False
        self._ray = RayProcess(cluster.address, cluster.namespace, cluster.prefix)
        self.nodes = self._ray.join()

    async def open(self, address: str, report: Report) -> Sequence[ContainerFound]:
        """Begin; see `Engine`. An earlier engine's leases end with it, so it leaves nothing.

        Raises `InvalidError` where nodes could reach neither this engine nor `address`.
        """
        self._loop = asyncio.get_running_loop()
        self._address = self._reached(address)
        self._report = report
        tls = None
        if self._cluster.certificate:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(self._cluster.certificate, self._cluster.key or None)
        self._server = await asyncio.start_server(self._greet, self._cluster.bind, ssl=tls)
        await self._ray.open(self._nodes_changed, self._lease_gone)
        self._looking = asyncio.create_task(self._look())
        return ()

    def _reached(self, address: str) -> str:
        """The address under which nodes reach what listens at `address` here."""
        kind, network, place = address.partition("://")
        if network:
            host = f"[{self._cluster.host}]" if ":" in self._cluster.host else self._cluster.host
            return f"{kind}://{host}:{place.rpartition(':')[2]}"
        if away := sorted({node.address for node in self.nodes} - {self._ray.here}):
            raise InvalidError(
                f"the cluster has nodes on other machines ({', '.join(away[:3])}), which do not reach this one: serve "
                "with --listen HOST:PORT, --tls-cert, --tls-key and --ray-host, the name that the nodes know it by"
            )
        return address

    def prepare(self, function: FunctionRecord) -> None:
        """Have the function's environment imported where containers of its shape would go first."""
        stock = self._stock(function)
        for lease in stock.leases.values():
            if lease.link is not None and lease.is_there and len(lease.containers) < lease.slots:
                lease.link.send(r.Prepare(_slim(function)))

    def start(self, container: str, token: str, function: FunctionRecord, version: int = 0) -> None:
        """Start a container as soon as a lease has room."""
        stock = self._of[container] = self._stock(function)
        stock.waiting[container] = Wanted(container, token, _slim(function), self._loop.time())
        self._settle_soon()

    def kill(self, container: str) -> None:
        """Kill the container and what it started."""
        stock = self._of.get(container)
        if stock is None:
            return
        if stock.waiting.pop(container, None):
            self._loop.call_soon(self._ended, container, -signal.SIGKILL, "killed before it was started")
        elif (lease := self._in.get(container)) and lease.link is not None:
            lease.link.send(r.KillContainer(container))

    def cpu_seconds(self, container: str) -> float | None:
        """CPU time of the container's process, as last measured."""
        usage = self._usage(container)
        return usage.cpu_seconds if usage is not None and usage.cpu_seconds >= 0 else None

    def sample(self, containers: Sequence[str]) -> list[tuple[str, float]]:
        """CPU time of those that were measured since they were sampled last."""
        fresh = [name for name in containers if name in self._fresh]
        self._fresh.difference_update(fresh)
        return [(name, seconds) for name in fresh if (seconds := self.cpu_seconds(name)) is not None]

    def memory_bytes(self, container: str) -> int | None:
        """The container's share of memory, as last measured."""
        usage = self._usage(container)
        return usage.memory_bytes if usage is not None and usage.memory_bytes >= 0 else None

    def capacity(self) -> Capacity:
        """What the nodes have that are there now, or what the cluster may grow to."""
        return capacity_of(self.nodes, self._cluster.grows_to_cpus, self._cluster.grows_to_gpus)

    async def close(self) -> None:
        """End every container, and give every lease back."""
        self._closing = True
        self._looking.cancel()
        for lease in self._leases():
            if lease.link is not None:
                lease.link.send(r.End())
            else:
                self._ray.send(r.GiveBack(lease.name))
        # Ray says that a lease has ended by itself when its process is gone, and not before.
        deadline = self._loop.time() + CLOSE_SECONDS
        while any(lease.node for lease in self._leases()) and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        for lease in list(self._leases()):
            self._give_back(lease, "the engine was closed")
        for container in list(self._of):
            self._ended(container, -signal.SIGKILL, "killed before it was started")
        await self._ray.close()
        self._server.close()
        await self._server.wait_closed()

    # -- containers --------------------------------------------------------------------------------

    def _settle_soon(self) -> None:
        """Look where containers can go, once for all that happens in this turn of the loop."""
        if not self._settling and not self._closing:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        now = self._loop.time()
        self._give_back_surplus(now)
        for stock in self._stocks.values():
            for lease, wanted in stock.assign(now):
                assert lease.link is not None
                self._in[wanted.container] = lease
                lease.link.send(r.StartContainer(wanted.container, wanted.token, wanted.function))
            if self._ray.is_joined and stock.is_short:
                nodes = free_of(self.nodes, list(self._leases()), now)
                for node, slots in stock.wishes(nodes, now):
                    self._acquire(stock, node, slots)

    def _ended(self, container: str, status: int, reason: str, out_of_memory: bool = False) -> None:
        stock = self._of.pop(container, None)
        if stock is None:
            return
        stock.waiting.pop(container, None)
        if lease := self._in.pop(container, None):
            del lease.containers[container]
            self._fresh.discard(container)
            lease.empty_since = self._loop.time()
        self._report(ContainerExit(container, status, reason, out_of_memory))
        self._settle_soon()

    # -- leases ------------------------------------------------------------------------------------

    def _stock(self, function: FunctionRecord) -> Stock:
        shape = Shape.of(function.spec.resources)
        return self._stocks.setdefault(shape, Stock(shape))

    def _leases(self) -> Iterator[Lease]:
        for stock in self._stocks.values():
            yield from stock.leases.values()

    def _acquire(self, stock: Stock, node: str, slots: int) -> None:
        name, token = f"{next(self._numbers)}-{secrets.token_hex(4)}", secrets.token_hex(16)
        shape = stock.shape
        stock.leases[name] = Lease(name, f"{name}.{token}", shape, slots, self._loop.time(), node)
        host, port = self._cluster.host, self._server.sockets[0].getsockname()[1]
        authority = Path(self._cluster.certificate).read_text() if self._cluster.certificate else ""
        cpus = round(slots * shape.cpus, 4)
        parcel = r.Parcel(host, port, f"{name}.{token}", self._address, cpus, authority, self._cluster.code)
        memory = slots * shape.memory_mib * MIB
        gpus = slots * shape.gpus
        self._ray.send(r.Acquire(name, cpus, memory, r.encode_parcel(parcel), gpus, shape.gpu_kind))

    def _give_back(self, lease: Lease, reason: str) -> None:
        """The lease is not there any more, or is not to be; containers in it are gone with it."""
        if self._stocks[lease.shape].leases.pop(lease.name, None) is None:
            return
        if lease.link is not None:
            lease.link.abort()
        for container in list(lease.containers):
            self._ended(container, -signal.SIGKILL, reason)
        self._ray.send(r.GiveBack(lease.name))
        self._settle_soon()

    def _give_back_surplus(self, now: float) -> None:
        waiting = [stock for stock in self._stocks.values() if stock.waiting]
        for stock in self._stocks.values():
            for lease in stock.surplus(now, others_wait=any(other is not stock for other in waiting)):
                self._give_back(lease, "it was empty")

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody dials: a lease, if it can name itself."""
        link = Link(reader, writer, r.decode_lease)
        link.most_bytes = MAX_HELLO_BYTES
        frames, lease = link.frames(), None
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello, _ = await anext(frames)
            if isinstance(hello, r.Opened) and (lease := self._known(hello)) is not None:
                self._opened(lease, link, hello)
                async for message, _ in frames:
                    self._hear(lease, message)
        except (TimeoutError, StopAsyncIteration):
            pass
        except ProtocolError as error:
            log.warning("a lease was closed: %s", error)
        finally:
            link.abort()
        if lease is not None:
            lease.link = None
            if not self._closing:
                self._give_back(lease, LOST.format(lease=lease.name, node=lease.node[:SHOWN]))

    def _known(self, hello: r.Opened) -> Lease | None:
        if hello.link != r.LINK:
            log.error("a lease on node %s has another version of upswell: install the same everywhere", hello.node)
            return None
        name, shown = hello.token.partition(".")[0], hello.token.encode()
        for lease in self._leases():
            if lease.name == name and lease.link is None and hmac.compare_digest(lease.token.encode(), shown):
                return lease
        return None

    def _opened(self, lease: Lease, link: Link, hello: r.Opened) -> None:
        lease.link, lease.node = link, hello.node
        link.most_bytes = None
        lease.heard_at = lease.empty_since = self._loop.time()
        self._settle_soon()

    def _hear(self, lease: Lease, message: object) -> None:
        lease.heard_at = self._loop.time()
        match message:
            case r.Measured(usages=usages):
                for usage in usages:
                    self._measured(lease, usage)
            case r.Wrote(container=container, stream=stream, text=text) if container in lease.containers:
                self._report(ContainerOutput(container, stream, text))
            case r.Exited(container=container) if container in lease.containers:
                self._ended(container, message.status, message.reason, message.out_of_memory)
            case r.End():
                lease.is_ending = True
            case r.Fetch(tree=tree, digests=digests):
                sending = asyncio.create_task(self._send_files(lease, tree, digests))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)

    def _measured(self, lease: Lease, usage: r.Usage) -> None:
        if usage.container in lease.containers:
            before = lease.containers[usage.container]
            if usage.memory_bytes < 0 and before is not None:
                usage = replace(usage, memory_bytes=before.memory_bytes)
            lease.containers[usage.container] = usage
            self._fresh.add(usage.container)

    def _usage(self, container: str) -> r.Usage | None:
        lease = self._in.get(container)
        return lease.containers.get(container) if lease is not None else None

    async def _send_files(self, lease: Lease, tree: str, digests: list[str]) -> None:
        for digest in digests:
            if lease.link is None:
                return
            if self._code is None or self._code.missing([digest]):
                lease.link.send(r.File(tree, digest, False))
            else:
                lease.link.send(r.File(tree, digest, True), self._code.content(digest))
                await lease.link.drained()

    # -- what Ray says, and what nobody says -------------------------------------------------------

    def _nodes_changed(self, nodes: list[r.Node]) -> None:
        others = {node.id for node in nodes} != {node.id for node in self.nodes}
        self.nodes = nodes
        if others and nodes:  # without a connection to Ray nothing is known of them, and they may well be there
            self._report(CapacityChanged())
        self._settle_soon()

    def _lease_gone(self, gone: r.Gone) -> None:
        """Ray has it no more. Where it could not work, those who waited for it hear why."""
        name, reason = gone.lease, gone.reason
        lease = next((lease for lease in self._leases() if lease.name == name), None)
        if lease is None:
            return
        log.warning("lease %s on node %s is gone: %s", name, lease.node[:SHOWN] or "unknown", reason)
        stock, never_opened = self._stocks[lease.shape], not lease.node
        self._give_back(lease, f"{LOST.format(lease=name, node=lease.node[:SHOWN])}: {reason}")
        if gone.failed and never_opened:
            for container in list(stock.waiting)[: lease.slots]:
                self._ended(container, 1, f"no lease could be had for it: {reason}")

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._loop.time()
            for stock in self._stocks.values():
                for lease in stock.silent(now):
                    self._give_back(lease, f"nothing was heard of its lease {lease.name} on node {lease.node[:SHOWN]}")
                for container, words in stock.complaints(self.nodes, now):
                    self._report(ContainerDelayed(container, words))
            self._settle_soon()


def prefix_of(home: Path) -> str:
    """What the names of the leases of the server with this home begin with, of all servers on a cluster."""
    identity = f"{socket.gethostname()}:{home.absolute()}"
    return f"upswell-{sha256(identity.encode()).hexdigest()[:12]}-"


def _slim(function: FunctionRecord) -> FunctionRecord:
    """What a lease needs of it; the container itself gets the rest from the server. Its GPUs are of the right kind."""
    resources = function.spec.resources
    if resources.gpus:
        resources = replace(resources, gpus=(Gpu(count=resources.gpus[0].count),))
        function = replace(function, spec=replace(function.spec, resources=resources))
    return replace(function, serialized=b"", parameters=b"")
