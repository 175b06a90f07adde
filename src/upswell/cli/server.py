"""`upswell server`: the server in the background, its log, a copy of its state, and the tokens that open it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import home
from ..errors import ConnectionError
from .commands import Action, in_one_line
from .serve import as_arguments, home_option, serving_options
from .tables import as_json, counted, tell

if TYPE_CHECKING:
    from ..server.tokens import Token

STATUS_NONE_RUNS = 3  # as `systemctl status` has it
LOOK_SECONDS = 0.2  # at the log, for what is new
BACKUP_SECONDS = 3600.0


@click.group(help="The server in the background: start, stop, look at, back up, and let others in.")
def server() -> None:
    """All of it is about the home, UPSWELL_HOME."""


@server.command(short_help="Start it in the background.")
@serving_options
@as_json
def start(as_json: bool, **options: str | None) -> None:
    """Start the server of UPSWELL_HOME in the background, unless it runs, and wait until it answers."""
    from ..sdk import home_server

    with in_one_line():
        started = home_server.start(as_arguments(options))
    words = "the server runs" if started.fresh else "the server runs already"
    if not started.fresh and any(options.values()):
        print("upswell: it runs as it was started: for other options, stop it first", file=sys.stderr)
    tell(started._asdict(), as_json, f"{words}: process {started.process}, {started.address}")


@server.command(short_help="End it; containers may clean up.")
@home_option
@as_json
def stop(as_json: bool) -> None:
    """End the server of UPSWELL_HOME. Containers run their exit hooks; calls that are kept go on at the next start."""
    from ..sdk import home_server

    with in_one_line():
        process = home_server.stop()
    none = process is None
    words = f"no server ran in {home.directory()}" if none else f"the server, process {process}, has ended"
    tell({"process": process}, as_json, words)


@server.command(short_help="Whether it runs, where, and what it has.")
@home_option
@as_json
def status(as_json: bool) -> int:
    """Say whether the server that programs use runs, and what it has. Exit status 3 where none does."""
    import json

    from ..sdk import home_server

    with in_one_line():
        asked = home.chosen_server() or home.background_server()
        try:
            found = home_server.describe(asked)
        except ConnectionError as error:
            words = f"{error}: start one by `upswell server start`" if home.chosen_server() is None else error
            print(json.dumps({"running": False, "address": asked.address}) if as_json else words)
            return STATUS_NONE_RUNS
    fields = {name: getattr(found, name) for name in found.__struct_fields__ if name != "request"}
    if as_json:
        print(json.dumps({"running": True, **fields}, indent=2))
        return 0
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.since))
    print(f"upswell {found.version}, process {found.process}, since {since}")
    for address in found.addresses:
        print(f"  {address}")
    counts = {"app": found.apps, "function": found.functions, "container": found.containers}
    print("  " + ", ".join(counted(count, what) for what, count in counts.items()))
    print(f"  {found.kept_bytes / (1 << 20):,.1f} MiB kept")
    if found.trouble:
        print(f"  the last that came was refused, or waits: {found.trouble}")
    return 0


@server.command(short_help="What it has written to its log.")
@home_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="How many at first.")
def logs(follow: bool, lines: int) -> Action:
    """Print the end of the log of the server of UPSWELL_HOME."""
    path = os.path.join(home.directory(), home.LOG)
    try:
        with in_one_line():
            log = home.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        raise click.ClickException(f"there is no log in {home.directory()}: no server has run there") from None
    # Ctrl-C is how following ends, and not for click to answer.
    return lambda: _print_log(log, path, follow, lines)


def _print_log(log: int, path: str, follow: bool, lines: int) -> int:
    with open(log, encoding="utf-8", errors="replace") as file:
        print(*deque(file, lines), sep="", end="")
        position, inode = file.tell(), os.fstat(file.fileno()).st_ino
    while follow:
        sys.stdout.flush()
        time.sleep(LOOK_SECONDS)
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
            if os.fstat(file.fileno()).st_ino == inode:
                file.seek(position)
            inode = os.fstat(file.fileno()).st_ino  # a log that is full is begun anew
            print(file.read(), end="")
            position = file.tell()
    return 0


@server.command(short_help="A consistent copy of all it keeps.")
@home_option
@click.argument("path", type=click.Path())
def backup(path: str) -> None:
    """Copy what the server of UPSWELL_HOME keeps to PATH, also while it runs."""
    from ..sdk import home_server

    with in_one_line():
        if home_server.running_process() is not None:
            home_server.back_up(path, BACKUP_SECONDS)
        else:
            from ..stores.file import back_up

            back_up(Path(home.directory()), path)
    print(f"{os.path.abspath(path)}: {os.path.getsize(path):,} bytes")


# -- tokens ----------------------------------------------------------------------------------------


@server.group(short_help="Let other machines in.")
def token() -> None:
    """Tokens open the server to other machines, where it listens for them; UPSWELL_TOKEN is where programs look."""


@token.command(short_help="Make one; it is shown once.")
@home_option
@click.option("--scope", type=click.Choice(["client", "read"]), default="client", show_default=True)
@click.option("--expires", "days", type=click.FloatRange(0, min_open=True), metavar="DAYS", help="Else it never does.")
@click.option("--name", default="", help="Whose it is, or what for.")
def create(scope: str, days: float | None, name: str) -> None:
    """Make a token: `client` may use and deploy everything, `read` only look."""
    from ..server.tokens import TokenFile

    with in_one_line():
        home.make(home.directory())
        made, text = TokenFile(Path(home.directory())).create(
            "read" if scope == "read" else "client", time.time(), name=name, days=days or 0.0
        )
    print(text)
    print(f"upswell: {made.id}, of scope {scope}: keep it, it is not shown again", file=sys.stderr)


@token.command("list", short_help="Those that there are.")
@home_option
@as_json
def list_tokens(as_json: bool) -> None:
    """List the tokens, without what is secret of them."""
    import json

    from ..server.tokens import TokenFile

    with in_one_line():
        tokens = TokenFile(Path(home.directory())).list()
    if as_json:
        hidden = {"hash"}
        records = [{key: getattr(one, key) for key in one.__struct_fields__ if key not in hidden} for one in tokens]
        print(json.dumps(records, indent=2))
        return
    if not tokens:
        print("upswell: there is no token: `upswell server token create` makes one", file=sys.stderr)
        return
    print(f"{'ID':14} {'SCOPE':7} {'CREATED':11} {'EXPIRES':11} {'USED':11} NAME")
    for one in tokens:
        print(_line(one).rstrip())


def _line(token: Token) -> str:
    days = [time.strftime("%Y-%m-%d", time.localtime(at)) if at else "never" for at in _moments(token)]
    if token.is_expired(time.time()):
        days[1] = "expired"
    return f"{token.id:14} {token.scope:7} {days[0]:11} {days[1]:11} {days[2]:11} {token.name}"


def _moments(token: Token) -> tuple[float, float, float]:
    return token.created_at, token.expires_at, token.used_at


@token.command(short_help="Let it open nothing any more.")
@home_option
@click.argument("token_id", metavar="ID")
def revoke(token_id: str) -> None:
    """Revoke a token: what it has opened ends within a second or so."""
    from ..server.tokens import TokenFile

    with in_one_line():
        TokenFile(Path(home.directory())).revoke(token_id.partition(".")[0])
    print(f"{token_id.partition('.')[0]} opens nothing any more")
