"""The server's process, and the one place where seams meet implementations.

`python -m upswell.server --client-fd N` is a private server: descriptor N is its first client, and it ends with it.
With `--home DIRECTORY` it is a server that keeps what it is given, until a signal ends it.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
from pathlib import Path

from ..engines.local import LocalEngine
from ..engines.spawn import SpawnEngine

ENGINES = {"local": LocalEngine, "spawn": SpawnEngine}


def main() -> None:
    """Run a server."""
    parser = argparse.ArgumentParser(prog="python -m upswell.server", description=__doc__)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--client-fd", type=int, help="descriptor of the socket of the first client")
    kind.add_argument("--home", type=Path, help="the directory that the server keeps its state in")
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
    code_root = arguments.home / "code" / "trees" if arguments.home is not None else None
    # Forked before anything here starts a thread or a loop: see engines/local.py.
    engine = ENGINES[arguments.engine](code_root)
    from .serve import serve_home, serve_private

    if arguments.home is not None:
        from ..stores.sqlite import SqliteStore

        arguments.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        serve_home(engine, SqliteStore, arguments.home)
    else:
        from ..stores.memory import MemoryStore

        serve_private(engine, MemoryStore(), socket.socket(fileno=arguments.client_fd))
    sys.exit(0)


if __name__ == "__main__":
    main()
