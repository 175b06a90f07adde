"""The server that a command is about, and what is said where it can't be had or refuses: one line, and status 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..sdk.client import Client
from ..sdk.clients import get_keeper
from .commands import in_one_line


@contextmanager
def connected() -> Iterator[Client]:
    """The connection to the chosen server, else to the one that runs in the background.

    Raises `click.ClickException` for every error of ours inside.
    """
    with in_one_line():
        yield get_keeper()
