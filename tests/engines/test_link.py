"""A link between an engine and a lease: frames whole, and no more from a stranger than a few words."""

import asyncio
import socket

import pytest

from upswell.engines.ray.link import FULL_BYTES, Link, Session
from upswell.engines.ray.messages import Fetch, File, KillContainer, Taken, decode_lease
from upswell.wire.codec import ProtocolError, encode


async def link_to(stream: socket.socket) -> Link:
    reader, writer = await asyncio.open_connection(sock=stream)
    return Link(reader, writer, decode_lease)


async def test_frames_arrive_whole_and_in_order() -> None:
    ends = socket.socketpair()
    one, other = await link_to(ends[0]), await link_to(ends[1])
    sent = [(Taken("engine", 7), 0), (File("tree", "digest", True), 1 << 20), (Fetch("tree", ["a"]), 0)]
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


class Ends:
    """Both sides of a session, over one connection after the other."""

    def __init__(self) -> None:
        self.one, self.other = Session(), Session()
        self.heard: list[str] = []

    async def connect(self) -> None:
        ends = socket.socketpair()
        link, theirs = await link_to(ends[0]), await link_to(ends[1])
        counts = self.one.received, self.other.received
        self.one.resume(link, counts[1])
        self.other.resume(theirs, counts[0])

    def say(self, words: str, size: int = 0) -> None:
        self.one.send(KillContainer(words), b"x" * size)

    async def hear(self, count: int = -1) -> None:
        """So many frames, or all that come over this connection."""
        async for message, _ in self.other.frames():
            assert isinstance(message, KillContainer)
            self.heard.append(message.container)
            count -= 1
            if not count:
                return


async def test_a_session_goes_on_over_another_link() -> None:
    ends, said = Ends(), [str(number) for number in range(1000)]
    for turn in range(10):
        await ends.connect()
        for words in said[100 * turn : 100 * turn + 60]:
            ends.say(words)
        await ends.hear(7 * turn + 1)  # what is on its way by then is lost
        ends.one.lose()
        ends.other.lose()
        for words in said[100 * turn + 60 : 100 * turn + 100]:
            ends.say(words)
    await ends.connect()
    await ends.hear(len(said) - len(ends.heard))
    assert ends.heard == said, "everything in order, and once"
    ends.one.lose()
    ends.other.lose()


async def test_a_link_that_was_replaced_says_nothing_more() -> None:
    ends = Ends()
    await ends.connect()
    ends.say("first")
    hearing = asyncio.create_task(ends.hear())
    while not ends.heard:
        await asyncio.sleep(0)
    await ends.connect()
    await hearing
    ends.say("second")
    await ends.hear(1)
    assert ends.heard == ["first", "second"]
    ends.one.end()
    ends.other.end()


async def test_another_peer_hears_what_was_said_meanwhile() -> None:
    ends = Ends()
    await ends.connect()
    ends.say("to the first")
    assert ends.one.lose()
    assert not ends.one.lose(), "it is lost already"
    ends.say("meanwhile")
    ours, theirs = socket.socketpair()
    assert [message for message, _ in ends.one.begin(await link_to(ours))] == [KillContainer("meanwhile")]
    assert ends.one.received == 0 and ends.one.is_connected
    ends.one.end()
    ends.other.end()
    theirs.close()


async def test_room_is_what_has_arrived() -> None:
    ends = Ends()
    await ends.connect()
    ends.say("much", FULL_BYTES)
    was_full = ends.one.is_full
    waiting = asyncio.create_task(ends.one.room())
    await ends.hear(1)  # the other says so at once, as it was much
    reading = asyncio.create_task(anext(ends.one.frames(), None))
    await waiting
    assert (was_full, ends.one.is_full) == (True, False)
    ends.one.end()
    ends.other.end()
    await reading
