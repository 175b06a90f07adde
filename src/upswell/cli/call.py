"""`upswell call`: the calls on a server, their results, and their end."""

from __future__ import annotations

import os
import sys
from builtins import TimeoutError
from typing import Any

import click

from ..sdk.call import FunctionCall
from ..sdk.client import Client
from ..sdk.dual import run_sync
from ..sdk.listing import find_call, list_calls
from ..wire import messages as m
from ..wire.ids import place_of
from ..wire.messages import CallInfo
from . import naming
from .commands import Action
from .connection import connected
from .tables import Column, as_json, count, moment, show_listing, tell

LIMIT = 50

COLUMNS: tuple[Column[CallInfo], ...] = (
    Column("CALL", lambda one: one.id),
    Column("APP", lambda one: one.app_name or one.app, 4),
    Column("FUNCTION", lambda one: one.function),
    Column("KIND", lambda one: one.kind, 5),
    Column("STATE", lambda one: one.state),
    Column("DONE", lambda one: f"{one.done:,}/{one.inputs:,}{'' if one.is_whole else '+'}", right=True),
    Column("FAILED", lambda one: count(one.failed), 1, right=True),
    Column("SUBMITTED", lambda one: moment(one.submitted_at), 2),
    Column("FINISHED", lambda one: moment(one.finished_at), 3),
)


@click.group(short_help="List, fetch and cancel calls.")
def call() -> None:
    """The calls on a server."""


@call.command("list")
@click.argument("app_name", metavar="[APP]", required=False)
@click.option("-n", "--limit", type=click.IntRange(1, m.MAX_ROWS), default=LIMIT, help=f"How many (default {LIMIT}).")
@as_json
def list_(app_name: str | None, limit: int, as_json: bool) -> Action:
    """List the newest calls of an app, or of all apps."""

    def act() -> int:
        with connected() as client:
            app = naming.app_id(client, app_name)
            found = run_sync(list_calls(client, app, limit))
        whose = f" of {app_name}" if app_name else ""
        show_listing(COLUMNS, found, as_json, f"no call{whose} is here: make one with FUNCTION.spawn(...)")
        return 0

    return act


@call.command(short_help="Wait for the results of a spawned call and print them.")
@click.argument("name", metavar="CALL")
@click.option("--index", type=click.IntRange(0), help="Only the result of this input.")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds to wait for each; 0 looks whether it is here.")
@as_json
def get(name: str, index: int | None, timeout: float | None, as_json: bool) -> Action:
    """Wait for the results of a spawned call and print them, one a line; or raise what it raised."""

    def act() -> int:
        with connected() as client:
            _known(client, name)
        # What the user's function returned or raised may be of a module that lies here, as for `run -m`.
        sys.path.insert(0, os.getcwd())
        handle: FunctionCall[Any] = FunctionCall.from_id(name)
        try:
            results = handle.iter(timeout=timeout) if index is None else [handle.get(timeout, index=index)]
            for result in results:
                _print(result, as_json)
        except (IndexError, TimeoutError) as error:
            if error.__cause__ is not None:  # its remote traceback: the user's function has raised it
                raise
            raise click.ClickException(str(error)) from None
        return 0

    return act


@call.command()
@click.argument("name", metavar="CALL")
@click.option("--terminate", is_flag=True, help="Kill the containers that run it.")
@as_json
def cancel(name: str, terminate: bool, as_json: bool) -> Action:
    """Cancel what has not ended of a call."""

    def act() -> int:
        with connected() as client:
            found = _known(client, name)
            is_done = found.is_whole and found.done == found.inputs
            if is_done or found.state in ("finished", "expired") or found.finished_at is not None:
                tell(found, as_json, f"{name} has ended already")
                return 0
            call, position = place_of(name)
            client.send(m.Cancel(call, True, terminate, position=position))
            found = _known(client, name)  # whose answer says that the server has taken what was sent before
        tell(found, as_json, f"cancelled {name}")
        return 0

    return act


def _known(client: Client, name: str) -> CallInfo:
    found = run_sync(find_call(client, name))
    if found is None:
        raise click.ClickException(f"there is no call {name}: `upswell call list` shows those that are kept")
    return found


def _print(result: Any, as_json: bool) -> None:
    import json

    print(json.dumps(result, default=repr) if as_json else repr(result))
