"""Runs programs as a user would, and looks at what they leave behind.

Each program gets a folder and a mark in its environment, which every process it starts inherits: that is how those are
found, whoever their parent is by then.
"""

import os
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "UPSWELL_TEST_PROGRAM"
SECONDS_TO_LEAVE = 30.0  # in which everything must be gone after the program has ended, however it ended
SECONDS_TO_RUN = 120.0  # what should happen soon has happened by then, whatever else the machine has to do
NOT_INHERITED = ("COLUMNS", "LINES", "PYTHONUNBUFFERED")
UPSWELL = [sys.executable, "-P", "-m", "upswell"]  # as the installed script: the folder is not on its import path


@dataclass(frozen=True)
class Done:
    """How a program ended, and all it printed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass
class Program:
    """A folder with a user's files, and what runs in it."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    variables: dict[str, str] = field(default_factory=dict)  # of its environment, beside those of every program

    def write(self, text: str, name: str = "program.py") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    def environment(self) -> dict[str, str]:
        """What the program's processes get; temporary files go where they are looked for.

        A terminal's size is asked of the terminal, whatever the one that the tests run in has; and what is printed is
        written line by line, so that no line of a container comes into one of the program's.
        """
        temporary = self.folder / "temporary"
        temporary.mkdir(exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        ours = {MARK: self.mark, "TMPDIR": str(temporary), "UPSWELL_HOME": str(self.home)}
        return {**inherited, **ours, **self.variables}

    @property
    def home(self) -> Path:
        """Where a server keeps what the program deploys."""
        return self.folder / "kept"

    def run(self, *command: str, given: str | None = None) -> Done:
        """Run to the end; nothing may be left, neither processes nor files."""
        environment, before = self.environment(), self.files()
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_RUN,
            check=False,
        )
        self.assert_all_gone()
        assert not (left := self.files() - before), f"files were left behind: {left}"
        return Done(ended.returncode, ended.stdout, ended.stderr)

    def upswell(self, *arguments: str, given: str | None = None) -> Done:
        return self.run(*UPSWELL, *arguments, given=given)

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start in a process group of its own, as a shell does."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def files(self) -> set[Path]:
        """Return what is in the folder, less what Python itself keeps of imported modules."""
        paths = (path for path in self.folder.rglob("*") if path.name != "kept" and "kept" not in path.parts)
        return {path for path in paths if not (path.name == "__pycache__" or path.suffix == ".pyc")}

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of the program."""
        return [process for process in psutil.process_iter() if _has(process, self.mark)]

    def clear(self) -> None:
        """End what a failed test has left, also what it has stopped."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert until(lambda: not self.processes())

    def assert_all_gone(self) -> None:
        assert until(lambda: not self.processes(), SECONDS_TO_LEAVE), f"still there: {_named(self.processes())}"


@contextmanager
def kept_server(program: Program, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A server with the program's home, which is none of the program's processes."""
    program.home.mkdir(0o700, exist_ok=True)
    command = [sys.executable, "-P", "-m", "upswell.server", "--home", str(program.home), *options]
    with (program.home / "server.log").open("a") as log:
        server = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True)
    try:
        assert until(lambda: (program.home / "server.sock").exists() or server.poll() is not None)
        assert server.poll() is None, (program.home / "server.log").read_text()
        yield server
    finally:
        server.terminate()
        try:
            server.wait(SECONDS_TO_RUN)
        except subprocess.TimeoutExpired:
            server.kill()
            raise


def reserve_port(reserved: socket.socket) -> int:
    """A port of this machine that a server can listen at, and nobody else gets while this socket is open."""
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return int(reserved.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = SECONDS_TO_RUN) -> bool:
    """Wait for the condition; return whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def _named(processes: list[psutil.Process]) -> str:
    words = []
    for process in processes:
        try:
            words.append(f"{process.pid} {process.cmdline()} {process.status()}")
        except psutil.Error:
            continue
    return "; ".join(words)
