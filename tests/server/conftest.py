"""The home of servers that tests stop and start again."""

from pathlib import Path

import pytest

from upswell.server import runtime


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server with it that gives up fails the test, and does not end its process."""

    def fail() -> None:
        raise

    monkeypatch.setattr(runtime, "give_up", fail)
    return tmp_path
