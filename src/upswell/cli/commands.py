"""The table of commands. One is imported when it is asked for: `upswell run` pays for no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import click

from ..errors import Error

# In the order of `--help`. Each is a module of this package, with a command of its own name in it.
NAMES = ("run", "deploy", "serve", "server", "app", "function", "call", "container", "top")


# What a command gives, for `main` to call once click is done, which would answer exceptions of the user's code.
Action = Callable[[], int]


@contextmanager
def in_one_line() -> Iterator[None]:
    """Every error of ours inside is a `click.ClickException`, which is said in a line and is status 1."""
    try:
        yield
    except Error as error:
        raise click.ClickException(str(error)) from None


class Commands(click.Group):
    """All of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NAMES:
            return None
        command: click.Command = getattr(import_module(f".{cmd_name}", __package__), cmd_name)
        return command
