"""`upswell function`: what functions do, how they scale and why, and the change of that."""

from __future__ import annotations

from typing import Any

import click

from ..sdk.client import Client
from ..sdk.dual import run_sync
from ..sdk.listing import change_settings, list_functions
from ..sdk.pool import FunctionStats
from ..spec import AutoscalerSettings, SettingsUpdate
from ..wire.messages import FunctionInfo
from . import naming
from .commands import Action
from .connection import connected
from .tables import NOTHING, Column, as_json, count, moment, print_json, show_listing

DEFAULT = "default"

PARAMETERS: Column[FunctionInfo] = Column("PARAMETERS", lambda one: one.parameters or NOTHING, 3)
COLUMNS: tuple[Column[FunctionInfo], ...] = (
    Column("APP", lambda one: one.app_name or one.app),
    Column("FUNCTION", lambda one: one.name),
    PARAMETERS,
    Column("BACKLOG", lambda one: count(one.backlog), right=True),
    Column("RUNNING", lambda one: count(one.running), right=True),
    Column("CONTAINERS", lambda one: containers(one), right=True),
    Column("DONE", lambda one: count(one.succeeded), 2, right=True),
    Column("FAILED", lambda one: count(one.failed), 1, right=True),
    Column("MIN", lambda one: count(one.settings.min_containers), 4, right=True),
    Column("MAX", lambda one: count(one.settings.max_containers), 3, right=True),
    Column("RULE", lambda one: one.rule, 5),
    Column("SCHEDULE", lambda one: one.schedule or NOTHING, 7),
    Column("NEXT", lambda one: moment(one.next_fire_at), 6),
)


def containers(one: FunctionInfo) -> str:
    """Those that are ready and those that start."""
    return f"{one.ready:,}+{one.starting:,}" if one.starting else count(one.ready)


class Setting(click.ParamType[int | str]):
    """A number, or what goes back to the default."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return DEFAULT if value == DEFAULT else click.INT.convert(value, param, ctx)


@click.group(short_help="Look at functions, and change how they scale.")
def function() -> None:
    """The functions of the apps on a server."""


@function.command("list")
@click.argument("app_name", metavar="[APP]", required=False)
@as_json
def list_(app_name: str | None, as_json: bool) -> Action:
    """List the functions of an app, or of all apps."""

    def act() -> int:
        with connected() as client:
            app = naming.app_id(client, app_name)
            found = run_sync(list_functions(client, app))
        has_objects = any(one.parameters for one in found.rows)
        columns = [column for column in COLUMNS if column is not PARAMETERS or has_objects]
        where = f"{app_name} has no function" if app_name else "no function is here"
        show_listing(columns, found, as_json, f"{where}: deploy one with `upswell deploy FILE`")
        return 0

    return act


@function.command(short_help="Print a function's backlog and containers.")
@click.argument("app_name", metavar="APP")
@click.argument("name", metavar="FUNCTION")
@as_json
def stats(app_name: str, name: str, as_json: bool) -> Action:
    """Print a function's backlog, containers, running inputs and free places."""

    def act() -> int:
        with connected() as client:
            found = _find(client, app_name, name)
        now = FunctionStats(found.backlog, found.starting + found.ready, found.running, found.headroom)
        _print_fields(now._asdict(), as_json)
        return 0

    return act


@function.command(short_help="Print how a function scales and why, or change it.")
@click.argument("app_name", metavar="APP")
@click.argument("name", metavar="FUNCTION")
@click.option("--min", "min_containers", type=Setting(), metavar="N", help="Containers that are kept however idle.")
@click.option("--max", "max_containers", type=Setting(), metavar="N", help="Containers that are never exceeded.")
@click.option("--buffer", "buffer_containers", type=Setting(), metavar="N", help="Idle ones beside the busy ones.")
@click.option("--window", "scaledown_window", type=Setting(), metavar="N", help="Seconds a surplus one idles at most.")
@click.option("--why", is_flag=True, help="Say what the autoscaler last decided, and why.")
@as_json
def autoscaler(app_name: str, name: str, why: bool, as_json: bool, **given: int | str | None) -> Action:
    """Print how a function scales, and change it: with `default` a setting goes back to its default.

    A change lasts until the next deploy.
    """

    def act() -> int:
        changed = {key: None if value == DEFAULT else value for key, value in given.items() if value is not None}
        with connected() as client:
            found = _find(client, app_name, name)
            settings = found.settings
            if changed:
                settings = run_sync(change_settings(client, found.id, SettingsUpdate(**changed)))  # type: ignore[arg-type]
                found = _find(client, app_name, name)
        fields = {key: getattr(settings, key) for key in AutoscalerSettings.__struct_fields__}
        if why:
            fields |= {"containers": containers(found), "wanted": found.wanted, "rule": found.rule}
            fields |= {"reason": found.reason}
        _print_fields(fields, as_json)
        return 0

    return act


def _find(client: Client, app_name: str, name: str) -> FunctionInfo:
    return naming.find_function(client, naming.find_app(client, app_name), name)


def _print_fields(fields: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(fields)
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name:{width}}  {'no limit' if value is None else value}")
