"""Outputs by the short way: whole, beside what comes over the stream, and never at the cost of a wait."""

import os
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from upswell.wire import messages as m
from upswell.wire import shortcut
from upswell.wire.channel import Channel
from upswell.wire.codec import encode


class Ends(NamedTuple):
    """A client's connection, the server's end of it, and what containers write to."""

    client: Channel
    server: socket.socket
    container: socket.socket

    def deliver(self, first: int, payload: bytes = b"") -> bool:
        return shortcut.deliver(encode(output(first), payload), self.container.fileno())


def output(first: int) -> m.Outputs:
    return m.Outputs("fc-1", first, 1)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    reading, writing = shortcut.make()
    client = Channel(ours, reading)
    yield Ends(client, theirs, writing)
    client.close()
    theirs.close()
    writing.close()


def test_what_comes_by_it_is_received_beside_what_comes_over_the_stream(ends: Ends) -> None:
    ends.server.sendall(encode(m.Ready()))
    assert ends.deliver(0, b"zero") and ends.deliver(1)
    received = [frame for _ in range(3) for frame in ends.client.receive()]
    assert received == [(output(0), memoryview(b"zero")), (output(1), memoryview(b"")), (m.Ready(), memoryview(b""))]


def test_it_waits_for_the_end_of_a_frame_that_has_begun(ends: Ends) -> None:
    frame = encode(m.Bye("as it was said"), bytes(1000))
    ends.server.sendall(encode(m.Ready()) + frame[:500])
    assert ends.client.receive()[0][0] == m.Ready()
    assert ends.deliver(0)
    received: list[m.Message] = []
    reader = threading.Thread(target=lambda: received.append(ends.client.receive()[0][0]))
    reader.start()
    ends.server.sendall(frame[500:])
    reader.join(60)
    assert received == [m.Bye("as it was said")]
    assert ends.client.receive()[0][0] == output(0)


def test_who_peeks_finds_it_too(ends: Ends) -> None:
    assert not ends.client.wait_to_peek(0)
    assert ends.deliver(0)
    ends.server.sendall(encode(m.Ready()))
    frames: deque[Any] = deque()
    while ends.client.wait_to_peek(0) and ends.client.peek():
        ends.client.move(frames)
    assert [message for message, _ in frames] == [output(0), m.Ready()]


def test_who_peeks_in_the_midst_of_a_frame_leaves_it_there(ends: Ends) -> None:
    frame = encode(m.Bye(""), bytes(1000))
    ends.server.sendall(encode(m.Ready()) + frame[:500])
    assert ends.client.receive()[0][0] == m.Ready()
    assert ends.deliver(0)
    assert ends.client.wait_to_peek(0)
    assert ends.client.peek() is None
    ends.server.sendall(frame[500:])
    assert [ends.client.receive()[0][0] for _ in range(2)] == [m.Bye(""), output(0)]


def test_it_is_read_before_the_end_of_the_stream(ends: Ends) -> None:
    assert ends.deliver(0)
    ends.server.shutdown(socket.SHUT_RDWR)
    assert ends.client.receive()[0][0] == output(0)
    assert ends.client.receive() == []


def test_nobody_waits_where_it_is_full(ends: Ends) -> None:
    delivered = 0
    while ends.deliver(delivered, bytes(shortcut.PACKET_BYTES)):
        delivered += 1
    assert delivered
    for first in range(delivered):
        assert ends.client.receive()[0][0] == output(first)
    assert ends.deliver(0)


def test_packets_of_many_processes_stay_whole(ends: Ends) -> None:
    children = []
    for number in range(3):
        if not (child := os.fork()):
            for first in range(200):
                while not ends.deliver(1000 * number + first, bytes([number]) * 500):
                    os.sched_yield()
            os._exit(0)
        children.append(child)
    received = [ends.client.receive()[0] for _ in range(600)]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    for number in range(3):
        mine = [(message, payload) for message, payload in received if message.first // 1000 == number]  # type: ignore[attr-defined]
        assert [message.first % 1000 for message, _ in mine] == list(range(200))  # type: ignore[attr-defined]
        assert all(bytes(payload) == bytes([number]) * 500 for _, payload in mine)


def test_where_there_is_none_nothing_is_delivered() -> None:
    assert not shortcut.deliver(b"frame", -1)
    assert [shortcut.first_other(writing) for writing in (-1, 3, 7)] == [3, 4, 8]
