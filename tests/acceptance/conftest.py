"""The fixtures of these tests: a folder for a program, watched for what is left in it; a server that keeps apps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Program, kept_server


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def keeper(program: Program) -> Iterator[None]:
    """A server with the program's home, for what it deploys."""
    with kept_server(program):
        yield
