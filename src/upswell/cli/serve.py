"""`upswell serve`: this process becomes the server, in the foreground."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from .. import home

FILES = ("tls_cert", "tls_key")
F = TypeVar("F", bound=Callable[..., Any])

HELP = """Run a server that keeps apps and calls, until a signal ends it.

\b
  upswell serve                                     for the programs of its user, on this machine
  upswell serve --listen 0.0.0.0:7400 --tls-cert server.pem --tls-key server.key
                                                    for other machines, too: they need a token,
                                                    which `upswell server token create` makes
  upswell serve --engine ray                        with containers on the nodes of a Ray cluster

Its state is in UPSWELL_HOME (~/.upswell); config.toml there may say all of this under [serve].
`upswell server start` runs the same in the background.
"""


def home_option(command: F) -> F:
    """`--home`, which says for the command and all that it starts which home it is about."""

    def choose(context: click.Context, parameter: click.Parameter, directory: str | None) -> None:
        if directory:
            os.environ["UPSWELL_HOME"] = os.path.abspath(directory)

    words = "In place of UPSWELL_HOME."
    option = click.option("--home", metavar="DIR", type=click.Path(), expose_value=False, callback=choose, help=words)
    return option(command)


def serving_options(command: F) -> F:
    """The options of a server, which `upswell server start` has too."""
    for option in (
        click.option("--ray-host", metavar="HOST", help="The name by which the cluster's nodes reach this machine."),
        click.option("--ray-namespace", metavar="NAME", help="Ray's namespace for what is asked of it."),
        click.option("--ray-address", metavar="HOST:PORT", help="The Ray cluster, if not that of this node."),
        click.option("--engine", type=click.Choice(["local", "spawn", "ray"]), help="How containers start."),
        click.option("--tls-key", metavar="F", type=click.Path(), help="The certificate's key."),
        click.option("--tls-cert", metavar="F", type=click.Path(), help="The certificate to show there."),
        click.option("--listen", metavar="HOST:PORT", help="Where other machines connect, with TLS and a token."),
        home_option,
    ):
        command = option(command)
    return command


def as_arguments(options: Mapping[str, str | None]) -> tuple[str, ...]:
    """The options as the server's process takes them; names of files as seen from here."""
    given = {name: value for name, value in options.items() if value}
    given.update({name: os.path.abspath(given[name]) for name in FILES if name in given})
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in given.items())


@click.command(help=HELP, short_help="Run a server in the foreground.")
@serving_options
def serve(**options: str | None) -> None:
    """Become the server."""
    where = home.directory()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [os.path.dirname(home.PACKAGE), os.environ.get("PYTHONPATH")])
    )
    # A fresh interpreter: the first thing that a server does is to fork, and this one has imported a command line.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "upswell.server", "--home", where, *as_arguments(options)])
