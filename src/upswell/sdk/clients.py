"""The connections of this process: to the server that runs its apps, and to the one that keeps apps.

Each is made when it is first needed. A program without a configured server gets a private one, which boots while this
process imports what it takes to talk to it: so nothing of that is imported here.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from .. import home, sdk
from ..errors import ConnectionError
from . import context
from .private_server import PrivateServer

if TYPE_CHECKING:
    from .client import Client

_client: Client | None = None
_making = threading.Lock()


def get_client() -> Client:
    """The connection of this process; made now if there is none."""
    global _client
    if (client := _client) is not None:
        return client
    with _making:
        if _client is None:
            if context.server is not None and context.server_keeps_apps:
                # It may just be started again.
                _client = sdk.client.Client(None, server=home.Server(*context.server))
            else:
                chosen = home.Server(*context.server) if context.server else home.chosen_server()
                server = chosen or PrivateServer()  # before `sdk.client` is imported
                _client = sdk.client.connect(server)
        return _client


_keeper: Client | None = None  # looked up once: every call by name passes here


def get_keeper() -> Client:
    """The connection to the server that keeps apps; made now if there is none.

    That is the server of this process, unless that is a private one: then it is the background server of the user.
    """
    global _keeper
    if (keeper := _keeper) is None:
        chosen = home.chosen_server()
        if context.server_keeps_apps or (context.server is None and chosen is not None):
            keeper = _keeper = keep_client()
        else:
            keeper = _dial_keeper(chosen)
    return keeper


def _dial_keeper(chosen: home.Server | None) -> Client:
    global _keeper
    server = chosen or home.background_server()
    with _making:
        if _keeper is None:
            try:
                _keeper = sdk.client.connect(server)
            except ConnectionError:
                if chosen is not None:
                    raise
                words = f"no server runs in {home.directory()}: `upswell server start` and `upswell deploy` start one"
                raise ConnectionError(words) from None
            atexit.register(close_keeper)
        return _keeper


def sees_our_files() -> bool:
    """Whether the server of this program is on this machine, so that containers find the program's files in place."""
    chosen = home.chosen_server()
    return chosen is None or chosen.address.startswith("unix:")


def client_of_call(is_kept: bool | None) -> Client:
    """The connection to the server that has a call, which may be one that keeps apps; `None` where nobody knows.

    Then it is that of this process, if there is one, or else the other one.
    """
    if is_kept is None:
        is_kept = _client is None and context.server is None
    return get_keeper() if is_kept else get_client()


def keeper_is_another() -> bool:
    """Whether there is a server that keeps apps beside that of this process."""
    try:
        return get_keeper() is not _client
    except ConnectionError:
        return False


def where_apps_are_kept(client: Client) -> str:
    """The address of the user's background server, where that is there and `client` is of a private one; else ""."""
    if context.server is not None or home.chosen_server() is not None or client is _keeper:
        return ""
    address = home.background_server().address
    return address if os.path.exists(address.removeprefix("unix:")) else ""


def uses_kept_apps(client: Client) -> bool:
    """Whether this program speaks to the server that keeps apps, too, and `client` is of another one."""
    return _keeper is not None and _keeper is not client


def close_keeper() -> None:
    """End the connection to the server that keeps apps, where that is one of its own."""
    global _keeper
    with _making:
        keeper, _keeper = _keeper, None
    if keeper is not None:
        atexit.unregister(close_keeper)
        keeper.close()


def join_client() -> Client:
    """The connection of this process, which stays until as many have left it as have joined."""
    while True:
        client = get_client()
        with _making:
            if client is _client:  # else the last of those who had joined it has left meanwhile
                client.users += 1
                return client


def leave_client() -> None:
    """One who joined does not need the connection any more; with the last it ends, and a private server with it."""
    global _client, _keeper
    with _making:
        if (client := _client) is None:
            return
        client.users -= 1
        if client.users or context.server is not None:  # a container's inputs share one, whoever joined it
            return
        _client, _keeper = None, None if _keeper is client else _keeper
    client.close()


_kept: Client | None = None


def keep_client() -> Client:
    """The connection of this process, kept until the program ends, as what it stored at the server may be wanted."""
    global _kept
    client = get_client()
    if client is not _kept and context.server is None:
        if _kept is None:
            atexit.register(leave_client)
        _kept = join_client()
    return client


def _after_fork() -> None:
    global _client, _keeper, _making
    if _making.locked():  # by a thread that this process does not have
        _making = threading.Lock()
    if _client is None and _keeper is None:
        return  # as in every container, for which each assignment is a page to copy
    for client in {_client, _keeper}:
        if client is not None:
            client.forget()
    _client = _keeper = None


os.register_at_fork(after_in_child=_after_fork)
