"""The client's way to the server, where it breaks at moments that programs seldom meet."""

import socket
from pathlib import Path

import pytest

from upswell.home import Server
from upswell.sdk.client import Client
from upswell.sdk.dual import run_sync
from upswell.sdk.inbox import Restarted
from upswell.wire import messages as m
from upswell.wire.channel import Channel
from upswell.wire.codec import Frame


def dead() -> Channel:
    """A connection to a server that has died since it was dialled."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return Channel(ours)


def test_a_server_that_is_killed_as_it_is_dialled_is_dialled_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "server.sock"))
        listener.listen()
        listener.settimeout(20)
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


def test_a_private_server_that_died_at_once_is_not() -> None:
    channel = dead()
    with pytest.raises(OSError, match="Broken pipe"):
        Client(channel)
    channel.close()
