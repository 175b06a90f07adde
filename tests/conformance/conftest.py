"""The cluster for tests that want one."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from .cluster import RayCluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    folder = Path(mkdtemp(prefix="ray-"))  # names of sockets are long, and may have a hundred characters only
    cluster = RayCluster(folder / "c", 2, 2)
    yield cluster
    cluster.close()
    rmtree(folder, ignore_errors=True)
