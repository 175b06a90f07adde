"""A cluster that is none, for the tests of everything of ours that runs on one: see `ray/__init__.py`."""

import json
import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).resolve().parent


def make_certificate(folder: Path) -> Path:
    """Of this machine under two of its addresses, in the folder, and the key with it."""
    names = "subjectAltName=IP:127.0.0.1,IP:127.0.0.2"
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    words = f"openssl req -x509 {key} -nodes -days 2 -subj /CN=test -addext {names}"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    return folder


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take it for Ray in this process, and in those that it starts."""
    monkeypatch.syspath_prepend(str(HERE))
    for name, value in PretendedCluster.environment().items():
        monkeypatch.setenv(name, value)


class PretendedCluster:
    """Nodes `node-0`, `node-1`, ... with so many processors each."""

    def __init__(self, folder: Path, *cpus: int) -> None:
        self.address = str(folder)
        self._folder = folder
        self._listening: dict[str, socket.socket] = {}  # as nodes do that live
        (folder / "actors").mkdir(parents=True)
        self.set_nodes(*cpus)

    @staticmethod
    def environment() -> dict[str, str]:
        """What processes that are to take this for Ray need."""
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))}

    def set_nodes(self, *cpus: int) -> None:
        self.close()
        self._listening = {f"node-{number}": socket.create_server(("127.0.0.1", 0)) for number in range(len(cpus))}
        nodes = {
            name: {"CPU": count, "memory": 4 << 30, "port": listening.getsockname()[1]}
            for (name, listening), count in zip(self._listening.items(), cpus, strict=True)
        }
        part = self._folder / "nodes.part"
        part.write_text(json.dumps(nodes))
        part.rename(self._folder / "nodes.json")

    def holders(self, node: str = "") -> list[psutil.Process]:
        """The actors on the node, or all."""
        found = []
        for actor in (self._folder / "actors").iterdir():
            try:
                if not node or (actor / "node").read_text() == node:
                    found.append(psutil.Process(int((actor / "process").read_text())))
            except (OSError, psutil.Error):
                continue
        return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def processes(self, node: str = "") -> list[psutil.Process]:
        """All that runs there."""
        found = []
        for holder in self.holders(node):
            try:
                found += [holder, *holder.children(recursive=True)]
            except psutil.Error:
                continue
        return found

    def kill_node(self, node: str) -> None:
        """End all there at once. Ray goes on to believe that it lives, as it would for a while."""
        self._listening.pop(node).close()
        doomed: set[psutil.Process] = set()
        while more := set(self.processes(node)) - doomed:  # what they start until they stand still, too
            doomed |= more
            for process in more:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def close(self) -> None:
        """No node listens any more."""
        for listening in self._listening.values():
            listening.close()
        self._listening.clear()
