"""From the names that a user gives to what is on the server. Nothing is guessed: unknown and ambiguous names are errors
that show what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import click

from ..sdk.client import Client
from ..sdk.dual import run_sync
from ..sdk.listing import list_apps, list_functions
from ..wire.messages import AppInfo, FunctionInfo

NAMES_SHOWN = 8


def find_app(client: Client, word: str) -> AppInfo:
    """The app of that id or name; of several with one name, the one that is not stopped."""
    apps = run_sync(list_apps(client)).rows
    for app in apps:
        if app.id == word:
            return app
    named = [app for app in apps if app.name == word]
    found = [app for app in named if app.state != "stopped"] or named[:1]
    if len(found) > 1:
        ids = ", ".join(f"{app.id} ({app.state})" for app in found)
        raise click.ClickException(f"{len(found)} apps are named {word!r}: say which by its id: {ids}")
    if not found:
        raise click.ClickException(unknown("app", word, (app.name or app.id for app in apps)))
    return found[0]


def app_id(client: Client, word: str | None) -> str:
    """The id of the app that is named; "" where none is, which stands for all."""
    return find_app(client, word).id if word else ""


def find_function(client: Client, app: AppInfo, word: str) -> FunctionInfo:
    """The function, class, object or variant of the app that is shown under that name."""
    functions = run_sync(list_functions(client, app.id)).rows
    for function in functions:
        if word in (function.name, function.id):
            return function
    names = (function.name for function in functions)
    raise click.ClickException(unknown("function", word, names, f" in {app.name or app.id}"))


def unknown(kind: str, word: str, there: Iterable[str], where: str = "") -> str:
    """What is said of a name that nothing has."""
    names: Sequence[str] = sorted(set(there))
    words = f"there is no {kind} {word!r}{where}"
    if near := get_close_matches(word, names):
        return f"{words}: did you mean {' or '.join(map(repr, near))}?"
    if not names:
        return f"{words}, nor any other"
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    return f"{words}; there are: {shown}"
