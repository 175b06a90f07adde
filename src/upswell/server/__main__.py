"""The server's process, and the one place where seams meet implementations.

`python -m upswell.server --client-fd N` is a private server: descriptor N is its first client, and it ends with it.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys

from ..engines.local import LocalEngine
from ..engines.spawn import SpawnEngine

ENGINES = {"local": LocalEngine, "spawn": SpawnEngine}


def main() -> None:
    """Run a private server until its client is gone."""
    parser = argparse.ArgumentParser(prog="python -m upswell.server", description=__doc__)
    parser.add_argument("--client-fd", type=int, required=True, help="descriptor of the socket of the first client")
    parser.add_argument(
        "--engine",
        default=os.environ.get("UPSWELL_ENGINE", "local"),
        help="how containers start: local (forked from a process that has done the imports) or spawn (each imports)",
    )
    arguments = parser.parse_args()
    if arguments.engine not in ENGINES:
        parser.error(f"there is no engine {arguments.engine!r}: UPSWELL_ENGINE is one of {', '.join(ENGINES)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Forked before anything here starts a thread or a loop: see engines/local.py.
    engine = ENGINES[arguments.engine]()
    from ..stores.memory import MemoryStore
    from .serve import serve_private

    serve_private(engine, MemoryStore(), socket.socket(fileno=arguments.client_fd))
    sys.exit(0)


if __name__ == "__main__":
    main()
