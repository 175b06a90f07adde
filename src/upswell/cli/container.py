"""`upswell container`: the containers on a server, what they wrote, and their end."""

from __future__ import annotations

import click

from ..sdk.dual import run_sync
from ..sdk.listing import list_containers, stop_container
from ..wire.ids import is_id
from ..wire.messages import ContainerInfo
from . import logs, naming
from .commands import Action
from .connection import connected
from .tables import Column, as_json, count, mebibytes, moment, seconds, show_listing, tell

COLUMNS: tuple[Column[ContainerInfo], ...] = (
    Column("CONTAINER", lambda one: one.id),
    Column("APP", lambda one: one.app_name or one.app, 2),
    Column("FUNCTION", lambda one: one.function),
    Column("STATE", lambda one: one.state),
    Column("VERSION", lambda one: count(one.version or None), 5, right=True),
    Column("SINCE", lambda one: moment(one.started_at), 4),
    Column("RUNNING", lambda one: count(one.running), right=True),
    Column("CPU", lambda one: seconds(one.cpu_seconds), 3, right=True),
    Column("MEMORY", lambda one: mebibytes(one.memory_bytes), 1, right=True),
)


@click.group(short_help="List, stop and look into containers.")
def container() -> None:
    """The containers on a server."""


@container.command("list")
@click.argument("app_name", metavar="[APP]", required=False)
@as_json
def list_(app_name: str | None, as_json: bool) -> Action:
    """List the containers of an app, or of all apps."""

    def act() -> int:
        with connected() as client:
            app = naming.app_id(client, app_name)
            found = run_sync(list_containers(client, app))
        whose = f" of {app_name}" if app_name else ""
        show_listing(COLUMNS, found, as_json, f"no container{whose} is here: they start as inputs come")
        return 0

    return act


@container.command("logs", short_help="Print what a container wrote.")
@click.argument("name", metavar="CONTAINER")
@logs.options
def logs_(name: str, lines: int, follow: bool, as_json: bool) -> Action:
    """Print what a container of a deployed app wrote, also when it is gone."""

    def act() -> int:
        with connected() as client:
            return logs.print_logs(client, "", "", with_prefix(name), lines, follow, as_json)

    return act


@container.command()
@click.argument("name", metavar="CONTAINER")
@as_json
def stop(name: str, as_json: bool) -> Action:
    """End a container now. What it runs is tried again in another, at no cost to its retries."""

    def act() -> int:
        with connected() as client:
            run_sync(stop_container(client, with_prefix(name)))
        tell({"id": with_prefix(name)}, as_json, f"stopped {with_prefix(name)}")
        return 0

    return act


def with_prefix(name: str) -> str:
    """The container's id, which logs show without what all have in common."""
    full = name if name.startswith("co-") else f"co-{name}"
    if not is_id(full):
        raise click.ClickException(f"{name[:40]!r} is no id of a container: `upswell container list` shows them")
    return full
