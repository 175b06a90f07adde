"""The cluster for tests that want one, and what TLS takes."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from tests.pretended import make_certificate

from .cluster import RayCluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    folder = Path(mkdtemp(prefix="ray-"))  # names of sockets are long, and may have a hundred characters only
    cluster = RayCluster(folder / "c", 2, 2)
    yield cluster
    cluster.close()
    rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, and the key with it."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))
