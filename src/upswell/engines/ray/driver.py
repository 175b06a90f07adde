"""The process that speaks to Ray for the engine: `python -m upswell.engines.ray.driver DESCRIPTOR`.

It is one of its own, as whoever is connected to Ray dies with Ray's head. It asks for leases, gives them back, and says
when one is gone and what the nodes have. It decides nothing, and no input, output or log passes here.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections import deque
from time import monotonic
from typing import Any, NoReturn

import ray
import ray.util

from ...wire.codec import Decoder, encode
from . import messages as r

LOOK_SECONDS = 0.1  # how soon it is known that a lease is gone
NODES_SECONDS = 0.5
PACKET_BYTES = 64 << 10
JOIN_SECONDS = 60  # Ray's own patience with a cluster that does not answer is longer
FAREWELL_SECONDS = 30.0
KIND, KIND_SHARE = "accelerator_type:", 0.001  # a node has one of each kind of its GPUs, of which no one needs much
PROBE_SECONDS = 1.0


class Holder:
    """The actor whose resources are those of a lease. It holds them while the lease's process runs."""

    def hold(self, parcel: bytes) -> None:
        """Run the lease on this node, in a process of its own: this one has threads, which forking does not survive."""
        cpus = r.decode_parcel(parcel).cpus
        node = ray.get_runtime_context().get_node_id()
        # It ends when its standard input does, however this process ends.
        lease = subprocess.Popen(
            [sys.executable, "-P", "-m", "upswell.engines.ray.lease", node],
            stdin=subprocess.PIPE,
            env=environment(dict(os.environ), cpus),
            cwd="/",
            start_new_session=True,
        )
        assert lease.stdin is not None
        try:
            lease.stdin.write(len(parcel).to_bytes(4, "little") + parcel)
            lease.stdin.flush()
        except BrokenPipeError:
            pass
        if status := lease.wait():
            threading.Timer(FAREWELL_SECONDS, os._exit, (1,)).start()  # where nobody is there any more to hear of it
            raise RuntimeError(f"the lease's process on this node ended with status {status}: see Ray's worker log")
        ray.actor.exit_actor()

    def end(self) -> None:
        """Return after `hold`: its turn comes then."""


def environment(here: dict[str, str], cpus: float) -> dict[str, str]:
    """The environment for containers: without what Ray sets for its own workers."""
    ours = {name: value for name, value in here.items() if not name.startswith("RAY_")}
    if ours.get("OMP_NUM_THREADS") == str(max(1, int(cpus))):
        del ours["OMP_NUM_THREADS"]  # set by Ray, for one process that has all of the lease
    return ours


class Driver:
    """What is asked of Ray, and what it has answered."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._decoder = Decoder(r.decode_driver)
        self._leases: dict[Any, str] = {}  # reference to the end of `hold` → lease
        self._actors: dict[str, Any] = {}
        self._probed: set[str] = set()  # nodes that are looked for just now
        self._missing: deque[str] = deque()  # ... and were not found
        self._nodes: list[r.Node] | None = None
        self._nodes_at = 0.0

    def run(self) -> NoReturn:
        """Serve until the engine is gone."""
        while not ray.is_initialized():
            for message in self._receive():
                self._obey(message)
        while True:
            self._tell_nodes()
            if select.select([self._link], [], [], LOOK_SECONDS)[0]:
                for message in self._receive():
                    self._obey(message)
            self._look()

    def _receive(self) -> list[Any]:
        try:
            data = self._link.recv(PACKET_BYTES)
        except ConnectionResetError:  # the engine is gone without having read all that it was told
            data = b""
        if not data:
            ray.shutdown()
            os._exit(0)
        return [message for message, _ in self._decoder.feed(data)]

    def _send(self, message: r.DriverMessage) -> None:
        try:
            self._link.sendall(encode(message))
        except OSError:
            pass  # the engine is gone, and may have said what is to be done before that

    def _join(self, join: r.Join) -> None:
        try:
            ray.init(
                address=join.address,
                namespace=join.namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
            self._prefix = join.prefix
            for name in ray.util.list_named_actors():
                if name.startswith(join.prefix):
                    self._find(name.removeprefix(join.prefix), join.held)
        except Exception as error:
            self._send(r.NotJoined(f"{type(error).__name__}: {error}"))
            os._exit(1)

        for lease in join.held:
            if lease not in self._actors:
                self._send(r.Gone(lease, "it ended while there was no connection to Ray"))

    def _find(self, lease: str, held: list[str]) -> None:
        """A lease that another process than this one has asked for."""
        actor = self._actors[lease] = ray.get_actor(self._prefix + lease)
        self._leases[actor.end.remote()] = lease
        if lease not in held:
            self._send(r.Found(lease, has_begun(actor)))

    def _obey(self, message: r.DriverMessage) -> None:
        match message:
            case r.Join():  # first
                self._join(message)
            case r.Acquire(lease=lease, cpus=cpus, memory_bytes=memory, parcel=parcel, gpus=gpus, gpu_kind=kind):
                options: dict[str, Any] = {"memory": memory} if memory else {}
                if kind:
                    options["resources"] = {KIND + kind: KIND_SHARE}
                actor = (
                    ray.remote(Holder)
                    .options(
                        name=self._prefix + lease,
                        lifetime="detached",
                        max_restarts=0,
                        max_task_retries=0,
                        num_cpus=cpus,
                        num_gpus=gpus,
                        **options,
                    )
                    .remote()
                )
                self._actors[lease] = actor
                self._leases[actor.hold.remote(parcel)] = lease
            case r.Probe(node=node):
                self._probe(node)
            case r.GiveBack(lease=lease):
                if actor := self._actors.pop(lease, None):
                    ray.kill(actor)
                    self._leases = {end: name for end, name in self._leases.items() if name != lease}
                self._send(r.Gone(lease, ""))

    def _probe(self, name: str) -> None:
        """Look whether the node is there, in a thread of its own: silence takes its time."""
        for node in ray.nodes():
            if node["NodeID"] == name and node["Alive"] and name not in self._probed:
                self._probed.add(name)
                place = (node["NodeManagerAddress"], node["NodeManagerPort"])
                threading.Thread(target=self._knock, args=(name, place), daemon=True).start()

    def _knock(self, name: str, place: tuple[str, int]) -> None:
        if refuses(place):
            self._missing.append(name)
        self._probed.discard(name)

    def _look(self) -> None:
        """See which leases have ended by themselves, and which nodes that were looked for are gone."""
        while self._missing:
            self._send(r.Missing(self._missing.popleft()))
        if not self._leases:
            return
        ended, _ = ray.wait(list(self._leases), num_returns=len(self._leases), timeout=0)
        for end in ended:
            lease = self._leases.pop(end)
            reason, failed = "it ended by itself", False
            try:
                ray.get(end)
            except ray.exceptions.RayError as error:
                reason, failed = in_words(error), isinstance(error, ray.exceptions.RayTaskError)
            ray.kill(self._actors.pop(lease))
            self._send(r.Gone(lease, reason, failed))

    def _tell_nodes(self) -> None:
        """Say what the nodes have, where it is another than was said."""
        if self._nodes is not None and monotonic() < self._nodes_at + NODES_SECONDS:
            return
        self._nodes_at = monotonic()
        nodes = nodes_now()
        if nodes != self._nodes:
            self._nodes = nodes
            self._send(r.Nodes(nodes, ray.util.get_node_ip_address()))


def has_begun(actor: Any) -> bool:
    """Whether Ray has found a node for it."""
    return bool(ray._private.state.actors(actor._actor_id.hex()).get("State") == "ALIVE")


def refuses(place: tuple[str, int]) -> bool:
    """Whether a machine says that nobody listens there any more. Silence says nothing."""
    try:
        socket.create_connection(place, PROBE_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def nodes_now() -> list[r.Node]:
    """The nodes that live, with what Ray says is free of them."""
    free = ray._private.state.available_resources_per_node()
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            has, left = node["Resources"], free.get(node["NodeID"], {})
            nodes.append(
                r.Node(
                    node["NodeID"],
                    node["NodeManagerAddress"],
                    has.get("CPU", 0.0),
                    int(has.get("memory", 0)),
                    left.get("CPU", 0.0),
                    int(left.get("memory", 0)),
                    int(has.get("GPU", 0)),
                    int(left.get("GPU", 0)),
                    tuple(sorted(name.removeprefix(KIND) for name in has if name.startswith(KIND))),
                )
            )
    return nodes


def in_words(error: Exception) -> str:
    """What Ray says of the end of an actor, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("class_name:", "actor_id:", "pid:", "name:", "namespace:"))]
    return " ".join(said)[:1000]


if __name__ == "__main__":
    # The class is to be known by its module, which nodes have, and not as one of `__main__`.
    from upswell.engines.ray import driver

    driver.Driver(socket.socket(fileno=int(sys.argv[1]))).run()
