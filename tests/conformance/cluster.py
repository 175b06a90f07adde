"""The Ray cluster that tests run on: one for all of them, as it takes half a minute and most of a gigabyte."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import psutil
import pytest

ASKED_FOR = bool(os.environ.get("UPSWELL_TEST_RAY")) and find_spec("ray") is not None
IN_TIME = pytest.mark.timeout(180)
OVER_RAY = [pytest.param("ray", marks=IN_TIME)] if ASKED_FOR else []


def need_ray() -> None:
    """Skip the module where nobody asked for it."""
    if not ASKED_FOR:
        pytest.skip("Ray is heavy: `make test-ray` runs this, and other engines' tests too", allow_module_level=True)


@contextmanager
def small_cluster() -> Iterator[RayCluster]:
    """A cluster of two nodes with two processors each."""
    folder = Path(mkdtemp(prefix="ray-"))  # names of sockets are long, and may have a hundred characters only
    cluster = RayCluster(folder / "c", 2, 2)
    yield cluster
    cluster.close()
    rmtree(folder, ignore_errors=True)


class RayCluster:
    """The program that is the cluster."""

    def __init__(self, folder: Path, *cpus: int | str) -> None:
        folder.mkdir(parents=True)
        self._words = (folder / "words").open("w+")
        self._program = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ray_cluster.py")), str(folder / "ray"), *map(str, cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env={**os.environ, "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"},
            cwd=folder,
            text=True,
        )
        self.address = self._heard()
        assert self.address, f"the cluster did not start: {(folder / 'words').read_text()[-2000:]}"

    def _heard(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline().strip()

    def do(self, line: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()
        assert self._heard() == "done"

    def processes(self) -> set[psutil.Process]:
        """All that belong to it, with the leases and containers on its nodes."""
        program = psutil.Process(self._program.pid)
        return {program, *program.children(recursive=True)}

    def close(self) -> None:
        assert self._program.stdin is not None and self._program.stdout is not None
        mine = self.processes()
        self._program.stdin.close()
        self._program.wait()
        self._program.stdout.close()
        self._words.close()
        _, alive = psutil.wait_procs(mine, timeout=30)
        for process in alive:
            process.kill()
