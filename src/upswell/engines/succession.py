"""From one server of a home to the next: the root zygote of the first waits for the engine of the second.

Who calls this holds the home's lock, so there is one successor at a time, and no server before it any more.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..container import control
from ..wire.messages import PROTOCOL

CALL_SECONDS = 5.0  # a root that does not answer by then is about to end


@dataclass(slots=True, eq=False)
class Legacy:
    """What an earlier server has left: its root zygote, and the engine's end of every zygote's socket."""

    root: socket.socket
    root_process: int
    zygotes: list[tuple[control.Seed, socket.socket]] = field(default_factory=list)


def take_over(path: Path) -> Legacy | None:
    """What waits at `path`; `None` where nothing does, or nothing that this version could go on with."""
    root = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root.settimeout(CALL_SECONDS)
    legacy = None
    try:
        root.connect(str(path))
        words = root.recv(control.MAX_PACKET_BYTES).split()
        if len(words) == 3 and words[0] == control.KEPT:
            legacy = Legacy(root, int(words[2]))
            if int(words[1]) == PROTOCOL:
                _receive_zygotes(legacy)
                root.settimeout(None)
                return legacy
            root.send(control.END)
    except (OSError, ValueError, msgspec.MsgspecError):
        pass
    for _, its_control in legacy.zygotes if legacy is not None else ():
        its_control.close()
    root.close()
    return None


def _receive_zygotes(legacy: Legacy) -> None:
    while (zygote := _receive_zygote(legacy.root)) is not None:
        legacy.zygotes.append(zygote)


def _receive_zygote(root: socket.socket) -> tuple[control.Seed, socket.socket] | None:
    """The next one; `None` after the last. Of one that can't be taken no descriptor stays open."""
    flags = socket.MSG_CMSG_CLOEXEC
    packet, descriptors, _, _ = socket.recv_fds(root, control.MAX_PACKET_BYTES, 2, flags)
    if packet == control.ZYGOTE and len(descriptors) == 2:
        its_control, parcel = descriptors
        try:
            return control.read_seed(parcel), socket.socket(fileno=its_control)
        except BaseException:
            os.close(its_control)
            raise
    for descriptor in descriptors:
        os.close(descriptor)
    if packet != control.ALL:
        raise ConnectionResetError("the root zygote is gone")
    return None


def await_successor(root: socket.socket, path: Path, seconds: float) -> None:
    """Have the root wait so long at `path` for the next engine, once the connection to this one is gone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        socket.send_fds(root, [b"%s %r" % (control.KEEP, seconds)], [listener.fileno()])
    finally:
        listener.close()
