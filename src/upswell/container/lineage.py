"""Processes and those they start: what a container leaves running ends with it, and everything ends with the engine.

A child is told of its parent's end by the kernel (`die_with_parent`). What a dead process has started itself, in groups
and sessions of its own too, comes to the next process above it that adopts orphans: a container while it lives, then
its zygote, then the root zygote. The latter two are guardians: they end what comes to them and is not their own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from . import signals

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LAST_DESCRIPTOR = 2**31 - 1

_libc = ctypes.CDLL(None)
# Looked up here, so that no child has to: each looks up in pages that are copied for it.
prctl = _libc.prctl if sys.platform == "linux" else None
_close_range = getattr(_libc, "close_range", None)
_setpgid = _libc.setpgid  # what `os.setpgid` calls is looked for when that is first called, which is in each child
_parent = os.getppid
_KILL = int(signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which forked it, dies."""
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, _KILL, 0, 0, 0)
    if _parent() != parent:
        os._exit(1)  # it died before the kernel was told


def adopt_orphans() -> None:
    """From now on processes whose parents die below this one become its children."""
    if prctl is not None:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def lead_group() -> None:
    """Have a process group of one's own, with whatever is started from now on."""
    _setpgid(0, 0)


def close_descriptors(first: int, *, keep: int = -1) -> None:
    """Close every descriptor from `first` on but `keep`, at a cost that does not grow with how many there may be."""
    edges = [(first, keep - 1), (keep + 1, LAST_DESCRIPTOR)] if keep >= first else [(first, LAST_DESCRIPTOR)]
    for low, high in edges:
        if low <= high and (_close_range is None or _close_range(low, high, 0)):
            for descriptor in [int(name) for name in os.listdir("/dev/fd")]:
                if low <= descriptor <= high:
                    os.closerange(descriptor, descriptor + 1)  # one that is closed already is no error


def kill_group(process: int) -> None:
    """Kill the process group that `process`, which was not waited for, leads; and `process` if it leads none yet."""
    for kill in (os.killpg, os.kill):
        try:
            kill(process, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


class Guardian:
    """The children of this process: those it started, and orphans that came to it."""

    def __init__(self) -> None:
        adopt_orphans()
        self.own = set(children())  # what was started before there was a guardian counts as its own
        self.wake, self._woken = os.pipe()  # readable when a child has ended
        os.set_blocking(self.wake, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)

    def leave(self) -> None:
        """In a forked child, which closes all descriptors: its children are its own affair."""
        signals.forget_children()

    def reap(self) -> list[tuple[int, int]]:
        """Reap what has ended, and end its group and all orphans; process and wait status of each own child."""
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            pass
        ended: list[tuple[int, int]] = []
        while process := _ended_child():
            if process in self.own:
                kill_group(process)  # before it is waited for: until then nobody else can have its number
                self.own.discard(process)
                ended.append(os.waitpid(process, 0))
            else:
                os.waitpid(process, 0)
        for orphan in set(children()) - self.own:
            kill_group(orphan)  # its own orphans come here when it is gone, and this is called again
        return ended

    def end_all(self) -> None:
        """Kill and reap every descendant; returns when there is none."""
        while left := children():
            for process in left:
                kill_group(process)
            os.waitpid(left[0], 0)
            while process := _ended_child():
                os.waitpid(process, 0)


def _note(*_: object) -> None:
    """That a child has ended says the byte that the signal leaves in `Guardian.wake`."""


def children() -> list[int]:
    """The children of this process, dead ones that were not waited for included."""
    found: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as listed:
                found += map(int, listed.read().split())
    except OSError:
        return _children_by_parent()
    return found


def _children_by_parent() -> list[int]:
    """The same where the kernel keeps no list: whoever names this process as its parent."""
    me, found = str(os.getpid()), []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                if stat.read().rpartition(")")[2].split()[1] == me:
                    found.append(int(name))
        except (OSError, IndexError):
            continue
    return found


def _ended_child() -> int:
    """A child that has ended and was not waited for; 0 where there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0
