"""The server's process, and the one place where seams meet implementations.

`python -m upswell.server --client-fd N` is a private server: descriptor N is its first client, and it ends with it. The
shortcut for outputs to that client is where `wire/shortcut.py` says.
With `--home DIRECTORY` it is a server that keeps what it is given, until a signal ends it.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from typing import TYPE_CHECKING, Any

from ..wire import shortcut

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ..engine import Engine
    from ..engines.local import LocalEngine
    from ..home import Serving
    from ..spec import FunctionRecord

ON_A_CLUSTER = "ray"  # for a server with a home only
PEEK_BYTES = 64 << 10  # of what the first client has said already
LEAST_FILES = 64  # open at once: nearly half of them it has before anybody comes


def main() -> None:
    """Run a server."""
    gc.disable()  # until everything is imported: collections take a tenth of that time, and find nothing
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if sys.argv[1:2] == ["--client-fd"]:
        serve_client(socket.socket(fileno=int(sys.argv[2])))
        os._exit(0)  # everything is closed, and who waits need not wait until modules are taken apart
    arguments = read_arguments()
    sys.exit(serve_in(arguments.home.absolute(), arguments, files))


def serve_client(client: socket.socket) -> None:
    """Be the private server of the program at the other end."""
    # Forked before anything here starts a thread or a loop: see engines/local.py.
    os.set_inheritable(shortcut.DESCRIPTOR, False)
    engine = local_engine("", shortcut=shortcut.DESCRIPTOR)
    for function in declared(client):
        engine.prepare(function)  # so that the user's code is imported beside what follows
    from ..stores.memory import MemoryStore
    from .serve import serve_private

    _collect_again()
    serve_private(engine, MemoryStore(), client)


def declared(client: socket.socket) -> list[FunctionRecord]:
    """What the client has declared by now. All of it stays where it is, for the server to read."""
    from ..wire.codec import Decoder, ProtocolError
    from ..wire.messages import OpenApp

    try:
        frames = Decoder().feed(client.recv(PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except (OSError, ProtocolError):
        return []  # nothing was said yet, or what the server will complain of
    return [function for message, _ in frames if isinstance(message, OpenApp) for function in message.functions]


def read_arguments() -> argparse.Namespace:
    """The command line of a server with a home."""
    import argparse
    from pathlib import Path

    from ..engines.local import REJOIN_SECONDS

    parser = argparse.ArgumentParser(prog="python -m upswell.server", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the directory that the server keeps its state in")
    parser.add_argument(
        "--engine",
        default="",
        help="how containers start: local (forked from a process that has done the imports), spawn (each imports), "
        "or ray (as local, on the nodes of a Ray cluster)",
    )
    parser.add_argument(
        "--rejoin-seconds",
        type=float,
        default=REJOIN_SECONDS,
        help="how long containers go on without a server that was killed, and wait for the next one with its home",
    )
    parser.add_argument("--ray-address", default="", metavar="HOST:PORT", help="the cluster, if not that of this node")
    parser.add_argument("--ray-namespace", default="", metavar="NAME", help="Ray's namespace for what is asked of it")
    parser.add_argument("--ray-host", default="", metavar="HOST", help="the name by which the nodes reach this machine")
    parser.add_argument("--listen", default="", metavar="HOST:PORT", help="listen there too, for other machines")
    parser.add_argument("--tls-cert", default="", metavar="FILE", help="the certificate to show there")
    parser.add_argument("--tls-key", default="", metavar="FILE", help="the certificate's key")
    parser.add_argument("--background", action="store_true", help="write to the log in the home, and nowhere else")
    return parser.parse_args()


def local_engine(chosen: str, *arguments: Any, **options: Any) -> LocalEngine:
    """Make the engine that was chosen, or else that of the environment; `InvalidError` where there is none."""
    from .. import home
    from ..engines.local import LocalEngine
    from ..engines.spawn import SpawnEngine

    return (SpawnEngine if home.local_engine(chosen) == "spawn" else LocalEngine)(*arguments, **options)


def _engine(directory: Path, arguments: argparse.Namespace, serving: Serving) -> Engine:
    """The engine of a server with this home."""
    name = arguments.engine or serving.engine or os.environ.get("UPSWELL_ENGINE", "")
    code_root = directory / "code" / "trees"
    if name != ON_A_CLUSTER:
        return local_engine(name, code_root, directory, arguments.rejoin_seconds)
    from ..engines.ray.engine import Cluster, RayEngine, prefix_of

    return RayEngine(
        Cluster(
            address=arguments.ray_address or serving.ray.address,
            namespace=arguments.ray_namespace or serving.ray.namespace,
            prefix=prefix_of(directory),
            host=arguments.ray_host or serving.ray.host or "127.0.0.1",
            bind=serving.listen.rpartition(":")[0].strip("[]") or "127.0.0.1",
            certificate=serving.certificate,
            key=serving.key,
            grows_to_cpus=serving.ray.grows_to_cpus,
            grows_to_gpus=serving.ray.grows_to_gpus,
        ),
        code_root,
        directory,
        arguments.rejoin_seconds,
    )


def serve_in(directory: Path, arguments: argparse.Namespace, files: int) -> int:
    """Serve the home until a signal ends that, and return the exit status: 1 where it could not begin. So many `files`
    may be open at once.
    """
    from .. import home
    from ..errors import Error, ResourceExhaustedError
    from .notice import Notice

    notice = Notice()
    try:
        if 0 <= files < LEAST_FILES:
            raise ResourceExhaustedError(
                f"a server needs at least {LEAST_FILES} open files, and may have {files} here: raise `ulimit -Hn`"
            )
        home.make(str(directory))
        serving = home.configuration(str(directory)).serve
        serving = serving.changed(arguments.listen, arguments.tls_cert, arguments.tls_key)
        # Forked before anything here starts a thread or a loop: see engines/local.py.
        engine = _engine(directory, arguments, serving)
        from ..stores.sqlite import SqliteStore
        from .log import begin_log
        from .serve import serve_home

        _collect_again()
        begin_log(directory, in_background=arguments.background)
        serve_home(engine, SqliteStore, directory, serving, notice)
    except Error as error:
        print(f"upswell: {error}", file=sys.stderr)
        notice.failed(str(error))
        return 1
    return 0


def _collect_again() -> None:
    """Everything is imported, and stays."""
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    main()
