"""The cluster for tests that want one, and what TLS takes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pretended import make_certificate

from .cluster import RayCluster, small_cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    with small_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, and the key with it."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))
