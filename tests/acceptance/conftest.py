"""The fixtures of these tests: a folder for a program, watched for what is left in it; a server that keeps apps; a
terminal.

What a failed test leaves running is ended; of one that passes, the end of the run would tell.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .homes import Home
from .processes import Program, kept_server
from .tmux import Tmux

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests have failed, for their fixtures."""
    report = yield
    item.stash[FAILED] = report.failed or item.stash.get(FAILED, False)
    return report


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    one = Program(tmp_path)
    yield one
    if request.node.stash.get(FAILED, False):
        one.clear()


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
