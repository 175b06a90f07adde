"""The server that runs in the background of its user and keeps what is deployed: started when first wanted."""

from __future__ import annotations

import os
import sys
import time

from .. import home
from ..errors import ConnectionError
from .client import Client, get_keeper

LOG = "server.log"  # in the home: what the server says
START_SECONDS = 30.0  # in which it must listen
LOOK_SECONDS = 0.02


def keeper_in_background() -> Client:
    """The connection to the server that keeps apps; where the user has chosen none, one in the background is started.

    Raises `ConnectionError` where the chosen one does not answer, or the background one does not start.
    """
    try:
        return get_keeper()
    except ConnectionError:
        if home.chosen_server() is not None:
            raise
    start_server(home.directory())
    words = f"started a server in the background, which keeps what it is given in {home.directory()}"
    print(f"upswell: {words}", file=sys.stderr)
    return get_keeper()


def start_server(directory: str) -> None:
    """Start a server with that home, apart from this process and its terminal, and wait until it listens."""
    home.make(directory)
    log = os.path.join(directory, LOG)
    begun = os.path.getsize(log) if os.path.exists(log) else 0
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    process = os.posix_spawn(
        sys.executable,
        # -P: nothing in the user's folder is the server's.
        [sys.executable, "-P", "-m", "upswell.server", "--home", directory],
        {**os.environ, "PYTHONPATH": package},  # of this program's own import path, nothing
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if _listens():
            return
        ended, _ = os.waitpid(process, os.WNOHANG)
        # Another one may have been started at the same moment, and this one has found the home taken.
        if ended and not _listens():
            with open(log, encoding="utf-8", errors="replace") as file:
                file.seek(begun)
                said = file.read().strip().splitlines() or ["it said nothing"]
            raise ConnectionError(f"the server could not be started: {said[-1]} (see {log})")
        time.sleep(LOOK_SECONDS)
    raise ConnectionError(f"the server did not listen within {START_SECONDS:g} s: see {log}")


def _listens() -> bool:
    try:
        get_keeper()
    except ConnectionError:
        return False
    return True
