"""`upswell app`: the apps on a server, their logs, their versions and their end."""

from __future__ import annotations

import click

from ..sdk.dual import run_sync
from ..sdk.listing import list_apps, list_versions, roll_back, stop_app
from ..wire.messages import MAX_VERSION, AppInfo, VersionInfo
from . import logs, naming
from .commands import Action
from .connection import connected
from .tables import Column, as_json, count, moment, show_listing, tell

COLUMNS: tuple[Column[AppInfo], ...] = (
    Column("NAME", lambda app: app.name or "(unnamed)"),
    Column("ID", lambda app: app.id, 3),
    Column("STATE", lambda app: app.state),
    Column("VERSION", lambda app: count(app.version or None), 4, right=True),
    Column("SINCE", lambda app: moment(app.deployed_at), 5),
    Column("FUNCTIONS", lambda app: count(app.functions), 2, right=True),
    Column("CONTAINERS", lambda app: count(app.containers), 0, right=True),
    Column("PENDING", lambda app: count(app.pending), 1, right=True),
)
VERSIONS: tuple[Column[VersionInfo], ...] = (
    Column("VERSION", lambda one: count(one.version), right=True),
    Column("TAG", lambda one: one.tag or "-", 1),
    Column("DEPLOYED", lambda one: moment(one.deployed_at)),
    Column("SERVED", lambda one: "yes" if one.is_served else ""),
)


@click.group(short_help="List, stop and look into apps.")
def app() -> None:
    """The apps on a server, by name or id."""


@app.command("list", short_help="List the apps that are here.")
@as_json
def list_(as_json: bool) -> Action:
    """List the apps that run, are deployed, or are stopped and kept."""

    def act() -> int:
        with connected() as client:
            found = run_sync(list_apps(client))
        show_listing(COLUMNS, found, as_json, "no app is here: deploy one with `upswell deploy FILE`")
        return 0

    return act


@app.command()
@click.argument("app_name", metavar="APP")
@as_json
def stop(app_name: str, as_json: bool) -> Action:
    """Stop an app: what has not ended of its calls is cancelled."""

    def act() -> int:
        with connected() as client:
            found = naming.find_app(client, app_name)
            if found.state == "stopped":
                raise click.ClickException(f"{app_name} is stopped already")
            run_sync(stop_app(client, found.id))
            found = naming.find_app(client, found.id)
        tell(found, as_json, f"stopped {found.name or 'the app'} ({found.id})")
        return 0

    return act


@app.command("logs", short_help="Print what an app's containers wrote.")
@click.argument("app_name", metavar="APP")
@click.option("--function", "function_name", default="", metavar="NAME", help="Only of this function.")
@logs.options
def logs_(app_name: str, function_name: str, lines: int, follow: bool, as_json: bool) -> Action:
    """Print what an app's containers wrote, and what the server has to say about it."""

    def act() -> int:
        with connected() as client:
            found = naming.find_app(client, app_name)
            return logs.print_logs(client, found.id, function_name, "", lines, follow, as_json)

    return act


@app.command()
@click.argument("app_name", metavar="APP")
@as_json
def history(app_name: str, as_json: bool) -> Action:
    """List the versions of a deployed app, the newest first."""

    def act() -> int:
        with connected() as client:
            found = naming.find_app(client, app_name)
            versions = run_sync(list_versions(client, found.id))
        show_listing(VERSIONS, versions, as_json, f"{app_name} has no versions: it was not deployed")
        return 0

    return act


@app.command(short_help="Serve an earlier version of a deployed app again.")
@click.argument("app_name", metavar="APP")
@click.argument("version", type=click.IntRange(1, MAX_VERSION), required=False)
@as_json
def rollback(app_name: str, version: int | None, as_json: bool) -> Action:
    """Serve an earlier VERSION of a deployed app again, by default the one before. It becomes a new version, except
    where it is what is served already.
    """

    def act() -> int:
        with connected() as client:
            found = naming.find_app(client, app_name)
            done = run_sync(roll_back(client, found.name, version or 0))
        record = {"app": done.app, "version": done.version, "unchanged": done.unchanged}
        when = "already" if done.unchanged else "now"
        tell(record, as_json, f"{found.name} is at version {done.version} {when}")
        return 0

    return act
