"""What a root zygote hands over is taken whole, or nothing of it stays open."""

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from upswell.container import control
from upswell.engines.succession import take_over
from upswell.spec import Environment
from upswell.wire.messages import PROTOCOL

SEED = control.Seed(Environment(kind="module", origin="", module="", main=False, sys_path=(), directory="/"))


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def malformed() -> int:
    """A parcel with something else in it."""
    descriptor = os.memfd_create("parcel")
    os.write(descriptor, b"nonsense")
    return descriptor


def hand_over(listener: socket.socket, packets: Sequence[tuple[bytes, Sequence[int]]]) -> None:
    """Be the root of an earlier server."""
    successor, _ = listener.accept()
    with successor:
        successor.send(b"%s %d %d" % (control.KEPT, PROTOCOL, os.getpid()))
        for packet, sent in packets:
            socket.send_fds(successor, [packet], sent)
            for descriptor in sent:
                os.close(descriptor)


def zygote() -> tuple[bytes, Sequence[int]]:
    ours, theirs = socket.socketpair()
    ours.close()
    return control.ZYGOTE, (theirs.detach(), control.parcel(SEED))


@pytest.mark.parametrize("last", ["a malformed seed", "no seed", "no socket", "the end", "nonsense"])
def test_what_can_not_be_taken_is_closed(tmp_path: Path, last: str) -> None:
    before = descriptors()
    packets = {
        "a malformed seed": (control.ZYGOTE, (os.dup(0), malformed())),
        "no seed": (control.ZYGOTE, (os.dup(0),)),
        "no socket": (control.ZYGOTE, (os.dup(0), control.parcel(SEED))),
        "the end": (control.ALL, ()),
        "nonsense": (b"nonsense", (os.dup(0),)),
    }
    for name, (_, unsent) in packets.items():
        for descriptor in unsent if name != last else ():
            os.close(descriptor)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "zygotes.sock"))
        listener.listen()
        root = threading.Thread(target=hand_over, args=(listener, [zygote(), packets[last]]))
        root.start()
        legacy = take_over(tmp_path / "zygotes.sock")
        root.join()
    assert (legacy is not None) == (last == "the end")
    if legacy is not None:
        ((seed, its_control),) = legacy.zygotes
        assert seed == SEED
        its_control.close()
        legacy.root.close()
    assert descriptors() == before
