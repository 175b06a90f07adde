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

from ..engines.local import REJOIN_SECONDS, LocalEngine
from ..engines.spawn import SpawnEngine

ENGINES = {"local": LocalEngine, "spawn": SpawnEngine}


def main() -> None:
    """Run a server."""
    arguments = read_arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.home is not None:
        sys.exit(serve_in(arguments.home.absolute(), arguments))
    # Forked before anything here starts a thread or a loop: see engines/local.py.
    engine = ENGINES[engine_name(arguments.engine)](None)
    from ..stores.memory import MemoryStore
    from .serve import serve_private

    serve_private(engine, MemoryStore(), socket.socket(fileno=arguments.client_fd))
    sys.exit(0)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m upswell.server", description=__doc__)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--client-fd", type=int, help="descriptor of the socket of the first client")
    kind.add_argument("--home", type=Path, help="the directory that the server keeps its state in")
    parser.add_argument(
        "--engine",
        default="",
        help="how containers start: local (forked from a process that has done the imports) or spawn (each imports)",
    )
    parser.add_argument(
        "--rejoin-seconds",
        type=float,
        default=REJOIN_SECONDS,
        help="how long containers go on without a server that was killed, and wait for the next one with its home",
    )
    parser.add_argument("--listen", default="", metavar="HOST:PORT", help="listen there too, for other machines")
    parser.add_argument("--tls-cert", default="", metavar="FILE", help="the certificate to show there")
    parser.add_argument("--tls-key", default="", metavar="FILE", help="the certificate's key")
    parser.add_argument("--background", action="store_true", help="write to the log in the home, and nowhere else")
    return parser.parse_args()


def engine_name(chosen: str) -> str:
    """The engine that was chosen, or else that of the environment; ends the process where there is none of the name."""
    name = chosen or os.environ.get("UPSWELL_ENGINE") or "local"
    if name not in ENGINES:
        print(f"upswell: there is no engine {name!r}: UPSWELL_ENGINE is one of {', '.join(ENGINES)}", file=sys.stderr)
        sys.exit(2)
    return name


def serve_in(directory: Path, arguments: argparse.Namespace) -> int:
    """Serve the home until a signal ends that, and return the exit status: 1 where it could not begin."""
    from .. import home
    from ..errors import Error
    from .notice import Notice

    notice = Notice()
    try:
        home.make(str(directory))
        serving = home.configuration(str(directory)).serve
        serving = serving.changed(arguments.listen, arguments.tls_cert, arguments.tls_key)
        # Forked before anything here starts a thread or a loop: see engines/local.py.
        make_engine = ENGINES[engine_name(arguments.engine or serving.engine)]
        engine = make_engine(directory / "code" / "trees", directory, arguments.rejoin_seconds)
        from ..stores.sqlite import SqliteStore
        from .log import begin_log
        from .serve import serve_home

        begin_log(directory, in_background=arguments.background)
        serve_home(engine, SqliteStore, directory, serving, notice)
    except Error as error:
        print(f"upswell: {error}", file=sys.stderr)
        notice.failed(str(error))
        return 1
    return 0


if __name__ == "__main__":
    main()
