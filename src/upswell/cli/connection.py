"""The server that a command is about, and what is said where it can't be had or refuses: one line, and status 1."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from ..errors import ConnectionError, Error
from ..sdk.client import Client, configured_server, join_client, leave_client

Action = Callable[[], int]


@contextmanager
def connected() -> Iterator[Client]:
    """The connection to the configured server, else to the one that runs in the background.

    Raises `click.ClickException` for every error of ours inside.
    """
    try:
        if configured_server() is None:
            os.environ["UPSWELL_SERVER"] = background_server()
        client = join_client()
        try:
            yield client
        finally:
            leave_client()
    except Error as error:
        raise click.ClickException(str(error)) from None


def background_server() -> str:
    """The address of the server that keeps its state in `UPSWELL_HOME`."""
    home = os.path.abspath(os.path.expanduser(os.environ.get("UPSWELL_HOME") or "~/.upswell"))
    path = os.path.join(home, "server.sock")
    if not os.path.exists(path):
        raise ConnectionError(
            f"no server runs in {home}: start one with `upswell serve`, or set UPSWELL_SERVER to the address of another"
        )
    return f"unix:{path}"
