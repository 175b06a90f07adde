"""Another user of the machine can't connect: not where the file system says no, and not where it doesn't.

The other user is real, so these need root, which alone may become somebody else.
"""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from upswell.home import SOCKET
from upswell.server.serve import CONTAINERS
from upswell.wire import messages as m
from upswell.wire.codec import Decoder, encode

from .stage import Stage, record, stage

NOBODY = 65534
CAP_SETGID, CAP_SETUID = 6, 7
DIAL = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
stream = socket.socket(socket.AF_UNIX)
try:
    stream.connect(sys.argv[2].replace("@", chr(0)))
except OSError as error:
    sys.exit(type(error).__name__)
try:
    stream.sendall(bytes.fromhex(sys.argv[3]))
except OSError:
    pass  # it has closed already
try:
    while data := stream.recv(65536):
        sys.stdout.buffer.write(data)
except ConnectionResetError:
    pass  # it has not read what we sent
"""


def can_be_another() -> bool:
    """Whether this process may change its user and its groups: root may, but for a box that keeps it from that."""
    (held,) = re.findall(r"^CapEff:\s+(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return all(int(held, 16) >> capability & 1 for capability in (CAP_SETGID, CAP_SETUID))


pytestmark = pytest.mark.skipif(not can_be_another(), reason="only root can be another user for a moment")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that others could look into, were it not for its own permissions."""
    with TemporaryDirectory(prefix="upswell-") as folder:
        yield Path(folder)


async def dial(here: Stage, address: str, token: str = "") -> tuple[list[m.Message], str]:
    """What a process of another user is told at the address, or why it can't connect."""
    hello = encode(m.Hello(m.PROTOCOL, "client", token, os.getpid()))
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-I", "-c", DIAL, str(NOBODY), address.removeprefix("unix:"), hello.hex()]
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    data, said = await process.communicate()
    await here.client.send(m.DescribeServer(1))
    await here.client.expect(m.ServerDescribed)  # nobody else has noticed
    return [message for message, _ in Decoder().feed(data)], said.decode().strip()


SENT_AWAY = [m.Bye("this server belongs to another user")]


async def test_a_private_server_has_no_place_that_permissions_could_guard() -> None:
    async with stage() as here:
        await here.client.send(m.OpenApp("ap-1", "app", [record("f")]))
        await here.client.send(m.Submit("fc-1", "ap-1/f", "remote", 0, 1, True), payload=b"in")
        name = await here.started("ap-1/f")
        assert here.engine.address.startswith("unix:@")
        for token in ("", here.engine.tokens[name]):
            assert await dial(here, here.engine.address, token) == (SENT_AWAY, "")


@pytest.mark.parametrize("socket", [SOCKET, CONTAINERS])
async def test_a_home_is_closed_to_others(home: Path, socket: str) -> None:
    async with stage(home=home) as here:
        assert await dial(here, str(home / socket)) == ([], "PermissionError")
        home.chmod(0o755)
        assert await dial(here, str(home / socket)) == ([], "PermissionError"), "the socket has its own"
        (home / socket).chmod(0o666)
        assert await dial(here, str(home / socket)) == (SENT_AWAY, "")
