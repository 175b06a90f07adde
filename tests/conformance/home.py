"""Where containers of an engine under test dial: it takes their calls, and has them run functions of a module."""

import asyncio
import itertools
import os
import secrets
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from upswell.engine import ContainerDelayed, ContainerExit, ContainerFound, ContainerOutput, Engine, Reported
from upswell.spec import Concurrency, Environment, FunctionRecord, FunctionSpec, Resources
from upswell.wire import messages as m
from upswell.wire.codec import Decoder, encode
from upswell.wire.payload import BARE, pack, unpack, unpack_exception

PATIENCE_SECONDS = 60.0
T = TypeVar("T")


async def soon(happens: Awaitable[T]) -> T:
    """What happens, if it does in time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await happens


async def until_seen(condition: Callable[[], T]) -> T:
    """Wait for what only looking tells; returns it."""

    async def look() -> T:
        while not (result := condition()):
            await asyncio.sleep(0.005)
        return result

    return await soon(look())


async def ended(process: int) -> None:
    """Wait for the end of a process that need not be ours."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await soon(done.wait())
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


class Container:
    """A container that has called home."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = 0
        self.loaded = False  # it knew what it is without being told
        self.start_error: BaseException | None = None
        self.failure: m.Failure | None = None  # of the last `run`
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._frames: list[tuple[m.Message, bytes]] = []
        self._ranges = itertools.count(1)

    async def receive(self) -> tuple[m.Message, bytes]:
        while not self._frames:
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError("the container has closed its connection")
            self._frames += [(message, bytes(payload)) for message, payload in self._decoder.feed(data)]
        return self._frames.pop(0)

    def send(self, message: m.Message, payload: bytes = b"") -> None:
        self._writer.write(encode(message, payload))

    def send_together(self, frames: Iterable[tuple[m.Message, bytes]]) -> None:
        """The container reads all of them at once."""
        self._writer.write(b"".join(encode(message, payload) for message, payload in frames))

    def begin(self, value: object = None) -> int:
        """Have the function run on the value; its range."""
        number = next(self._ranges)
        self.send(m.Assign(number, "fc-1", number, 1, number, number + 1), pack([value], shape=BARE).data)
        return number

    async def run(self, value: object = None) -> Any:
        """What the function returns for the value; raises what it raises."""
        number = self.begin(value)
        while True:
            message, payload = await soon(self.receive())
            if isinstance(message, m.Results) and message.range == number:
                return unpack(payload)[0]
            if isinstance(message, m.Failure) and message.range == number:
                self.failure = message
                raise unpack_exception(message.error, payload)

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass


class Home:
    """The server's part, as far as an engine knows it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.exits: list[ContainerExit] = []
        self.written: list[ContainerOutput] = []
        self.delays: list[ContainerDelayed] = []
        self.found: list[ContainerFound] = []
        self.address = f"unix:@upswell-test-{secrets.token_hex(8)}"
        self.returned: asyncio.Queue[Container] = asyncio.Queue()  # containers that call once more
        self._folder = folder
        self._news = asyncio.Event()
        self._numbers = itertools.count(1)
        self._calls: dict[str, asyncio.Future[Container]] = {}  # by token
        self._records: dict[str, FunctionRecord] = {}
        self._containers: list[Container] = []

    async def open(self) -> None:
        await self.listen()
        await self.open_engine()

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._greet, "\0" + self.address.removeprefix("unix:@"))

    async def vanish(self) -> None:
        """Leave the containers alone; until `listen`, nobody answers them."""
        self._server.close()
        for container in self._containers:
            await container.close()
        await self._server.wait_closed()

    async def open_engine(self) -> None:
        self.found = list(await self.engine.open(self.address, self._report))

    async def close(self) -> None:
        await self.engine.close()
        for container in self._containers:
            await container.close()
        self._server.close()
        await self._server.wait_closed()

    def function(
        self, name: str, code: str, *, memory_mib: int = 0, concurrency: Concurrency | None = None, **variables: str
    ) -> FunctionRecord:
        """The function of that name in a user's module of this code."""
        path = self._folder / f"code{next(self._numbers)}.py"
        path.write_text(
            "import os, signal, subprocess, sys, threading, time\nimport upswell\napp = upswell.App('conformance')\n"
            + textwrap.dedent(code)
        )
        environment = Environment(
            kind="script",
            origin=str(path),
            module=path.stem,
            main=False,
            sys_path=tuple(sys.path),
            directory=str(self._folder),
            variables=tuple(variables.items()),
        )
        spec = FunctionSpec(resources=Resources(memory_mib=memory_mib), concurrency=concurrency or Concurrency())
        return FunctionRecord(id=f"ap-1/{name}", app_name="conformance", name=name, spec=spec, environment=environment)

    def start(self, function: FunctionRecord) -> str:
        """Have a container started."""
        name, token = self.expect(function)
        self.engine.start(name, token, function)
        return name

    def expect(self, function: FunctionRecord) -> tuple[str, str]:
        """Name and token for a container that will call."""
        name, token = f"co-{next(self._numbers)}", secrets.token_hex(8)
        self._records[token] = function
        self._calls[name] = self._calls[token] = asyncio.get_running_loop().create_future()
        return name, token

    async def container(self, name: str) -> Container:
        """The container, once it is ready or has failed to start."""
        container = await soon(asyncio.shield(self._calls[name]))
        message, payload = await soon(container.receive())
        if isinstance(message, m.StartFailed):
            container.start_error = unpack_exception(message.error, payload)
        else:
            assert isinstance(message, m.Ready)
        return container

    async def started(self, function: FunctionRecord) -> tuple[str, Container]:
        name = self.start(function)
        return name, await self.container(name)

    async def exit_of(self, name: str) -> ContainerExit:
        return (await self.until(lambda: [one for one in self.exits if one.container == name]))[0]

    async def until(self, condition: Callable[[], T]) -> T:
        """Wait for reports that make the condition true; returns it."""

        async def wait() -> T:
            while not (result := condition()):
                self._news.clear()
                await self._news.wait()
            return result

        return await soon(wait())

    async def measured(self, measure: Callable[[str], float | None], container: str, *, beyond: float = 0.0) -> float:
        """What the engine has measured of the container, once it is beyond that: elsewhere that takes its time."""

        async def wait() -> float:
            while (value := measure(container)) is None or value <= beyond:
                await asyncio.sleep(0.01)
            return value

        return await soon(wait())

    def text(self, name: str, stream: int) -> str:
        return "".join(one.text for one in self.written if (one.container, one.stream) == (name, stream))

    def _report(self, report: Reported) -> None:
        match report:
            case ContainerExit():
                self.exits.append(report)
            case ContainerOutput():
                self.written.append(report)
            case ContainerDelayed():
                self.delays.append(report)
        self._news.set()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        container = Container(reader, writer)
        self._containers.append(container)
        hello, _ = await container.receive()
        assert isinstance(hello, m.Hello) and (hello.protocol, hello.role) == (m.PROTOCOL, "container")
        container.process, container.loaded = hello.process, hello.loaded
        if not hello.loaded:
            container.send(m.Load(self._records[hello.token]))
        if self._calls[hello.token].done():
            self.returned.put_nowait(container)
        else:
            self._calls[hello.token].set_result(container)
