"""A terminal to look at and to press keys in."""

import shlex
import subprocess
from pathlib import Path

from .processes import Program

WIDTH, HEIGHT = 120, 30


class Tmux:
    """One terminal, in a tmux server of its own."""

    def __init__(self, program: Program, folder: Path) -> None:
        self._program = program
        self._socket = str(folder / "tmux")

    def type(self, *command: str) -> None:
        size = ("-x", str(WIDTH), "-y", str(HEIGHT))
        # The shell lives on after Ctrl-C, to tell the status.
        line = f"trap : INT; {shlex.join(command)}; echo status=$?; sleep 600"
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, f"sh -c {shlex.quote(line)}")

    def screen(self) -> list[str]:
        """What is shown, below what has left it at the top."""
        shown = self._tmux("capture-pane", "-p", "-S", "-").rstrip("\n")
        return [line.rstrip() for line in shown.split("\n")]

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def narrow(self, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(HEIGHT))

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        environment = self._program.environment()
        done = subprocess.run(command, cwd=self._program.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
