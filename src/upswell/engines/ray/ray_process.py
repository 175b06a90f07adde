"""The engine's end of the process that speaks to Ray (`driver.py`). One that ends is replaced; the leases stay."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from ...errors import ConnectionError
from ...wire.codec import Decoder, encode
from . import messages as r
from .link import Link

JOIN_SECONDS = 30.0
AGAIN_SECONDS = 5.0  # between attempts to join the cluster again
EXIT_SECONDS, LOOK_SECONDS = 5.0, 0.02

log = logging.getLogger("upswell.engine")


class RayProcess:
    """Starts the process, and starts it again."""

    def __init__(self, address: str, namespace: str, prefix: str) -> None:
        self._join = r.Join(address, namespace, prefix, [])
        self._held: dict[str, None] = {}  # leases that Ray has been asked for and not given back
        self._link: Link | None = None
        self.is_joined = False  # the cluster has answered
        self.here = ""  # the address of this node
        self._is_behind = False  # Ray has not been told of everything
        self.found: list[r.Found] = []  # leases of an earlier engine
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "upswell.engines.ray.driver", str(theirs.fileno())]
        quiet = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # else Ray warns of what a later version will do
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**quiet, **os.environ},
            start_new_session=True,
        )
        theirs.close()
        self._socket = ours
        ours.sendall(encode(self._join))

    def join(self) -> list[r.Node]:
        """Wait for the nodes; `ConnectionError` where the cluster can't be joined."""
        decoder, deadline = Decoder(r.decode_driver), time.monotonic() + JOIN_SECONDS
        said: list[object] = []
        while not said or isinstance(said[-1], r.Found) or decoder.unfinished:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                self._process.kill()
                data = b""
            if not data:
                break
            said += [message for message, _ in decoder.feed(data)]
        nodes = said[-1] if said else None
        if not isinstance(nodes, r.Nodes):
            self._process.wait()
            self._socket.close()
            why = nodes.reason if isinstance(nodes, r.NotJoined) else f"it did not answer within {JOIN_SECONDS:g} s"
            raise ConnectionError(
                f"the Ray cluster at {self._join.address!r} can't be joined: {why} (this machine must be one of its "
                "nodes: `ray start --address=HOST:6379 --num-cpus=0` makes it one without work)"
            )
        self.here, self.is_joined = nodes.here, True
        self.found = [one for one in said if isinstance(one, r.Found)]
        return nodes.nodes

    async def open(
        self,
        nodes: Callable[[list[r.Node]], None],
        gone: Callable[[r.Gone], None],
        missing: Callable[[str], None],
    ) -> None:
        """From now on call these on the loop: with the nodes that are there, with each lease that Ray has lost, and
        with nodes that were asked for and are gone.
        """
        self._nodes, self._gone, self._missing = nodes, gone, missing
        await self._connect()
        self._serving = asyncio.create_task(self._serve())

    async def _connect(self) -> None:
        self._socket.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._socket)
        self._link = Link(reader, writer, r.decode_driver)

    def send(self, message: r.Acquire | r.GiveBack | r.Probe) -> None:
        """Ask for a lease, give one back, or ask whether a node is there."""
        if isinstance(message, r.Acquire):
            self._held[message.lease] = None
        elif isinstance(message, r.GiveBack):
            self._held.pop(message.lease, None)
        if self._link is not None:
            self._link.send(message)
        else:
            self._is_behind = True  # the next process finds what it must know

    def keep(self, lease: str) -> None:
        """Go on with a lease that was found."""
        self._held[lease] = None

    async def _serve(self) -> None:
        while True:
            assert self._link is not None
            async for message, _ in self._link.frames():
                match message:
                    case r.Nodes(nodes=nodes):
                        self.is_joined, self._is_behind = True, False
                        self._nodes(nodes)
                    case r.Gone(lease=lease) if lease in self._held:
                        self._gone(message)
                    case r.Missing(node=node):
                        self._missing(node)
                    case r.Found(lease=lease):  # it was given back while nobody could tell Ray
                        self._link.send(r.GiveBack(lease))
                    case r.NotJoined(reason=reason):
                        log.error("the Ray cluster can't be joined: %s", reason)
            self._link.abort()
            await asyncio.to_thread(self._process.wait)
            log.error("the connection to Ray was lost; leases that live go on. Joining again in %g s", AGAIN_SECONDS)
            self._link, self.is_joined = None, False
            self._nodes([])
            await asyncio.sleep(AGAIN_SECONDS)
            self._join = r.Join(self._join.address, self._join.namespace, self._join.prefix, list(self._held))
            self._start()
            await self._connect()

    async def close(self) -> None:
        """Wait until Ray was told what is given back, or can't be told, and end the process."""
        for _ in range(int(EXIT_SECONDS / LOOK_SECONDS)):
            if not self._is_behind:
                break
            await asyncio.sleep(LOOK_SECONDS)
        self._serving.cancel()
        if self._link is not None:
            await self._link.close()
        try:
            await asyncio.to_thread(self._process.wait, EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
