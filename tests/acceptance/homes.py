"""A home with a server, as its user has it: commands run against it, and nothing of it outlives the test."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import SECONDS_TO_RUN, UPSWELL, Done, Program


@dataclass
class Home:
    """`UPSWELL_HOME`, in the folder of a program whose server may go on between commands."""

    program: Program
    path: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {**self.program.environment(), "UPSWELL_HOME": str(self.path), **more}

    def run(self, *command: str, **more: str) -> Done:
        """Run to the end; `more` are variables of the environment."""
        ended = subprocess.run(
            command,
            cwd=self.program.folder,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_RUN,
            check=False,
        )
        return Done(ended.returncode, ended.stdout, ended.stderr)

    def upswell(self, *arguments: str, **more: str) -> Done:
        return self.run(*UPSWELL, *arguments, **more)

    def python(self, *arguments: str, **more: str) -> Done:
        return self.run(sys.executable, *arguments, **more)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.upswell("server", "status", "--json").out))

    def token(self, *options: str) -> str:
        return self.upswell("server", "token", "create", *options).out.strip()

    def popen(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """Start, and go on at once."""
        return subprocess.Popen(
            command,
            cwd=self.program.folder,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def served(self, *options: str) -> Iterator[dict[str, Any]]:
        """A server in the background; what it says of itself."""
        started = self.upswell("server", "start", *options)
        assert started.status == 0, started.err
        try:
            yield self.status()
        finally:
            self.upswell("server", "stop")

    def clear(self) -> None:
        """End what a failed test has left."""
        self.program.clear()


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself and for these names of the server, and its key."""
    key, chain = folder / "server.key", folder / "server.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", "/CN=upswell", "-addext", f"subjectAltName={','.join(names)}"),
        *("-keyout", str(key), "-out", str(chain)),
    ]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    return chain, key
