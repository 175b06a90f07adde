"""What a machine has for containers, where control groups let this process have less."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from upswell.container.groups import Group, where_groups_go
from upswell.engines import machine

MIB = 1 << 20


def kept(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")
    return str(folder)


def test_without_limits_it_is_all_there_is() -> None:
    free, total = machine.memory()
    assert 0 < free <= total <= psutil.virtual_memory().total
    assert 0 < machine.cores() <= len(os.sched_getaffinity(0))


def test_version_2(tmp_path: Path) -> None:
    group = kept(tmp_path, memory__max="max", memory__current=f"{300 * MIB}", cpu__max="max 100000")
    assert (machine.memory_limit(group, True), machine.cpu_limit(group, True)) == (None, None)
    kept(tmp_path, memory__max=f"{512 * MIB}", cpu__max="150000 100000")
    assert machine.memory_limit(group, True) == (212 * MIB, 512 * MIB)
    kept(tmp_path, memory__stat=f"anon 1\ninactive_file {100 * MIB}\nactive_file 7")
    assert machine.memory_limit(group, True) == (312 * MIB, 512 * MIB), "what was read from files can go"
    assert machine.cpu_limit(group, True) == 1.5


def test_version_1(tmp_path: Path) -> None:
    group = kept(tmp_path, memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes=f"{600 * MIB}")
    kept(tmp_path, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert (machine.memory_limit(group, False), machine.cpu_limit(group, False)) == (None, None)
    kept(tmp_path, memory__limit_in_bytes=f"{512 * MIB}", cpu__cfs_quota_us="50000")
    assert (machine.memory_limit(group, False), machine.cpu_limit(group, False)) == ((0, 512 * MIB), 0.5)


def test_where_nothing_is_said(tmp_path: Path) -> None:
    assert (machine.memory_limit(str(tmp_path), True), machine.cpu_limit(str(tmp_path), False)) == (None, None)


@pytest.mark.skipif(where_groups_go() is None, reason="no control group for memory can be made here")
def test_in_a_group_with_a_limit() -> None:
    group = Group.make(os.getpid(), "machine", 300 * MIB)
    assert group is not None
    print_it = "import sys; sys.stdin.read(); from upswell.engines import machine; print(*machine.memory())"
    with subprocess.Popen([sys.executable, "-c", print_it], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inside:
        assert group.enter(inside.pid)
        out, _ = inside.communicate()
    free, total = map(int, out.split())
    assert total == 300 * MIB and 100 * MIB < free < total
    assert group.remove()
