"""The directory that a user and a server share (`UPSWELL_HOME`), and the configuration in it: which server is meant.

Every program passes here, so it is light: the file is parsed only where there is one. Nothing is connected or started.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, NamedTuple

import msgspec

from .errors import InvalidError
from .spec import Limits, check_text

PACKAGE = os.path.dirname(os.path.abspath(__file__))  # upswell itself, which every server has
SOCKET, LOCK, LOG = "server.sock", "lock", "server.log"
DATABASE = "upswell.db"
SPOOLS = "spools"
CONFIGURATION = "config.toml"
LOCAL_ENGINES = ("local", "spawn")
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
WHAT_HELPS = {
    errno.EMFILE: "raise `ulimit -n`, or close some",
    errno.ENFILE: "the machine can have no more: close some",
    errno.ENOSPC: "make room, or set UPSWELL_HOME to a directory on another disk",
    errno.EDQUOT: "make room, or set UPSWELL_HOME to a directory on another disk",
    errno.EROFS: "set UPSWELL_HOME to a directory that can be written",
}


class Server(NamedTuple):
    """Where a server is reached, and with what. `ca` is the file that its certificate is checked against."""

    address: str
    token: str = ""
    ca: str = ""


class OnRay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which Ray cluster the engine `ray` uses, and how its nodes reach the server."""

    address: str = "auto"
    namespace: str = "upswell"
    host: str = ""  # the name or address by which the nodes know this machine; with TLS that of the certificate
    grows_to_cpus: float = 0.0  # what Ray's own autoscaler may make of the cluster
    grows_to_gpus: int = 0


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the server of this home serves. Paths are absolute, or relative to the home."""

    listen: str = ""  # HOST:PORT, beside the socket in the home
    certificate: str = ""
    key: str = ""
    engine: str = ""
    ray: OnRay = OnRay()
    limits: Limits = Limits()

    def changed(self, listen: str, certificate: str, key: str) -> Serving:
        """The same, but as a command line says, where it does."""
        return msgspec.structs.replace(
            self, listen=listen or self.listen, certificate=certificate or self.certificate, key=key or self.key
        )


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What config.toml says: the server that programs use, and under `[serve]` how one serves here."""

    server: str = ""
    token: str = ""
    ca: str = ""
    serve: Serving = Serving()


def directory() -> str:
    """The home, which may not exist: `UPSWELL_HOME`, or `~/.upswell`."""
    return os.path.abspath(os.path.expanduser(os.environ.get("UPSWELL_HOME") or "~/.upswell"))


def make(home: str) -> None:
    """Make the home where it is missing; `InvalidError` where it could be written by others, or by its user not, or is
    no text.
    """
    check_text(home)
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
    except OSError as error:
        raise InvalidError(f"{home} can't be made: {error.strerror}: set UPSWELL_HOME to another directory") from None
    check(home)
    if not os.access(home, os.W_OK | os.X_OK):
        raise InvalidError(f"{home} can't be written by you: set UPSWELL_HOME to a directory of your own")


def check(home: str) -> None:
    """Raise `InvalidError` where others could put there what a server or a program would believe."""
    found = os.stat(home)
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidError(f"{home} is no directory: set UPSWELL_HOME to one")
    if found.st_uid not in (os.getuid(), 0):
        raise InvalidError(f"{home} belongs to another user: set UPSWELL_HOME to a directory of your own")
    if found.st_mode & OTHERS_MAY_WRITE:
        raise InvalidError(f"{home} can be written by other users: run `chmod go-w {home}`")


def open_file(path: str, flags: int) -> int:
    """A descriptor of a file in a home, made if the flags say so, for its user alone.

    Raises `FileNotFoundError` where it is not there, and `InvalidError` where it can't be opened, as another user's, or
    where there is no room for it.
    """
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        advice = WHAT_HELPS.get(error.errno or 0, "see whose it is, or set UPSWELL_HOME to another directory")
        raise InvalidError(f"{path} can't be used: {error.strerror}: {advice}") from None


def configuration(home: str) -> Configuration:
    """What the home's config.toml says; `InvalidError` with the file's name where it is wrong."""
    path = os.path.join(home, CONFIGURATION)
    if not os.path.exists(path):
        return Configuration()
    check(home)
    import tomllib

    try:
        with open(path, "rb") as file:
            found = msgspec.convert(_with_paths(tomllib.load(file), home), Configuration)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise InvalidError(f"{path} is not valid: {error}") from None
    for name in Limits.__struct_fields__:
        if (limit := getattr(found.serve.limits, name)) < 1:
            raise InvalidError(f"{path} is not valid: the limit {name} must be at least 1, not {limit}")
    return found


def chosen_server() -> Server | None:
    """The server that the user has chosen: by `UPSWELL_SERVER`, else by the configuration, if at all.

    A token of the configuration is for the server that it names, and for no other.
    """
    address = os.environ.get("UPSWELL_SERVER", "")
    found = configuration(directory())
    ca = os.environ.get("UPSWELL_CA") or found.ca
    token = os.environ.get("UPSWELL_TOKEN") or (found.token if address in ("", found.server) else "")
    address = address or found.server
    return Server(address, token, ca) if address else None


def local_engine(chosen: str = "") -> str:
    """The name of the engine that was chosen, or else that of the environment; `InvalidError` where there is none."""
    name = chosen or os.environ.get("UPSWELL_ENGINE") or LOCAL_ENGINES[0]
    if name not in LOCAL_ENGINES:
        which = f"UPSWELL_ENGINE is {' or '.join(LOCAL_ENGINES)}, and for a server with a home also ray"
        raise InvalidError(f"there is no engine {name!r}{' here' * (name == 'ray')}: {which}")
    return name


def background_server() -> Server:
    """The server of the home, whether it runs or not."""
    return Server(f"unix:{os.path.join(directory(), SOCKET)}")


def _with_paths(read: dict[str, Any], home: str) -> dict[str, Any]:
    """The same, with the names of files relative to the home made absolute."""
    serve = read.get("serve")
    for table, names in ((read, ("ca",)), (serve if isinstance(serve, dict) else {}, ("certificate", "key"))):
        for name in names:
            if isinstance(table.get(name), str) and table[name]:
                table[name] = os.path.join(home, os.path.expanduser(table[name]))
    return read
