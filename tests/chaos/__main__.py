"""A kill campaign: `make chaos SEED=1 KILLS=300`.

A server with a home is started again whenever it dies, as a service manager does. Clients map, call, spawn and deploy;
a schedule fires. Meanwhile, by seed, the server, the processes that fork containers, containers and clients are killed
with kill -9. At the end nothing that was accepted is lost, no answer was wrong or came twice, clients that lived had
all their answers, no schedule fired twice for a moment, and no process is left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
MARK = "UPSWELL_CHAOS"
CLIENTS = {"mapping": 2, "remote": 1, "spawning": 1, "alone": 2}
WEIGHTS = {"server": 2, "root": 1, "zygote": 1, "container": 4, "client": 2}
MANY = 100  # kills, among which each of these is by all odds
SECONDS_TO_END = 300.0  # for what is on its way when the killing ends
SECONDS_TO_LEAVE = 30.0
PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)


class Campaign:
    """One seed's campaign."""

    def __init__(self, seed: int, kills: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.kills = kills
        self.killed: Counter[str] = Counter()
        self.deploys = 0
        self._folder = folder
        self._home = folder / "home"
        self._home.mkdir(mode=0o700)
        self._mark = uuid.uuid4().hex
        self._log = (folder / "log").open("ab")
        self._server: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, subprocess.Popen[bytes]] = {}
        self._deploying: subprocess.Popen[bytes] | None = None
        self._names = 0
        self._wrong: list[str] = []

    def run(self) -> list[str]:
        """What is wrong, if anything."""
        self._keep_serving()
        while self._deploy(1).wait():
            time.sleep(0.1)
        while sum(self.killed.values()) < self.kills and not self._wrong:
            self._keep_serving()
            self._keep_calling()
            if self._deploying is None and self.chance.random() < 0.05:
                self._deploying = self._deploy(self.deploys + 1)
            time.sleep(self.chance.choice(PAUSES))
            self._kill(self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0])
            self._look_at_clients()
        self._end()
        if self.kills >= MANY and (spared := WEIGHTS.keys() - self.killed.keys()):
            self._wrong.append(f"no {' and no '.join(sorted(spared))} was ever killed")
        return self._wrong

    # -- what runs ---------------------------------------------------------------------------------

    def _start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env={
                **os.environ,
                MARK: self._mark,
                "UPSWELL_HOME": str(self._home),
                "UPSWELL_SERVER": f"unix:{self._home}/server.sock",
                "CHAOS_FOLDER": str(self._folder),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _keep_serving(self) -> None:
        if self._server is None or self._server.poll() is not None:
            self._server = self._start(sys.executable, "-P", "-m", "upswell.server", "--home", str(self._home))
            self._wait_for_server()

    def _wait_for_server(self) -> None:
        """Until the server's socket is there: `upswell deploy` would start one of its own."""
        deadline = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < deadline and not (self._home / "server.sock").exists():
            time.sleep(0.01)

    def _keep_calling(self) -> None:
        for role, count in CLIENTS.items():
            alive = sum(name.startswith(role) for name in self._clients)
            for _ in range(count - alive):
                self._names += 1
                seed = str(self.chance.randrange(1 << 30))
                command = (sys.executable, str(HERE / "clients.py"), role, seed)
                self._clients[f"{role}-{self._names}"] = self._start(*command)

    def _deploy(self, version: int) -> subprocess.Popen[bytes]:
        self.deploys = version
        command = (sys.executable, "-P", "-m", "upswell", "deploy", str(HERE / "census.py"))
        return self._start(*command, CHAOS_VERSION=str(version))

    def _look_at_clients(self) -> None:
        for name, client in list(self._clients.items()):
            if (status := client.poll()) is not None:
                del self._clients[name]
                if status not in (0, -signal.SIGKILL):
                    self._wrong.append(f"the client {name} ended with status {status}")
        if self._deploying is not None and (status := self._deploying.poll()) is not None:
            self._deploying = None
            if status:
                self._deploying = self._deploy(self.deploys)  # the server was killed under it: it is done again

    # -- killing -----------------------------------------------------------------------------------

    def _kill(self, what: str) -> None:
        if victims := self._victims(what):
            victim = self.chance.choice(sorted(victims, key=lambda process: process.pid))
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                return
            self.killed[what] += 1

    def _victims(self, what: str) -> list[psutil.Process]:
        """Below the server, or on their own when it is dead: the root, which forks zygotes, which fork containers."""
        assert self._server is not None
        if what == "server":
            return [psutil.Process(self._server.pid)] if self._server.poll() is None else []
        if what == "client":
            living = [client for client in self._clients.values() if client.poll() is None]
            return [psutil.Process(client.pid) for client in living]
        known = {self._server.pid} | {client.pid for client in self._clients.values()}
        roots = [one for one in self._marked() if one.pid not in known and _is_root(one)]
        if what == "root":
            return roots
        zygotes = [child for root in roots for child in _children(root)]
        return zygotes if what == "zygote" else [child for zygote in zygotes for child in _children(zygote)]

    def _marked(self) -> list[psutil.Process]:
        """All processes of this campaign."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue  # gone meanwhile
        return found

    # -- the end -----------------------------------------------------------------------------------

    def _end(self) -> None:
        (self._folder / "stop").touch()
        deadline = time.monotonic() + SECONDS_TO_END
        while (self._clients or self._deploying) and time.monotonic() < deadline:
            self._keep_serving()
            self._look_at_clients()
            time.sleep(0.05)
        for name, client in self._clients.items():
            self._wrong.append(f"the client {name} had no answer after {SECONDS_TO_END:g} s")
            client.kill()
        if not self._wrong:
            collecting = self._start(sys.executable, str(HERE / "clients.py"), "collecting")
            try:
                if status := collecting.wait(SECONDS_TO_END):
                    self._wrong.append(f"collecting what was spawned ended with status {status}")
            except subprocess.TimeoutExpired:
                self._wrong.append("what was spawned is not complete")
                collecting.kill()
        self._stop_serving()
        self._look_at_fires()

    def _stop_serving(self) -> None:
        assert self._server is not None
        self._server.terminate()
        try:
            self._server.wait(SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._wrong.append("the server did not end when it was told to")
            self._server.kill()
        deadline = time.monotonic() + SECONDS_TO_LEAVE
        while (left := self._marked()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                self._wrong.append(f"left behind: {process.pid} {' '.join(process.cmdline())[:100]}")
                process.kill()

    def _look_at_fires(self) -> None:
        """The schedule's calls are about a period apart, unless it has begun anew."""
        with sqlite3.connect(self._home / "upswell.db") as database:
            begun = [at for (at,) in database.execute("SELECT submitted_at FROM calls WHERE function LIKE '%/tick'")]
        twice = sum(later - earlier < 0.1 for earlier, later in zip(sorted(begun), sorted(begun)[1:], strict=False))
        anew = self.deploys + self.killed["server"]  # a deploy begins it anew, a restart makes up for what was missed
        if twice > anew:
            self._wrong.append(f"the schedule fired twice for a moment {twice} times, and began anew {anew} times")
        self.fires = len(begun)


def _is_root(process: psutil.Process) -> bool:
    """Whether it forks zygotes, as its title says."""
    try:
        return "root zygote" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []


def main() -> int:
    """Run campaigns, print what was done, and say what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=300)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="upswell-chaos-"))
    began = time.monotonic()
    campaign = Campaign(arguments.seed, arguments.kills, folder)
    wrong = campaign.run()
    done = ", ".join(f"{count} {what}" for what, count in sorted(campaign.killed.items()))
    print(f"seed {arguments.seed}: killed {done}; {campaign.deploys} deploys; {time.monotonic() - began:.0f} s")
    for line in (folder / "log").read_text().splitlines():
        if line.endswith("are complete"):
            print(line)
    for words in wrong:
        print(f"WRONG: {words}", file=sys.stderr)
    if wrong:
        print(f"everything is in {folder}", file=sys.stderr)
        return 1
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    folder.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
