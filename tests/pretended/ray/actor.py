"""The process of an actor, which waits for a node and does what it is asked, in order."""

from __future__ import annotations

import fcntl
import importlib
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from .cluster import Actors
from .exceptions import RayTaskError

LOOK_SECONDS = 0.02


class Context:
    """Where this is."""

    def get_node_id(self) -> str:
        return Actors().node(sys.argv[-1])


def exit_actor() -> NoReturn:
    os._exit(0)


def find_node(actors: Actors, name: str) -> None:
    options = actors.options(name)
    while True:
        with open(actors.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for node, left in actors.free().items():
                if options["num_cpus"] <= left["CPU"] and options.get("memory", 0) <= left["memory"]:
                    actors.note(name, "node", node)
                    return
        time.sleep(LOOK_SECONDS)


def main(folder: str, name: str) -> NoReturn:
    Actors.address = folder
    actors = Actors()
    actors.note(name, "process", str(os.getpid()))  # who made it may not have come to that, or be dead by now
    find_node(actors, name)
    options = actors.options(name)
    served = getattr(importlib.import_module(options["module"]), options["kind"])()
    while True:
        for end, method, arguments in actors.calls(name):
            answer: Any
            try:
                answer = getattr(served, method)(*arguments)
            except Exception as error:
                answer = RayTaskError(str(error))
            part = Path(f"{end}.part")
            part.write_bytes(pickle.dumps(answer))
            part.rename(end)
        time.sleep(LOOK_SECONDS)
