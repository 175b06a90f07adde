"""The birth of a container: a zygote forks it without a name, and tells it later which container it is.

One that was not asked for yet is a spare. While nobody waits it rehearses what it is going to do, so that the pages of
memory which it will write to are its own by the time that it is named. It knows no server before that.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import NoReturn

import msgspec

from . import control
from .groups import Group
from .lineage import Guardian, adopt_orphans, close_descriptors, die_with_parent
from .lines import Lines
from .rehearsal import rehearse
from .runtime import run_container


class Child(msgspec.Struct, eq=False):
    """A container's process, and what it wrote that was not forwarded."""

    process: int
    pipes: dict[int, int]  # descriptor → stream
    naming: socket.socket  # at whose other end it waits for its name
    launch: control.Launch = control.UNNAMED
    group: Group | None = None
    lines: dict[int, Lines] = msgspec.field(default_factory=lambda: {1: Lines(), 2: Lines()})

    def name(self, launch: control.Launch, group: Group | None) -> bool:
        """Tell it which container it is, and have the group count its memory; false where it has ended meanwhile."""
        self.launch, self.group = launch, group
        in_group = group is not None and group.enter(self.process)
        try:
            self.naming.send(control.encode(control.Name(launch, in_group)))
        except OSError:
            return False
        finally:
            self.naming.close()
        return True

    def discard(self) -> None:
        """Close what leads to it: where it is a spare it ends."""
        self.naming.close()
        for descriptor in self.pipes:
            os.close(descriptor)
        self.pipes.clear()


def bear(seed: control.Seed, failed: BaseException | None, guardian: Guardian, *, spare: bool) -> Child:
    """Fork a container that waits for its name; `OSError` where that can't be.

    `failed` is what importing the user's code raised.
    """
    me = os.getpid()
    descriptors: list[int] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        descriptors += os.pipe()
        descriptors += os.pipe()
        process = os.fork()
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        ours.close()
        theirs.close()
        raise
    out_read, out_write, err_read, err_write = descriptors
    if process == 0:
        try:
            die_with_parent(me)
            adopt_orphans()
            guardian.leave()
            _become_container(out_write, err_write, theirs.fileno())
            if spare:
                rehearse()
            _await_name(theirs, seed, failed)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    guardian.own.add(process)
    theirs.close()
    os.close(out_write)
    os.close(err_write)
    for descriptor in (out_read, err_read):
        os.set_blocking(descriptor, False)
    return Child(process, {out_read: 1, err_read: 2}, ours)


def _await_name(naming: socket.socket, seed: control.Seed, failed: BaseException | None) -> NoReturn:
    packet = naming.recv(control.MAX_PACKET_BYTES)
    if not packet:
        os._exit(0)  # a spare that nobody needs
    naming.close()
    name = control.decode_name(packet)
    launch = name.launch
    if launch.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(launch.devices)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # by which they are numbered
    if seed.fresh:
        _become_interpreter(control.Sprout(seed, name))
    run_container(seed, name, failed)


def _become_container(out: int, err: int, naming: int) -> None:
    """Leave behind what belongs to the zygote: its group, its signals, its descriptors."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(err, 2)
    close_descriptors(3, keep=naming)


def _become_interpreter(sprout: control.Sprout) -> NoReturn:
    """Go on in a fresh interpreter, with nothing imported; the token is in no command line that others can read."""
    descriptor = control.parcel(sprout)
    os.set_inheritable(descriptor, True)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "upswell.container", str(descriptor)])
