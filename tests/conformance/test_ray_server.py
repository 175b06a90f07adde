"""A server on a cluster, as its users see it: programs from elsewhere, containers on nodes, TLS between all of them."""

import socket
import time
from pathlib import Path

import pytest

from tests.acceptance.processes import Program, kept_server
from upswell.server.tokens import TokenFile

from .cluster import IN_TIME, RayCluster, need_ray

need_ray()
pytestmark = IN_TIME

PROGRAM = """
    import os
    import upswell
    import helper

    app = upswell.App("cluster")

    @app.function()
    def square(x):
        return x * x

    @app.function()
    def where(x):
        print("looking for", x)
        return helper.WORDS, __file__, os.environ.get("RAY_JOB_ID"), square.remote(x), len(os.urandom(1 << 21))

    @app.function()
    def large(data):
        return data[::-1]

    @app.local_entrypoint()
    def main():
        print(sum(square.map(range(1000))))
        words, file, ray, nested, size = where.remote(5)
        print(words, "/trees/" in file, ray, nested, size)
        data = bytearray(os.urandom(3 << 20))
        print(large.remote(data) == data[::-1])
"""


@pytest.fixture
def place() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_a_program_runs_on_a_cluster(
    tmp_path_factory: pytest.TempPathFactory, ray_cluster: RayCluster, certificate: Path, place: str
) -> None:
    program = Program(tmp_path_factory.mktemp("cluster"))
    program.write(PROGRAM, "project/app.py")
    program.write("WORDS = 'from the tree'\n", "project/helper.py")
    tls = ["--tls-cert", str(certificate / "certificate.pem"), "--tls-key", str(certificate / "key.pem")]
    ray = ["--engine", "ray", "--ray-address", ray_cluster.address]
    with kept_server(program, "--listen", place, *tls, *ray):
        _, token = TokenFile(program.home).create("client", time.time())
        program.variables |= {
            "UPSWELL_SERVER": f"tls://{place}",
            "UPSWELL_TOKEN": token,
            "UPSWELL_CA": str(certificate / "certificate.pem"),
        }
        done = program.upswell("run", "project/app.py")
        assert done.out.splitlines()[0] == "332833500", done.err
        assert done.out.splitlines()[-2:] == ["from the tree True None 25 2097152", "True"], done.err
        assert "looking for 5" in done.out
