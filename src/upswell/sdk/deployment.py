"""From an app as it is declared here to one that a server keeps: its code is collected and sent, and it is deployed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from msgspec.structs import replace

from ..errors import InvalidError
from ..spec import FunctionRecord, Strategy, check_name, check_text, require
from ..wire import messages as m
from . import context
from .background import keeper_in_background
from .client import Client, ask, new_id, new_request
from .dual import run_sync
from .pool import Home, Pool
from .source import Source, collect, find_module
from .variables import say_once

if TYPE_CHECKING:
    from .app import App

STRATEGIES = get_args(Strategy)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deploy has done. Of the `files` of the code, `sent` are those that the server did not have yet."""

    app_id: str
    name: str
    version: int
    unchanged: bool
    functions: tuple[FunctionRecord, ...]
    files: int
    bytes: int
    sent: int


async def deploy(app: App, name: str | None, tag: str, strategy: Strategy) -> Deployment:
    """Deploy the app under its own name or that one, and have it take inputs there."""
    if context.importing:
        raise context.ImportEnds  # what follows is the program's, not the container's
    require(context.server is None, "app.deploy() is for the program outside, not for inside a container")
    name = name if name is not None else app.name
    if name is None:
        raise InvalidError("app.deploy: the app has no name to be found by: give it one, as in upswell.App('census')")
    check_name("app", name)
    require(isinstance(tag, str), f"app.deploy: tag must be text, not {tag!r}")
    too_long = f"app.deploy: tag must have at most {m.MAX_TAG_CHARACTERS} characters, not {len(tag)}"
    require(len(tag) <= m.MAX_TAG_CHARACTERS, too_long)
    check_text(tag)
    require(
        strategy in STRATEGIES, f"app.deploy: strategy must be {' or '.join(map(repr, STRATEGIES))}, not {strategy!r}"
    )
    require(not app.is_running, f"app.deploy: {app!r} is running: deploy it before or after")
    return await _deploy(app, name, m.Deploy(0, "", name, (), (), tag, strategy), keeper_in_background())


def deploy_app(app: App, name: str | None, tag: str, strategy: Strategy) -> Deployment:
    """The same as `deploy`, for plain code."""
    return run_sync(deploy(app, name, tag, strategy))


async def detach(app: App) -> Client:
    """Have the app run on the server that keeps apps, until its calls have ended after this client has left it."""
    client = keeper_in_background()
    name = app.name or new_id("ap")
    deployment = await _deploy(app, name, m.Deploy(0, "", name, (), (), detached=True), client)
    client.declare(m.AttendApp(deployment.app_id))
    return client


async def _deploy(app: App, name: str, message: m.Deploy, client: Client) -> Deployment:
    home = Home(new_id("ap"), app.name or "")
    records = [pool.record(home) for pool in app.pools]
    functions, source, sent = await send_code(client, app, records, f"{name} can't be deployed: ")
    message = replace(message, request=new_request(), app=home.app_id, functions=functions, files=source.files)
    answer = await ask(client, message, m.Deployed)
    served = tuple(replace(record, id=f"{answer.app}/{record.label}") for record in functions)
    app.serve(Home(answer.app, app.name or "", is_kept=True), served)
    return Deployment(answer.app, name, answer.version, answer.unchanged, served, len(source.files), source.size, sent)


async def send_code(
    client: Client, app: App, records: Sequence[FunctionRecord], where: str
) -> tuple[tuple[FunctionRecord, ...], Source, int]:
    """The records as they are where the code has been sent to, the code, and how many files the server did not have."""
    source = collect((record.environment for record in records), _added(app.pools), where)
    functions = tuple(replace(record, environment=source.place(record.environment)) for record in records)
    digests = [digest for _, digest in source.files]
    missing = (await ask(client, m.OfferFiles(new_request(), digests), m.MissingFiles)).digests if digests else []
    for digest in missing:
        client.send(m.PutFile(digest), source.content(digest))
    return functions, source, len(missing)


def _added(pools: list[Pool]) -> Iterator[tuple[str, str]]:
    """What images name of this machine, with its place in the tree, which is the containers' working directory."""
    images = {pool.declaration.variables.image: None for pool in pools}
    for image in images:
        for method, local, remote in image.local_files() if image is not None else ():
            where = f"Image.{method}"
            if method == "add_local_python_source":
                yield from find_module(local)
            elif os.path.isabs(remote):
                say_once(f"{where}: nothing is put at {remote} of the server's machine, only at relative paths")
            else:
                require(os.path.exists(local), f"{where}: there is no {local} here")
                path = os.path.normpath(remote)
                if os.path.isfile(local) and (path == "." or remote.endswith("/")):
                    path = os.path.normpath(os.path.join(path, os.path.basename(local)))
                require(not path.startswith(".."), f"{where}: {remote} leads out of the containers' working directory")
                yield local, path
