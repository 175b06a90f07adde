"""The memory limit of a container within its own process: an allocation beyond it fails, and the input with it.

Where there is a control group (`groups.py`), that counts what is used, by the container and by all it starts; here then
only what could never fit is refused, early and with a traceback.
"""

from __future__ import annotations

import os
import resource

from ..spec import Resources

MIB = 1 << 20
RESERVED_BYTES = 256 * MIB  # room, in a group, for memory that is reserved and never used, such as stacks of threads


def limit_memory(resources: Resources, in_group: bool) -> None:
    """Let this process have `memory_mib` of private memory, what it uses already included."""
    if not resources.memory_mib or not hasattr(resource, "RLIMIT_DATA"):
        return
    allowed = resources.memory_mib * MIB
    if in_group:
        allowed = 2 * allowed + RESERVED_BYTES
    # Address space that was reserved and never touched, such as stacks of threads, is not the user's.
    reserved = _status_bytes("VmData") - _status_bytes("RssAnon")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (reserved + allowed, hard))


def memory_in_use() -> int:
    """Bytes of private memory that this process holds."""
    return _status_bytes("RssAnon")


def _status_bytes(field: str) -> int:
    try:
        with open(f"/proc/{os.getpid()}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
