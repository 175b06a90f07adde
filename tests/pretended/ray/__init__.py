"""As much of Ray as upswell asks for, on this machine: nodes are numbers in a file, actors are processes.

Tests that put the folder above this one on the import path run the engine with its own driver, holders and leases. As
those of Ray, actors outlive whoever asked for them; unlike there it takes no time. Its address is a folder.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import _private, actor, exceptions, util
from .cluster import Actors

__all__ = ["_private", "actor", "exceptions", "util"]


def init(address: str, namespace: str, **_: Any) -> None:
    if not (Path(address) / "nodes.json").exists():
        raise ConnectionError(f"there is no cluster at {address}")
    Actors.address = address


def is_initialized() -> bool:
    return bool(Actors.address)


def shutdown() -> None:
    pass


def nodes() -> list[dict[str, Any]]:
    found = json.loads((Actors().folder / "nodes.json").read_text())
    return [
        {
            "NodeID": name,
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerPort": has.get("port", 0),
            "Resources": has,
        }
        for name, has in found.items()
    ]


def get_actor(name: str) -> Handle:
    return Handle(name)


def kill(handle: Handle) -> None:
    if process := Actors().process(handle.name):
        os.kill(process, signal.SIGKILL)
    Actors().remove(handle.name)


def remote(kind: type) -> Factory:
    return Factory(kind, {})


def get_runtime_context() -> actor.Context:
    return actor.Context()


class Factory:
    """What makes actors of a class."""

    def __init__(self, kind: type, options: dict[str, Any]) -> None:
        self._kind = kind
        self._options = options

    def options(self, **options: Any) -> Factory:
        return Factory(self._kind, options)

    def remote(self) -> Handle:
        name = self._options["name"]
        words = {**self._options, "module": self._kind.__module__, "kind": self._kind.__qualname__}
        Actors().make(name, words)
        begin = "import sys; from ray.actor import main; main(*sys.argv[1:])"
        nothing = subprocess.DEVNULL
        command = [sys.executable, "-P", "-c", begin, str(Actors().folder), name]
        _started.append(subprocess.Popen(command, stdin=nothing, stdout=nothing, start_new_session=True))
        Actors().note(name, "process", str(_started[-1].pid))
        return Handle(name)


_started: list[subprocess.Popen[bytes]] = []


class Handle:
    """An actor, by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._actor_id = Name(name)

    def __getattr__(self, method: str) -> Method:
        return Method(self.name, method)


class Name(str):
    """An id, which has a text."""

    def hex(self) -> str:
        return str(self)


class Method:
    """What an actor can be asked to do."""

    def __init__(self, name: str, method: str) -> None:
        self._name = name
        self._method = method

    def remote(self, *arguments: Any) -> Path:
        """The file in which its end will be."""
        return Actors().ask(self._name, self._method, arguments)


def wait(ends: list[Path], num_returns: int, timeout: float) -> tuple[list[Path], list[Path]]:
    for one in _started:
        one.poll()
    ended = [end for end in ends if end.exists() or not Actors().process(end.parent.name)]
    return ended, [end for end in ends if end not in ended]


def get(end: Path) -> Any:
    if not end.exists():
        raise exceptions.RayActorError("The actor died unexpectedly before finishing this task.")
    answer = pickle.loads(end.read_bytes())
    if isinstance(answer, Exception):
        raise answer
    return answer
