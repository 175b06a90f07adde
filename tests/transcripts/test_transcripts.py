"""Plays every transcript beside this file. UPSWELL_REWRITE=1 writes down what the core answers now, for `git diff`."""

import difflib
import os
from pathlib import Path

import pytest

from .player import play

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    written = path.read_text()
    played = play(written)
    if played != written and os.environ.get("UPSWELL_REWRITE"):
        path.write_text(played)
    elif played != written:
        lines = difflib.unified_diff(written.splitlines(), played.splitlines(), "written", "played", lineterm="")
        pytest.fail("\n".join(lines), pytrace=False)


def test_there_are_transcripts() -> None:
    assert len(SCRIPTS) > 10
