"""A server with a home as a process that can be killed, an app whose inputs wait for a word, and a client of it."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.pretended import PretendedCluster
from tests.server.stage import Peer
from upswell.spec import AutoscalerSettings, Concurrency, Environment, FunctionRecord, FunctionSpec
from upswell.wire import messages as m
from upswell.wire.payload import BARE, pack, unpack

MARK = "UPSWELL_TEST_HOME"
PATIENT = Path(__file__).with_name("patient.py")
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.01

CODE = """
    import asyncio, os, sys, time
    import upswell

    app = upswell.App("kept")

    def begun(x):
        with open("begun", "a") as file:
            print(x, os.getpid(), file=file)

    @app.function()
    def wait(x):
        '''Until it is told to go on.'''
        begun(x)
        while not os.path.exists(f"go-{x}") and not os.path.exists("go"):
            time.sleep(0.005)
        return x, os.getpid()

    @app.function()
    async def wait_async(x):
        begun(x)
        while not os.path.exists(f"go-{x}") and not os.path.exists("go"):
            await asyncio.sleep(0.005)
        return x, os.getpid()

    @app.function()
    def large(x):
        begun(x)
        while not os.path.exists("go"):
            time.sleep(0.005)
        return bytearray(1 << 20) + bytes([x])

    @app.function()
    def quick(x):
        begun(x)
        return x * x

    @app.function()
    def nap(x):
        begun(x)
        time.sleep(0.02)
        return x

    @app.function()
    @upswell.batched(max_batch_size=3, wait_ms=200)
    def together(x):
        for one in x:
            begun(one)
        while not os.path.exists("go"):
            time.sleep(0.005)
        return [(one, os.getpid()) for one in x]
"""


class KeptServer:
    """Servers of one home, one after the other."""

    def __init__(
        self,
        folder: Path,
        engine: str = "local",
        rejoin_seconds: float = PATIENCE_SECONDS / 2,
        options: Sequence[str] = (),
        cluster: str = "",
    ) -> None:
        """With the engine `ray` on that cluster, or else on one that is pretended."""
        self.is_patient = True  # it waits for containers of the one before for longer than a server usually does
        self.folder = folder
        self.home = folder / "home"
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[bytes] | None = None
        self._engine = engine
        self.rejoin_seconds = rejoin_seconds
        self._peers: list[Peer] = []
        self._requests = 0
        self._options = list(options)
        self._variables: dict[str, str] = {}
        self.cluster: PretendedCluster | None = None
        if engine == "ray":
            self.cluster = None if cluster else PretendedCluster(folder / "cluster", 2, 2)
            self._options += ["--ray-address", self.cluster.address if self.cluster else cluster]
            self._variables = self.cluster.environment() if self.cluster else {}
        (folder / "code.py").write_text(textwrap.dedent(CODE))

    async def start(self) -> Peer:
        """Start a server; a client of it, once it answers."""
        self.process = subprocess.Popen(self._command(), env=self._environment())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    stream.connect(str(self.home / "server.sock"))
                    break
                except OSError:
                    stream.close()
                    await asyncio.sleep(LOOK_SECONDS)
        peer = Peer(stream)
        self._peers.append(peer)
        await peer.send(m.Hello(m.PROTOCOL, "client", "", os.getpid()))
        await peer.expect(m.Welcome)
        return peer

    def _command(self) -> list[str]:
        options = ["--home", str(self.home), "--engine", self._engine, "--rejoin-seconds", str(self.rejoin_seconds)]
        program = [str(PATIENT)] if self.is_patient else ["-m", "upswell.server"]
        return [sys.executable, "-P", *program, *options, *self._options]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self._variables, MARK: self.mark}

    def refused_second(self) -> int:
        """How another server ends that is started while the first one runs."""
        second = subprocess.run(
            self._command(), env=self._environment(), stderr=subprocess.DEVNULL, timeout=PATIENCE_SECONDS, check=False
        )
        return second.returncode

    def kill(self) -> None:
        """End the server as nothing else could."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def again(self) -> Peer:
        """Kill the server, and start the next."""
        self.kill()
        return await self.start()

    async def deploy(self, peer: Peer, name: str, most: int = 1, others: Sequence[str] = (), **concurrency: int) -> str:
        """Serve this function of the code, whose id is returned, and others that are like it."""
        environment = Environment(
            kind="script",
            origin=str(self.folder / "code.py"),
            module="code",
            main=False,
            sys_path=tuple(sys.path),
            directory=str(self.folder),
        )
        settings = AutoscalerSettings(max_containers=most, scaledown_window=60)
        spec = FunctionSpec(settings=settings, concurrency=Concurrency(**concurrency))
        records = tuple(
            FunctionRecord(id=f"ap-1/{one}", app_name="kept", name=one, spec=spec, environment=environment)
            for one in (name, *others)
        )
        self._requests += 1
        await peer.send(m.Deploy(self._requests, "ap-1", "kept", records, ()))
        deployed, _ = await peer.expect(m.Deployed)
        assert deployed.error is None
        return f"{deployed.app}/{name}"

    async def spawn(self, peer: Peer, function: str, inputs: list[Any], call: str = "fc-1") -> None:
        """Inputs that are kept when this returns."""
        payload = pack(inputs, shape=BARE).data
        await peer.send(m.Submit(call, function, "spawn", 0, len(inputs), True), payload=payload)
        await peer.expect(m.Accepted)

    async def outcomes(self, peer: Peer, count: int, call: str = "fc-1") -> dict[int, Any]:
        """What became of so many inputs, by position. What is told while it is asked for may be told again, also later,
        when another call is asked for.
        """
        found: dict[int, Any] = {}
        await peer.send(m.Collect(call, 0, -1))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found) < count and (frame := await peer.receive()):
                match frame[0]:
                    case m.Outputs(call=told, first=first, buffers=buffers) if told == call:
                        for position, value in enumerate(unpack(frame[1], buffers), first):
                            assert found.setdefault(position, value) == value
                    case m.Failed(call=told, first=first, count=many, error=error) if told == call:
                        found.update(dict.fromkeys(range(first, first + many), error))
        return found

    def kill_one(self, kind: str, chance: random.Random) -> None:
        """Kill the server, or one of what it has started, if there is one just now."""
        if kind == "server":
            self.kill()
            return
        containers = {}  # with their zygotes and those' root
        for _, number in self.begun():
            try:
                container = psutil.Process(number)
                containers[number] = [container, *container.parents()[:2]]
            except psutil.Error:
                continue
        if containers:
            family = containers[chance.choice(sorted(containers))]
            victim = dict(zip(("container", "zygote", "root"), family, strict=False)).get(kind)
            if victim is not None and victim.pid != os.getpid() and victim in self.processes():
                with suppress(psutil.NoSuchProcess):  # it has ended with the one before
                    victim.kill()

    async def start_again_if_killed(self, client: Peer) -> Peer:
        """A client of the server that runs, or else of the next one."""
        assert self.process is not None
        return client if self.process.poll() is None else await self.start()

    def begun(self) -> list[tuple[int, int]]:
        """Inputs that have begun, and their containers' processes, in order."""
        path = self.folder / "begun"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    async def until_begun(self, count: int) -> list[tuple[int, int]]:
        """Wait until so many inputs have begun."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.begun()) < count:
                await asyncio.sleep(LOOK_SECONDS)
        return self.begun()

    def go(self, *inputs: int) -> None:
        """Let these inputs end, or all."""
        for name in [f"go-{one}" for one in inputs] or ["go"]:
            (self.folder / name).touch()

    def processes(self) -> list[psutil.Process]:
        """All that was started by servers of this home, and still is there."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    async def only_left(self, these: Set[psutil.Process] = frozenset()) -> None:
        """Wait until no process is left but these: a root ends a moment after its server."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not set(self.processes()) <= these:
                await asyncio.sleep(5 * LOOK_SECONDS)

    async def stop(self) -> None:
        """End it in good order; nothing is left then."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()
                self.process.wait(PATIENCE_SECONDS)
            await self.only_left()
        finally:
            for process in self.processes():
                process.kill()
            if self.cluster is not None:
                self.cluster.close()
