"""The birth of a container: a zygote forks it with a name, which says what container it is, or tells it later.

One that was not asked for yet is a spare. While nobody waits it rehearses what it is going to do, so that the pages of
memory which it will write to are its own by the time that it is named. It knows no server before that.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

import msgspec

from . import control
from .groups import Group
from .lineage import Guardian, adopt_orphans, close_descriptors, die_with_parent
from .lines import Lines
from .rehearsal import rehearse
from .runtime import Body, run_container


class Mother(msgspec.Struct, eq=False):
    """What the children of a zygote have from it."""

    seed: control.Seed
    guardian: Guardian
    failed: BaseException | None = None  # what importing the user's code raised
    body: Body | None = None  # of the function that is expected


class Child(msgspec.Struct, eq=False):
    """A container's process, and what it wrote that was not forwarded."""

    process: int
    pipes: dict[int, int]  # descriptor → stream
    naming: socket.socket | None  # at whose other end it waits for its name
    body: Body | None  # that it was born with
    launch: control.Launch = control.UNNAMED
    group: Group | None = None
    lines: dict[int, Lines] = msgspec.field(default_factory=lambda: {1: Lines(), 2: Lines()})

    def name(self, launch: control.Launch, group: Group | None, body: Body | None) -> bool:
        """Tell it which container it is, and what body it must have, and have the group count its memory.

        False where it has ended meanwhile.
        """
        assert self.naming is not None
        self.launch, self.group = launch, group
        in_group = group is not None and group.enter(self.process)
        try:
            self.naming.send(control.encode(control.Name(launch, in_group, body is self.body)))
        except OSError:
            return False
        finally:
            self.naming.close()
        return True

    def discard(self) -> None:
        """Close what leads to it: where it is a spare it ends."""
        if self.naming is not None:
            self.naming.close()
        for descriptor in self.pipes:
            os.close(descriptor)
        self.pipes.clear()


def bear(mother: Mother, name: control.Name | None, *, spare: bool = False) -> Child:
    """Fork a container of that name, or one that waits for it; `OSError` where that can't be."""
    me = os.getpid()
    descriptors: list[int] = []
    ours = theirs = None
    try:
        if name is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors += os.pipe()
        descriptors += os.pipe()
        process = os.fork()
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        for end in (ours, theirs):
            if end is not None:
                end.close()
        raise
    out_read, out_write, err_read, err_write = descriptors
    if process == 0:
        try:
            die_with_parent(me)
            adopt_orphans()
            mother.guardian.leave()
            _become_container(out_write, err_write, -1 if theirs is None else theirs.fileno())
            if spare:
                rehearse()
            _live(mother, name or _await_name(theirs))
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    mother.guardian.own.add(process)
    if theirs is not None:
        theirs.close()
    os.close(out_write)
    os.close(err_write)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    return Child(process, {out_read: 1, err_read: 2}, ours, mother.body)


def open_streams() -> None:
    """Python's own streams, whatever the descriptors under them will be: in a zygote made once, so that no container
    has to.

    With a buffer, also where the environment wants none: without one Python loses what a signal has cut short.
    """
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


def _await_name(naming: socket.socket | None) -> control.Name:
    assert naming is not None
    packet = naming.recv(control.MAX_PACKET_BYTES)
    if not packet:
        os._exit(0)  # a spare that nobody needs
    naming.close()
    return control.decode_name(packet)


def _live(mother: Mother, name: control.Name) -> NoReturn:
    launch = name.launch
    if launch.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(launch.devices)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # by which they are numbered
    if mother.seed.fresh:
        _become_interpreter(control.Sprout(mother.seed, name))
    run_container(mother.seed, name, mother.failed, mother.body if name.fits else None)


def _become_container(out: int, err: int, naming: int) -> None:
    """Leave behind what belongs to the zygote: its group, its descriptors."""
    os.setpgid(0, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    close_descriptors(3, keep=naming)


def _become_interpreter(sprout: control.Sprout) -> NoReturn:
    """Go on in a fresh interpreter, with nothing imported; the token is in no command line that others can read."""
    descriptor = control.parcel(sprout)
    os.set_inheritable(descriptor, True)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "upswell.container", str(descriptor)])
