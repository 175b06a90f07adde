"""The one fixture of these tests: a folder for a program, watched for what is left in it."""

from pathlib import Path

import pytest

from .processes import Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)
