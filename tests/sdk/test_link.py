"""The client's way to the server, where it breaks at moments that programs seldom meet."""

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upswell.errors import InternalFailure, InvalidError
from upswell.home import Server
from upswell.sdk.client import Client
from upswell.sdk.dual import run_sync
from upswell.sdk.inbox import Restarted
from upswell.wire import messages as m
from upswell.wire.channel import Channel
from upswell.wire.codec import Frame
from upswell.wire.delivery import CONFIRM_FRAMES
from upswell.wire.payload import pack


def dead() -> Channel:
    """A connection to a server that has died since it was dialled."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return Channel(ours)


def test_a_server_that_is_killed_as_it_is_dialled_is_dialled_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "server.sock"))
        listener.listen()
        listener.settimeout(60)
        client = Client(dead(), server=Server(f"unix:{tmp_path}/server.sock", ""))
        inbox = client.open_inbox("fc-1", renewable=True)
        stream, _ = listener.accept()
        peer = Channel(stream)
        came: list[Frame] = peer.receive()
        assert isinstance(came.pop(0)[0], m.Hello)
        peer.send(m.Welcome(m.PROTOCOL, 1, "", True))
        run_sync(inbox.sleep())
        assert isinstance(inbox.take()[0][0], Restarted), "what was said before is to be said again"
        client.send(m.CloseApp("ap-1"))
        while not came:
            came = peer.receive()
        assert came[0][0] == m.CloseApp("ap-1")
        client.close()
        peer.close()


def test_a_server_that_is_waited_for_holds_nobody_up(tmp_path: Path) -> None:
    """It is dialled by the reader, and hears what was said meanwhile; to who said it, this is its first life."""
    client = Client(None, server=Server(f"unix:{tmp_path}/server.sock", ""))
    inbox = client.open_inbox("fc-1", renewable=True)
    client.send(m.CloseApp("ap-1"))
    inbox.send(m.EndInputs("fc-1", 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "server.sock"))
        listener.listen()
        listener.settimeout(60)
        stream, _ = listener.accept()
    peer = Channel(stream)
    assert isinstance(peer.receive()[0][0], m.Hello)
    peer.send(m.Welcome(m.PROTOCOL, 1, "", True))
    came: list[Frame] = []
    while len(came) < 2:
        came += peer.receive()
    assert [message for message, _ in came] == [m.CloseApp("ap-1"), m.EndInputs("fc-1", 3)]
    peer.send(m.Accepted("fc-1", 0, 3))
    ((message, _),) = run_sync(inbox.receive())
    assert message == m.Accepted("fc-1", 0, 3)
    client.close()
    peer.close()


def test_a_private_server_that_died_at_once_is_not() -> None:
    channel = dead()
    with pytest.raises(OSError, match="Broken pipe"):
        Client(channel)
    channel.close()


def test_patience_that_is_no_number_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = dead()
    for said in ("soon", "-1", "nan"):
        monkeypatch.setenv("UPSWELL_RECONNECT_SECONDS", said)
        with pytest.raises(InvalidError, match=f"UPSWELL_RECONNECT_SECONDS must be .* not '{said}'"):
            Client(channel, server=Server("unix:@nowhere"))
    channel.close()


def test_a_defect_of_who_reads_is_told_to_who_waits() -> None:
    ours, theirs = socket.socketpair()
    client, peer = Client(Channel(ours)), Channel(theirs)

    def fail(progress: m.Progress) -> None:
        raise LookupError("of who watches")

    client.watch("ap-1", fail)
    inbox = client.open_inbox("fc-1")
    peer.send(m.Progress("ap-1", []))
    with pytest.raises(InternalFailure, match="LookupError: of who watches"):
        run_sync(inbox.receive())
    client.close()
    peer.close()


def test_a_call_is_left_in_the_midst_of_another_frame() -> None:
    """As where Python collects a generator in a cycle: the frame is not torn, and the call is cancelled behind it."""
    ours, theirs = socket.socketpair()
    channel, peer = Channel(ours), Channel(theirs)
    client = Client(channel)
    inbox = client.open_inbox("fc-1")
    with channel._sending:
        inbox.cancel(running=False)
        inbox.close()
    came: list[Frame] = []
    while not any(isinstance(message, m.Cancel) for message, _ in came):
        came += peer.receive()
    assert came[-1][0] == m.Cancel("fc-1", running=False)
    client.close()
    inbox.cancel()  # nobody is there any more
    peer.close()


class Watched(Channel):
    """Counts the frames that were read by who waited for them."""

    moved = 0

    def move(self, frames: deque[Any]) -> None:
        super().move(frames)
        self.moved += 1


class Answerer:
    """A client, and a peer that answers whatever is said of a call."""

    def __init__(self, *, keeps_session: bool) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self.peer = Watched(ours), Channel(theirs)
        self.sent = 0  # frames that a session counts
        self.heard: list[int] = []  # how many of them the client said that it had, each time
        self.client = Client(self.channel, server=Server("unix:@nowhere", "") if keeps_session else None)
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while frames := self.peer.receive():
            for message, _ in frames:
                match message:
                    case m.Hello(session=session) if session:
                        self.peer.send(m.Welcome(m.PROTOCOL, 1, "", True))
                    case m.Received(count=count):
                        self.heard.append(count)
                    case m.EndInputs(call=call, total=total):
                        self.sent += 1
                        self.peer.send(m.Outputs(call, 0, 1), pack([total]).data)
                    case m.Cancel():  # interrupts the main thread once that reads, or is just about to
                        main = threading.main_thread().ident or 0
                        while main not in self.client._link._turns._passing:
                            os.sched_yield()
                        signal.pthread_kill(main, signal.SIGUSR1)
                    case m.Uncollect():
                        self.peer.send(m.Log("ap-1", "f", "", 1, "nobody's\n"))

    def call(self, number: int, *, beside: bool = False) -> None:
        """A call, where it is `beside` after a frame that is not its own."""
        inbox = self.client.open_inbox(f"fc-{number}")
        if beside:
            inbox.send(m.Uncollect(inbox.name))
        inbox.send(m.EndInputs(inbox.name, number))
        ((message, _),) = run_sync(inbox.receive())
        assert message == m.Outputs(inbox.name, 0, 1)
        inbox.close()

    @property
    def reader_is_off(self) -> bool:
        """Whether the client's reader leaves it to who waits to read."""
        return self.client._link._turns.is_open

    def close(self) -> None:
        self.client.close()
        self._thread.join()
        self.peer.close()


@pytest.fixture(params=[False, True], ids=["private", "session"])
def answerer(request: pytest.FixtureRequest) -> Iterator[Answerer]:
    answerer = Answerer(keeps_session=request.param)
    yield answerer
    answerer.close()


def test_who_waits_alone_reads_for_itself(answerer: Answerer, capfd: pytest.CaptureFixture[str]) -> None:
    calls = 0
    while answerer.channel.moved < 100:  # else the reader has just woken up
        answerer.call(calls)
        calls += 1
    while not answerer.reader_is_off:
        answerer.call(1)
    answerer.call(0, beside=True)
    assert "nobody's" in capfd.readouterr().out, "what is not the call's own is the reader's"


def test_frames_of_a_session_are_counted_by_whoever_reads_them() -> None:
    answerer = Answerer(keeps_session=True)
    while answerer.channel.moved < 3 * CONFIRM_FRAMES:
        answerer.call(1)
    delivery = answerer.client._link._delivery
    assert delivery is not None
    assert delivery.received == answerer.sent
    answerer.close()
    assert answerer.heard == list(range(CONFIRM_FRAMES, answerer.sent + 1, CONFIRM_FRAMES))


def test_who_waits_with_others_does_not(answerer: Answerer) -> None:
    while not answerer.reader_is_off:
        answerer.call(1)
    inboxes = [answerer.client.open_inbox(f"fc-{number}") for number in (1, 2)]
    for inbox in inboxes:
        inbox.send(m.EndInputs(inbox.name, 1))
    assert [run_sync(inbox.receive())[0][0] for inbox in inboxes] == [m.Outputs(inbox.name, 0, 1) for inbox in inboxes]


def test_the_reader_comes_back_when_nobody_waits(answerer: Answerer) -> None:
    while not answerer.reader_is_off:
        answerer.call(1)
    while answerer.reader_is_off:
        os.sched_yield()


def test_a_signal_handler_may_wait_while_who_it_interrupts_waits(answerer: Answerer) -> None:
    """The handler's call is answered first: it has the reader read, which finds the answer to the other one, too."""
    outer = answerer.client.open_inbox("fc-1")

    def handle(*_: object) -> None:
        answerer.call(2)
        outer.send(m.EndInputs(outer.name, 1))

    before = signal.signal(signal.SIGUSR1, handle)
    while not answerer.reader_is_off:
        outer.send(m.EndInputs(outer.name, 1))
        run_sync(outer.receive())
    outer.send(m.Cancel(outer.name))
    assert run_sync(outer.receive())[0][0] == m.Outputs(outer.name, 0, 1)
    signal.signal(signal.SIGUSR1, before)
