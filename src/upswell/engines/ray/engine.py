"""The Ray engine: containers on the nodes of a cluster, each below a lease, which is the local engine there.

Ray places leases and says when one is gone; which container goes to which lease is decided here (`stock.py`). Leases
dial the engine, so a container starts and ends by one frame each, and Ray sees nothing of it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace

from ...capacity import MIB, Capacity
from ...code import CodeStore
from ...engine import (
    CapacityChanged,
    ContainerDelayed,
    ContainerExit,
    ContainerFound,
    ContainerOutput,
    Report,
    Reported,
)
from ...errors import InvalidError
from ...spec import FunctionRecord, Gpu
from ...wire.codec import ProtocolError
from ..local import REJOIN_SECONDS
from . import messages as r
from .door import Door
from .link import Link, Session
from .ray_process import RayProcess
from .returning import Returning
from .sizing import Shape, capacity_of
from .stock import Lease, Stock, Wanted, free_of

LOOK_SECONDS = 1.0
CLOSE_SECONDS = 5.0
RETURN_SECONDS = 5.0  # leases of an earlier server, which were looking for this one all the time, have called by then
SHOWN = 8  # of a node's id, which has 56 characters
LOST = "its lease {lease} on node {node} was lost"

log = logging.getLogger("upswell.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which cluster it is, and how its nodes reach this engine.

    With `certificate` and `key` (files) leases dial `host`, a name or address that the nodes know, of which `bind` is
    the interface here; without, all nodes are on this machine. `grows_to_cpus` and `grows_to_gpus` are what Ray's own
    autoscaler may make of the cluster. `prefix` is that of the leases' names.
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
    """Starts and ends containers on a Ray cluster. `code_root` is the folder of the trees that environments name.

    With `home`, the directory of a server, leases and what is in them outlive a server that is killed, and a connection
    that is lost, by `rejoin_seconds`; the engine of the next server with that home goes on with them.
    """

    crosses_machines = True

    def __init__(
        self,
        cluster: Cluster,
        code_root: Path | None = None,
        home: Path | None = None,
        rejoin_seconds: float = REJOIN_SECONDS,
    ) -> None:
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
        self._rejoin_seconds = rejoin_seconds if home is not None else 0.0
        self._life = secrets.token_hex(8)  # what this engine is called, of all that a home has
        self._found: list[ContainerFound] = []
        self._early: list[Reported] | None = []  # reports that wait until this is open
        self._door = Door(home, cluster.host, cluster.bind, cluster.certificate, cluster.key)
        self._ray = RayProcess(cluster.address, cluster.namespace, cluster.prefix)
        self.nodes = self._ray.join()
        self._returning = Returning(self._ray.found, may_return=self._rejoin_seconds > 0)

    async def open(self, address: str, report: Report) -> Sequence[ContainerFound]:
        """Begin; see `Engine`. The caller must hold the home's lock.

        Raises `InvalidError` where nodes could reach neither this engine nor `address`.
        """
        self._loop = asyncio.get_running_loop()
        self._address = self._reached(address)
        self._report = report
        await self._door.open(self._welcome)
        await self._ray.open(self._nodes_changed, self._lease_gone, self._node_missing)
        await self._gather()
        self._looking = asyncio.create_task(self._look())
        self._loop.call_soon(self._report_early)
        found, self._found = self._found, []
        return found

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
        stock.waiting[container] = Wanted(container, token, _slim(function), self._loop.time(), version)
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
        for lease in list(self._leases()):
            if lease.link is not None and lease.link.is_connected:
                lease.link.send(r.End())
            else:
                self._give_back(lease, "the engine was closed")
        # Ray says that a lease has ended by itself when its process is gone, and not before.
        deadline = self._loop.time() + CLOSE_SECONDS
        while any(lease.node for lease in self._leases()) and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        for lease in list(self._leases()):
            self._give_back(lease, "the engine was closed")
        for container in list(self._of):
            self._ended(container, -signal.SIGKILL, "killed before it was started")
        await self._ray.close()
        await self._door.close()

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
                lease.link.send(r.StartContainer(wanted.container, wanted.token, wanted.function, wanted.version))
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
        self._tell(ContainerExit(container, status, reason, out_of_memory))
        self._settle_soon()

    def _tell(self, report: Reported) -> None:
        if self._early is not None:
            self._early.append(report)
        else:
            self._report(report)

    def _report_early(self) -> None:
        early, self._early = self._early, None
        for report in early or ():
            self._report(report)

    # -- leases ------------------------------------------------------------------------------------

    def _stock(self, function: FunctionRecord) -> Stock:
        shape = Shape.of(function.spec.resources)
        return self._stocks.setdefault(shape, Stock(shape))

    def _leases(self) -> Iterator[Lease]:
        for stock in self._stocks.values():
            yield from stock.leases.values()

    def _acquire(self, stock: Stock, node: str, slots: int) -> None:
        name, shape = f"{next(self._numbers)}-{secrets.token_hex(4)}", stock.shape
        stock.leases[name] = Lease(name, shape, slots, self._loop.time(), node)
        cpus = round(slots * shape.cpus, 4)
        parcel = r.Parcel(
            name,
            self._door.token(name),
            self._door.address,
            self._address,
            cpus,
            shape,
            slots,
            self._rejoin_seconds,
            self._door.authority,
            self._cluster.code,
        )
        memory = slots * shape.memory_mib * MIB
        gpus = slots * shape.gpus
        self._ray.send(r.Acquire(name, cpus, memory, r.encode_parcel(parcel), gpus, shape.gpu_kind))

    def _give_back(self, lease: Lease, reason: str) -> None:
        """The lease is not there any more, or is not to be; containers in it are gone with it."""
        if self._stocks[lease.shape].leases.pop(lease.name, None) is None:
            return
        if lease.link is not None:
            lease.link.end()
        for container in list(lease.containers):
            self._ended(container, -signal.SIGKILL, reason)
        self._ray.send(r.GiveBack(lease.name))
        self._settle_soon()

    def _give_back_surplus(self, now: float) -> None:
        waiting = [stock for stock in self._stocks.values() if stock.waiting]
        for stock in self._stocks.values():
            for lease in stock.surplus(now, others_wait=any(other is not stock for other in waiting)):
                self._give_back(lease, "it was empty")

    async def _welcome(self, hello: r.Opened, link: Link) -> bool:
        """A lease calls, for the first time or once more: serve it until the link is gone. Whether it may be one."""
        lease = self._known(hello)
        if lease is None:
            return False
        if lease.link is None:
            lease.link, lease.empty_since = Session(), self._loop.time()
        session = lease.link
        lease.node, lease.heard_at, lease.lost_at = hello.node, self._loop.time(), None
        link.send(r.Taken(self._life, session.received))
        try:
            session.resume(link, hello.received if hello.engine == self._life else 0)
            self._settle_soon()
            async for message, _ in session.frames():
                self._hear(lease, message)
        except ProtocolError as error:
            self._give_back(lease, f"its lease {lease.name} was closed: {error}")
            raise
        finally:
            if session.lose(link):
                self._link_lost(lease, LOST.format(lease=lease.name, node=lease.node[:SHOWN]))
        return True

    def _known(self, hello: r.Opened) -> Lease | None:
        """The lease that this is, unless it is not to be, or not any more."""
        if hello.link != r.LINK:
            log.error("a lease on node %s has another version of upswell: install the same everywhere", hello.node)
            return None
        stock = self._stocks.setdefault(hello.shape, Stock(hello.shape))
        if lease := stock.leases.get(hello.lease):
            return lease
        if not self._returning.lets_in(hello, self._address):
            return None
        lease = stock.leases[hello.lease] = Lease(hello.lease, hello.shape, hello.slots, self._loop.time(), "")
        self._ray.keep(lease.name)
        return lease

    def _link_lost(self, lease: Lease, reason: str) -> None:
        """It may come back, unless it has said that it ends."""
        if self._closing or self._stocks[lease.shape].leases.get(lease.name) is not lease:
            return
        if lease.is_ending or not self._rejoin_seconds:
            self._give_back(lease, reason)
        elif lease.lost_at is None:
            log.warning("%s; it has %g s to come back", reason, self._rejoin_seconds)
            lease.lost_at = self._loop.time()
            self._ray.send(r.Probe(lease.node))

    def _hear(self, lease: Lease, message: object) -> None:
        lease.heard_at = self._loop.time()
        match message:
            case r.Holds(containers=containers):
                self._holds(lease, containers)
            case r.Measured(usages=usages):
                for usage in usages:
                    self._measured(lease, usage)
            case r.Wrote(container=container, stream=stream, text=text) if container in lease.containers:
                self._tell(ContainerOutput(container, stream, text))
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
            if lease.name not in self._stocks[lease.shape].leases or lease.link is None:
                return
            await lease.link.room()
            if self._code is None or self._code.missing([digest]):
                lease.link.send(r.File(tree, digest, False))
            else:
                lease.link.send(r.File(tree, digest, True), self._code.content(digest))

    # -- leases of an earlier engine ---------------------------------------------------------------

    async def _gather(self) -> None:
        """Go on with the leases that return, which call by themselves, and let Ray have the others."""
        for name in self._returning.unwanted:
            self._ray.send(r.GiveBack(name))
        deadline = self._loop.time() + RETURN_SECONDS
        while not self._returning.is_complete and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        for name in self._returning.end():
            log.warning("lease %s of an earlier server does not call, and is given back", name)
            self._forget(name)

    def _holds(self, lease: Lease, containers: list[r.Held]) -> None:
        """It has said what is in it; but for a lease of an earlier engine that is nothing."""
        if not self._returning.counted(lease.name):
            return
        stock = self._stocks[lease.shape]
        for one in containers:
            lease.containers[one.container] = None
            self._of[one.container], self._in[one.container] = stock, lease
            self._found.append(ContainerFound(one.container, one.token, one.function, one.version))

    def _forget(self, name: str) -> None:
        """The lease of an earlier engine is not to be."""
        for stock in self._stocks.values():
            if lease := stock.leases.get(name):
                self._give_back(lease, "it does not answer")
                return
        self._ray.send(r.GiveBack(name))

    # -- what Ray says, and what nobody says -------------------------------------------------------

    def _nodes_changed(self, nodes: list[r.Node]) -> None:
        others = {node.id for node in nodes} != {node.id for node in self.nodes}
        self.nodes = nodes
        if others and nodes:  # without a connection to Ray nothing is known of them, and they may well be there
            self._tell(CapacityChanged())
        self._settle_soon()

    def _lease_gone(self, gone: r.Gone) -> None:
        """Ray has it no more. Where it could not work, those who waited for it hear why."""
        name, reason = gone.lease, gone.reason
        self._returning.gone(name)
        lease = next((lease for lease in self._leases() if lease.name == name), None)
        if lease is None:
            return
        log.warning("lease %s on node %s is gone: %s", name, lease.node[:SHOWN] or "unknown", reason)
        stock, never_opened = self._stocks[lease.shape], not lease.node
        self._give_back(lease, f"{LOST.format(lease=name, node=lease.node[:SHOWN])}: {reason}")
        if gone.failed and never_opened:
            for container in list(stock.waiting)[: lease.slots]:
                self._ended(container, 1, f"no lease could be had for it: {reason}")

    def _node_missing(self, node: str) -> None:
        for lease in list(self._leases()):
            if lease.node == node and lease.lost_at is not None:
                self._give_back(lease, f"{LOST.format(lease=lease.name, node=node[:SHOWN])}: the node is gone")

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._loop.time()
            for stock in self._stocks.values():
                for lease in stock.silent(now):
                    assert lease.link is not None
                    lease.link.lose()
                    self._link_lost(lease, f"nothing was heard of its lease {lease.name} on node {lease.node[:SHOWN]}")
                for node in {lease.node for lease in stock.leases.values() if lease.lost_at is not None}:
                    self._ray.send(r.Probe(node))
                for lease in stock.lost(now, self._rejoin_seconds):
                    self._give_back(lease, LOST.format(lease=lease.name, node=lease.node[:SHOWN]))
                for container, words in stock.complaints(self.nodes, now):
                    self._tell(ContainerDelayed(container, words))
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
