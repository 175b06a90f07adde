"""What is on the server: rows and logs, as the command line asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from ..spec import AutoscalerSettings, SettingsUpdate
from ..wire import messages as m
from ..wire.ids import place_of
from .client import Client, ask, failure, new_request
from .inbox import Restarted

T = TypeVar("T")
R = TypeVar("R", m.AppInfo, m.FunctionInfo, m.ContainerInfo, m.CallInfo, m.VersionInfo)


class Listing(NamedTuple, Generic[T]):
    """Rows, and whether the limit has left some out."""

    rows: list[T]
    more: bool


async def list_apps(client: Client) -> Listing[m.AppInfo]:
    """All apps, the newest first, stopped ones last."""
    return await _listing(client, m.ListApps(), m.AppInfo)


async def list_functions(client: Client, app: str = "", *, active: bool = False) -> Listing[m.FunctionInfo]:
    """The pools of the app with that id, or of all; with `active` those that have containers or inputs."""
    return await _listing(client, m.ListFunctions(app, active), m.FunctionInfo)


async def list_containers(client: Client, app: str = "") -> Listing[m.ContainerInfo]:
    """The containers of the app with that id, or of all."""
    return await _listing(client, m.ListContainers(app), m.ContainerInfo)


async def list_calls(client: Client, app: str = "", limit: int = m.MAX_ROWS) -> Listing[m.CallInfo]:
    """The newest calls first, of the app with that id, or of all."""
    return await _listing(client, m.ListCalls(app), m.CallInfo, limit)


async def find_call(client: Client, call: str) -> m.CallInfo | None:
    """The call of that id; `None` where it never was, or is not known any more."""
    name, position = place_of(call)
    found = await _listing(client, m.ListCalls(call=name, position=position), m.CallInfo)
    return found.rows[0] if found.rows else None


async def list_versions(client: Client, app: str) -> Listing[m.VersionInfo]:
    """The versions of the deployed app with that id, the newest first."""
    return await _listing(client, m.ListVersions(app), m.VersionInfo)


async def change_settings(client: Client, function: str, update: SettingsUpdate) -> AutoscalerSettings:
    """Lay `update` over the settings of the pool with that id. Returns those in force; raises `InvalidError`."""
    answer = await ask(client, m.Inquire(new_request(), function, update), m.Statistics)
    return answer.settings.in_force


async def stop_container(client: Client, container: str) -> None:
    """End the container; what it runs is tried again elsewhere. Raises `NotFoundError` where there is none."""
    await ask(client, m.StopContainer(new_request(), container), m.Done)


async def stop_app(client: Client, app: str) -> None:
    """Stop the app with that id: what has not ended of its calls is cancelled."""
    await ask(client, m.StopApp(new_request(), app), m.Done)


async def roll_back(client: Client, name: str, version: int) -> m.Deployed:
    """Serve an earlier version of the app again, 0 for the one before. Raises `NotFoundError`, `InvalidError`."""
    return await ask(client, m.Rollback(new_request(), name, version), m.Deployed)


async def read_logs(client: Client, asked: m.ReadLogs) -> AsyncIterator[list[m.LogEntry]]:
    """The entries that are there, and with `follow` those that come, in pages: for `DualIteration`.

    Where the server is started again it goes on after the last entry that has come.
    """
    inbox = client.open_inbox(str(asked.request), renewable=True)
    try:
        inbox.send(asked)
        while True:
            for answer, _ in await inbox.receive():
                if isinstance(answer, Restarted):
                    inbox.send(asked)
                    continue
                assert isinstance(answer, m.Logged)
                if answer.error is not None:
                    raise failure(answer.error)
                if seen := answer.entries[-1].at if answer.entries else answer.at:
                    asked = replace(asked, after=seen, lines=m.MAX_LOG_LINES)
                yield answer.entries
                if answer.last and not asked.follow:
                    return
    finally:
        inbox.close()
        if asked.follow:
            client.send(m.Unfollow(asked.request))


async def _listing(client: Client, subject: Any, kind: type[R], limit: int = m.MAX_ROWS) -> Listing[R]:
    request = new_request()
    inbox = client.open_inbox(str(request))
    rows: list[R] = []
    try:
        client.send(m.List(request, subject, limit))
        while True:
            for answer, _ in await inbox.receive():
                assert isinstance(answer, m.Listed)
                rows += [row for row in answer.rows if isinstance(row, kind)]
                if answer.last:
                    return Listing(rows, answer.more)
    finally:
        inbox.close()
