"""The birth of a container: a zygote forks it with a name, which says what container it is, or tells it later.

One that was not asked for yet is a spare. While nobody waits it rehearses what it is going to do, so that the pages of
memory which it will write to are its own by the time that it is named. It knows no server before that.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

import msgspec

from ..wire.shortcut import first_other
from . import control
from .groups import Group
from .lineage import Guardian, adopt_orphans, close_descriptors, die_with_parent, lead_group
from .lines import Lines
from .rehearsal import rehearse
from .runtime import Body, run_container, show_devices
from .title import entitle


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


class Cradle(NamedTuple):
    """What there is of a container before it is born."""

    life: Callable[[], NoReturn]  # what it will do
    out: tuple[int, int]  # pipes, the end to read from first
    err: tuple[int, int]
    naming: tuple[socket.socket, socket.socket] | None  # the zygote's end first; none for one that has its name

    def discard(self) -> None:
        """Nobody is born in it."""
        for descriptor in (*self.out, *self.err):
            os.close(descriptor)
        for end in self.naming or ():
            end.close()


def bear(mother: Mother, names: Sequence[control.Name | None], *, spare: bool = False) -> list[Child | OSError]:
    """Fork a container of each name, or for `None` one that waits for it; where that can't be, what was in the way.

    A fork shares every page with the child, and what either writes to next is copied. So nothing else is done between
    two of them: all that can be made before is, and all that can wait comes after the last.
    """
    me, guardian, first = os.getpid(), mother.guardian, first_other(mother.seed.shortcut)
    cradles = [_make_cradle(mother, name, spare) for name in names]
    processes = [_fork(cradle, guardian, me, first) for cradle in cradles]
    return [_child(mother, cradle, process) for cradle, process in zip(cradles, processes, strict=True)]


def _make_cradle(mother: Mother, name: control.Name | None, spare: bool) -> Cradle | OSError:
    descriptors: list[int] = []
    try:
        descriptors += (out := os.pipe())
        descriptors += (err := os.pipe())
        if name is not None:
            return Cradle(_life(mother, name), out, err, None)
        naming = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        return error
    return Cradle(partial(_await_life, mother, naming[1], spare), out, err, naming)


def _fork(cradle: Cradle | OSError, guardian: Guardian, me: int, first: int) -> int | OSError:
    if isinstance(cradle, OSError):
        return cradle
    life, (_, out), (_, err), naming = cradle
    try:
        process = os.fork()
    except OSError as error:
        return error
    if process == 0:
        try:
            die_with_parent(me)
            adopt_orphans()
            guardian.leave()
            _become_container(out, err, -1 if naming is None else naming[1].fileno(), first)
            life()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    return process


def _child(mother: Mother, cradle: Cradle | OSError, process: int | OSError) -> Child | OSError:
    """What the zygote keeps of it."""
    if isinstance(cradle, OSError):
        return cradle
    if isinstance(process, OSError):
        cradle.discard()
        return process
    mother.guardian.own.add(process)
    (out, out_theirs), (err, err_theirs) = cradle.out, cradle.err
    os.close(out_theirs)
    os.close(err_theirs)
    os.set_blocking(out, False)
    os.set_blocking(err, False)
    ours = None
    if cradle.naming is not None:
        ours, theirs = cradle.naming
        theirs.close()
    return Child(process, {out: 1, err: 2}, ours, mother.body)


def open_streams() -> None:
    """Python's own streams, whatever the descriptors under them will be: in a zygote made once, so that no container
    has to.

    With a buffer, also where the environment wants none: without one Python loses what a signal has cut short.
    """
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


def _await_life(mother: Mother, naming: socket.socket, spare: bool) -> NoReturn:
    if spare:
        rehearse()
        entitle(f"upswell: {mother.seed.label}, spare container")
    packet = naming.recv(control.MAX_PACKET_BYTES)
    if not packet:
        os._exit(0)  # a spare that nobody needs
    naming.close()
    _life(mother, control.decode_name(packet))()


def _life(mother: Mother, name: control.Name) -> Callable[[], NoReturn]:
    if mother.seed.fresh:
        return partial(_become_interpreter, control.Sprout(mother.seed, name))
    return partial(run_container, mother.seed, name, mother.failed, mother.body if name.fits else None)


def _become_container(out: int, err: int, naming: int, first: int) -> None:
    """Leave behind what belongs to the zygote: its group, its descriptors from `first` on."""
    lead_group()
    os.dup2(out, 1)
    os.dup2(err, 2)
    close_descriptors(first, keep=naming)


def _become_interpreter(sprout: control.Sprout) -> NoReturn:
    """Go on in a fresh interpreter, with nothing imported; the token is in no command line that others can read."""
    show_devices(sprout.name.launch)
    descriptor = control.parcel(sprout)
    os.set_inheritable(descriptor, True)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "upswell.container", str(descriptor)])
