"""What people see of a process in `ps` and `top`: without a title every fork looks like the server that it is from.

The words of the command line are written over in place, so a title has no more room than they had.
"""

from __future__ import annotations

import ctypes
from functools import cache

from .lineage import prctl

PR_SET_NAME = 15
ARG_START = 45  # of what /proc/self/stat says after the name, counted from 0; its end comes next


def entitle(title: str) -> None:
    """From now on this process, and what it forks, is shown as this; nothing where that can't be."""
    if prctl is None:
        return
    text = title.encode(errors="replace")
    prctl(PR_SET_NAME, text, 0, 0, 0)  # of which the kernel keeps 15 bytes
    start, size = _room()
    if size:
        ctypes.memmove(start, text[: size - 1].ljust(size, b"\0"), size)


@cache
def _room() -> tuple[int, int]:
    """Address and size of the command line in this process, and in all that are forked from it."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        start, end = map(int, fields[ARG_START : ARG_START + 2])
    except (OSError, ValueError):
        return 0, 0
    return start, end - start
