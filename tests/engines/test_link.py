"""A link between an engine and a lease: frames whole, and no more from a stranger than a few words."""

import asyncio
import socket

import pytest

from upswell.engines.ray.link import Link
from upswell.engines.ray.messages import Fetch, File, KillContainer, Opened, decode_lease
from upswell.wire.codec import ProtocolError, encode


async def link_to(stream: socket.socket) -> Link:
    reader, writer = await asyncio.open_connection(sock=stream)
    return Link(reader, writer, decode_lease)


async def test_frames_arrive_whole_and_in_order() -> None:
    ends = socket.socketpair()
    one, other = await link_to(ends[0]), await link_to(ends[1])
    sent = [(Opened(1, "token", "node", 7), 0), (File("tree", "digest", True), 1 << 20), (Fetch("tree", ["a"]), 0)]
    for message, size in sent:
        one.send(message, b"x" * size)
    closing = asyncio.create_task(one.close())
    assert [(message, len(payload)) async for message, payload in other.frames()] == sent
    await closing
    other.send(KillContainer("co-1"))  # to nobody, which is no error
    await other.drained()
    await other.close()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(File("tree", "digest", True), b"x" * 4096)[:3000], id="too long"),
        pytest.param(b"\xff" * 64, id="no frame"),
    ],
)
async def test_who_has_not_said_who_it_is_is_held_short(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    link = await link_to(ours)
    link.most_bytes = 1024
    theirs.sendall(data)
    with pytest.raises(ProtocolError):
        await anext(link.frames())
    await link.close()
    theirs.close()
