"""The connection to the server that runs in the background of its user and keeps what is deployed: for `deploy`."""

from __future__ import annotations

from .. import home
from ..errors import ConnectionError
from .client import Client
from .clients import get_keeper
from .home_server import ensure_background_server


def keeper_in_background() -> Client:
    """The connection to the server that keeps apps; where the user has chosen none, one in the background is started.

    Raises `ConnectionError` where the chosen one does not answer, or the background one does not start.
    """
    try:
        return get_keeper()
    except ConnectionError:
        if home.chosen_server() is not None:
            raise
    ensure_background_server()
    return get_keeper()
