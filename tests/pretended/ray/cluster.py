"""The folder that is the cluster: a folder for each actor, and in it what it is asked and what became of that."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Actors:
    """Those there are at the address, once it is known."""

    address = ""

    def __init__(self) -> None:
        self.folder = Path(self.address)
        self._actors = self.folder / "actors"

    def names(self) -> list[str]:
        return [one.name for one in self._actors.iterdir() if self.process(one.name)]

    def process(self, name: str) -> int:
        """0 where it has none any more."""
        try:
            process = int((self._actors / name / "process").read_text())
            state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
        except (OSError, ValueError):
            return 0
        return 0 if state == "Z" else process

    def options(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._actors / name / "options").read_text())
        return found

    def node(self, name: str) -> str:
        """Where it is, "" while it waits for a node."""
        path = self._actors / name / "node"
        return path.read_text() if path.exists() else ""

    def make(self, name: str, options: dict[str, Any]) -> None:
        (self._actors / name).mkdir(parents=True)
        self.note(name, "options", json.dumps(options))

    def remove(self, name: str) -> None:
        shutil.rmtree(self._actors / name, ignore_errors=True)

    def note(self, name: str, what: str, text: str) -> None:
        part = self._actors / name / f".{what}-{os.getpid()}"  # an actor and who made it may note the same
        part.write_text(text)
        part.rename(self._actors / name / what)

    def ask(self, name: str, method: str, arguments: tuple[Any, ...]) -> Path:
        place = self._actors / name
        number = f"{len(list(place.glob('call-*'))):03}"
        (place / f".{number}").write_bytes(pickle.dumps((method, arguments)))
        (place / f".{number}").rename(place / f"call-{number}")
        return place / f"end-{number}"

    def calls(self, name: str) -> Iterator[tuple[Path, str, tuple[Any, ...]]]:
        """What it was asked for and has not done: where its end goes, the method, and its arguments."""
        place = self._actors / name
        for call in sorted(place.glob("call-*")):
            end = place / call.name.replace("call", "end")
            if not end.exists():
                yield end, *pickle.loads(call.read_bytes())

    def free(self) -> dict[str, dict[str, float]]:
        """What each node has left."""
        left: dict[str, dict[str, float]] = json.loads((self.folder / "nodes.json").read_text())
        for name in self.names():
            try:
                node, options = self.node(name), self.options(name)
            except FileNotFoundError:
                continue  # it was removed meanwhile
            if node in left:
                left[node]["CPU"] -= options["num_cpus"]
                left[node]["memory"] -= options.get("memory", 0)
        return left
