"""The fixtures of these tests: a folder for a program, watched for what is left in it; a server that keeps apps; a
terminal.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .homes import Home
from .processes import Program, kept_server
from .tmux import Tmux


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def home(program: Program) -> Iterator[Home]:
    """The program's home, for commands that leave a server running."""
    one = Home(program, program.home)
    yield one
    one.clear()


@pytest.fixture
def keeper(program: Program) -> Iterator[None]:
    """A server with the program's home, for what it deploys."""
    with kept_server(program):
        yield


@pytest.fixture
def terminal(program: Program) -> Iterator[Tmux]:
    with TemporaryDirectory(prefix="upswell-") as folder:  # the path of a socket must be short
        made = Tmux(program, Path(folder))
        yield made
        made.close()
