"""Blocking connections: frames arrive whole from any thread, and the end of a peer is an end, not an error."""

import os
import resource
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from upswell.errors import ConnectionError
from upswell.wire import messages as m
from upswell.wire.channel import Channel, dial
from upswell.wire.codec import ProtocolError, encode


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def everything(channel: Channel) -> list[tuple[m.Message, bytes]]:
    received = []
    while frames := channel.receive():
        received += [(message, bytes(payload)) for message, payload in frames]
    return received


def test_frames_of_many_threads_stay_whole(ends: tuple[Channel, Channel]) -> None:
    one, other = ends

    def send(number: int) -> None:
        for count in range(50):
            one.send(m.Returned(number, count), bytes([number]) * (70_000 if count % 10 == 0 else 10))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    received: list[tuple[m.Message, bytes]] = []
    reader = threading.Thread(target=lambda: received.extend(everything(other)))
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    one.shutdown()
    reader.join()
    assert len(received) == 200
    for number in range(4):
        mine = [(message, payload) for message, payload in received if message.range == number]  # type: ignore[attr-defined]
        assert [message.stop for message, _ in mine] == list(range(50))  # type: ignore[attr-defined]
        assert all(set(payload) == {number} for _, payload in mine)


def test_the_end_of_the_peer(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send_bytes(encode(m.Ready()) + encode(m.Bye("done"))[:-2])
    one.close()
    assert other.receive() == [(m.Ready(), memoryview(b""))]
    assert other.receive() == []
    with pytest.raises(OSError):
        for _ in range(10):
            other.send(m.Bye(""), bytes(1 << 20))


def test_a_shutdown_wakes_who_waits(ends: tuple[Channel, Channel]) -> None:
    one, _ = ends
    received: list[object] = [None]
    reader = threading.Thread(target=lambda: received.__setitem__(0, one.receive()))
    reader.start()
    one.shutdown()
    reader.join(60)
    assert received == [[]]
    one.shutdown()


def test_a_peer_that_speaks_otherwise(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ProtocolError):
        other.receive()


def test_dialling() -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"upswell-test-{secrets.token_hex(8)}"
    listener.bind("\0" + name)
    listener.listen(1)
    channel = dial(f"unix:@{name}")
    accepted = Channel(listener.accept()[0])
    channel.send(m.Ready())
    assert accepted.receive()[0][0] == m.Ready()
    channel.forget()
    channel.forget()
    assert accepted.receive() == []
    accepted.close()
    listener.close()
    with pytest.raises(ConnectionError, match=f"no server answers at unix:@{name}"):
        dial(f"unix:@{name}")


@pytest.mark.parametrize("address", ["", "unix:", "tcp:1.2.3.4:5", "@name", "http://localhost:80"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConnectionError, match="is no server address"):
        dial(address)


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_who_waits_is_not_woken_as_the_peer_reads(ends: tuple[Channel, Channel]) -> None:
    """Only what comes wakes: the peer reads, and answers, each time that who waits is seen to.

    That is a process with one thread: others would make it wait for them, too.
    """
    one, other = ends
    one.send(m.Ready())
    if not (child := os.fork()):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        came = one.receive()
        waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
        os._exit(waits if came == [(m.Bye("read"), memoryview(b""))] else 100)
    for act in (other.receive, lambda: other.send(m.Bye("read"))):
        while state_of(child) != "S":
            os.sched_yield()
        act()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
