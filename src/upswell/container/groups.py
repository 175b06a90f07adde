"""Control groups: the kernel counts and limits the memory of a container and of all it starts.

A group is made beside or below the one this process is in, where that is allowed; where none can be made there is the
limit of `limits.py`. Groups carry the root zygote's process id in their name, which removes them when it ends; those of
one that could not are removed by the next that makes a group.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

PREFIX = "upswell"
MOUNTS, MEMBERSHIP = "/proc/self/mountinfo", "/proc/self/cgroup"


class Group:
    """The group of one container, with a limit in bytes."""

    def __init__(self, path: str, limit: int, unified: bool) -> None:
        os.mkdir(path)
        self._path = path
        self._unified = unified
        self.limit = limit
        self.rang = False  # whether somebody saw the alarm
        self.alarm = -1  # readable once the limit was hit; none where the kernel kills the whole group by itself
        try:
            self._set_limit()
        except OSError:
            self.remove()
            raise

    @classmethod
    def make(cls, owner: int, container: str, limit: int) -> Group | None:
        """A group for the container; `owner` is the root zygote. `None` where no group can be made."""
        place = where_groups_go()
        if place is None:
            return None
        try:
            return cls(f"{place.folder}/{PREFIX}-{owner}-{container}", limit, place.unified)
        except OSError:
            return None

    def enter(self, process: int) -> bool:
        """Put the process into the group; what it forks from now on is in it too. False where that is not allowed."""
        return self._write_if_there("cgroup.procs", str(process))

    def overrun(self) -> str:
        """In words, that the group needed more memory than its limit, so that it had to end; "" if it did not."""
        events = self._fields("memory.events" if self._unified else "memory.oom_control")
        if not (self.rang or events.get("oom_kill")):
            return ""
        peak = self._number("memory.peak" if self._unified else "memory.max_usage_in_bytes") or self.limit
        return (
            f"out of memory: the container and what it started had {peak / 2**20:.0f} MiB in use and needed more, "
            f"and its limit is {self.limit / 2**20:.0f} MiB"
        )

    def remove(self) -> bool:
        """Remove the group; false while a process is in it."""
        if self.alarm >= 0:
            os.close(self.alarm)
        self.alarm = -1
        return _remove(self._path)

    def _set_limit(self) -> None:
        if self._unified:
            self._write("memory.max", str(self.limit))
            self._write("memory.oom.group", "1")
            self._write_if_there("memory.swap.max", "0")
            return
        self._write("memory.limit_in_bytes", str(self.limit))
        self._write_if_there("memory.memsw.limit_in_bytes", str(self.limit))
        # Here the kernel kills one process, perhaps a child of the container: it is told, and ends the others.
        control = os.open(f"{self._path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._write_if_there("cgroup.event_control", f"{self.alarm} {control}")
        finally:
            os.close(control)

    def _write(self, name: str, text: str) -> None:
        with open(f"{self._path}/{name}", "w", encoding="ascii") as file:
            file.write(text)

    def _write_if_there(self, name: str, text: str) -> bool:
        try:
            self._write(name, text)
        except OSError:
            return False
        return True

    def _number(self, name: str) -> int:
        text = text_of(f"{self._path}/{name}")
        return int(text) if text.isdigit() else 0

    def _fields(self, name: str) -> dict[str, int]:
        pairs = (line.split() for line in text_of(f"{self._path}/{name}").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def remove_all(owner: int) -> None:
    """Remove the groups that the root zygote `owner` had made, all of whose processes are gone."""
    if place := where_groups_go():
        for path, maker in _made(place):
            if maker == owner:
                _remove(path)


class Place(NamedTuple):
    """Where groups can be made, and whether in the unified hierarchy (version 2)."""

    folder: str
    unified: bool


@cache
def where_groups_go() -> Place | None:
    """The place for groups of this process; what others have left behind there is removed."""
    try:
        with open(MOUNTS, encoding="utf-8") as mounts, open(MEMBERSHIP, encoding="utf-8") as membership:
            place = find_place(mounts.read(), membership.read())
    except OSError:
        return None
    for path, owner in _made(place) if place else ():
        if not os.path.exists(f"/proc/{owner}"):
            _remove(path)
    return place


def _made(place: Place) -> list[tuple[str, int]]:
    """The groups of containers that are there: path, and root zygote."""
    named = [(name, name.split("-")) for name in os.listdir(place.folder) if name.startswith(PREFIX + "-")]
    return [(f"{place.folder}/{name}", int(parts[1])) for name, parts in named if parts[1].isdigit()]


def find_place(mounts: str, membership: str) -> Place | None:
    """Where memory groups can be made, from the texts of mountinfo and cgroup in /proc/self."""
    for own, folder, unified in find_memberships("memory", mounts, membership):
        if not unified and os.access(own, os.W_OK):
            return Place(own, False)
        if unified:
            # A group that has processes can't hand memory on to groups below it, so the usual place is beside.
            for near in (own, os.path.dirname(own)) if own != folder else (own,):
                if "memory" in text_of(f"{near}/cgroup.subtree_control").split() and os.access(near, os.W_OK):
                    return Place(near, True)
    return None


class Membership(NamedTuple):
    """The group that this process is in, and the folder at which that hierarchy begins as far as it can be seen."""

    own: str
    folder: str
    unified: bool


def find_memberships(controller: str, mounts: str, membership: str) -> Iterator[Membership]:
    """The groups of this process that the controller may act upon, from the same texts."""
    groups = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, folder = before.split()[3:5]
        kind, _, options = after.split()[:3]
        unified = kind == "cgroup2"
        if unified or (kind == "cgroup" and controller in options.split(",")):
            group = groups.get("" if unified else controller)
            if group is not None and (own := _below(folder, root, group)):
                yield Membership(own, folder, unified)


def text_of(path: str) -> str:
    """What a file of the kernel's says; "" where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _below(folder: str, root: str, path: str) -> str | None:
    """The folder of the group `path`, where the group `root` is mounted on `folder`."""
    relative = os.path.relpath(path, root)
    return None if relative.startswith("..") else os.path.normpath(f"{folder}/{relative}")


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
