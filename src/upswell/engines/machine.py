"""What this machine has for containers: cores, and bytes of memory.

Where the server is in a control group with limits, as in a container of Docker or Kubernetes, that is what the group
may have, and each group above it.
"""

from __future__ import annotations

import os
from functools import cache

from ..container.groups import MEMBERSHIP, MOUNTS, Membership, find_memberships, text_of

GUESSED_BYTES = 8 << 30  # of a machine that does not say
NO_LIMIT_BYTES = 1 << 60  # groups of version 1 say a number where there is no limit


def cores() -> float:
    """How many processors may be used, or how much of them."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(here), *(share for group in _groups("cpu") if (share := cpu_limit(*group)) is not None)])


def memory() -> tuple[int, int]:
    """Bytes that are free, and bytes in all."""
    counted = _fields("/proc/meminfo", "MemTotal", "MemAvailable")
    total = 1024 * counted.get("MemTotal", 0) or GUESSED_BYTES
    free = 1024 * counted.get("MemAvailable", 0) or total // 2
    for group in _groups("memory"):
        if (limited := memory_limit(*group)) is not None:
            free, total = min(free, limited[0]), min(total, limited[1])
    return free, total


def cpu_limit(group: str, unified: bool) -> float | None:
    """How many processors the group may use; `None` where that is not limited."""
    if unified:
        quota, _, period = text_of(f"{group}/cpu.max").partition(" ")
    else:
        quota, period = text_of(f"{group}/cpu.cfs_quota_us"), text_of(f"{group}/cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def memory_limit(group: str, unified: bool) -> tuple[int, int] | None:
    """Bytes that the group may still take, and may have in all; `None` where that is not limited."""
    limit = text_of(f"{group}/memory.max" if unified else f"{group}/memory.limit_in_bytes")
    if not limit.isdigit() or int(limit) >= NO_LIMIT_BYTES:
        return None
    used = text_of(f"{group}/memory.current" if unified else f"{group}/memory.usage_in_bytes")
    if not used.isdigit():
        return None
    # Of files that were read nobody holds on to what is in memory.
    field = "inactive_file" if unified else "total_inactive_file"
    files = _fields(f"{group}/memory.stat", field).get(field, 0)
    return max(0, int(limit) - max(0, int(used) - files)), int(limit)


def kibibytes(path: str, field: str) -> int | None:
    """A field of a file of the kernel's that counts in kB, as bytes; `None` where it can't be read."""
    found = _fields(path, field).get(field)
    return None if found is None else found * 1024


@cache
def _groups(controller: str) -> list[tuple[str, bool]]:
    """The groups that limit this process: folder, and whether of the unified hierarchy."""
    limit = cpu_limit if controller == "cpu" else memory_limit
    found = find_memberships(controller, *_texts())
    groups = [(folder, one.unified) for one in found for folder in _upwards(one)]
    return [group for group in groups if limit(*group) is not None]


@cache
def _texts() -> tuple[str, str]:
    """What the kernel says of groups; making the first of the two takes it long."""
    return text_of(MOUNTS), text_of(MEMBERSHIP)


def _upwards(membership: Membership) -> list[str]:
    """The group of the process, and those that it is in."""
    folders = [membership.own]
    while folders[-1] != membership.folder and folders[-1] != "/":
        folders.append(os.path.dirname(folders[-1]))
    return folders


def _fields(path: str, *wanted: str) -> dict[str, int]:
    """Of these fields of a file of the kernel's, those that are there. Making such a file takes it long."""
    found: dict[str, int] = {}
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                name, _, value = line.partition(" ")
                if (name := name.rstrip(":")) in wanted:
                    found[name] = int(value.split()[0])
                    if len(found) == len(wanted):
                        break
    except OSError:
        pass
    return found
