"""The list of planted bugs is up to date, and its tool tells caught from missed. The whole list: `make sabotage`."""

from pathlib import Path

import pytest

from tests.sabotage import BUGS, ROOT, SECONDS, Bug, plant, who_notices


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_be_planted(bug: Bug, tmp_path: Path) -> None:
    original = ROOT / "src" / "upswell" / bug.file
    copy = tmp_path / "upswell" / bug.file
    copy.parent.mkdir(parents=True)
    copy.write_text(original.read_text())
    plant(bug, tmp_path)
    compile(copy.read_text(), copy, "exec")
    assert copy.read_text() != original.read_text()


@pytest.mark.timeout(2 * SECONDS)
def test_a_bug_is_told_from_none() -> None:
    tests = ("tests/core/test_queue.py",)
    assert who_notices(Bug("no turns", "core/queue.py", "self.turns.popleft()", "self.turns.pop()", tests))
    assert not who_notices(
        Bug("none", "core/queue.py", "self.succeeded += count", "self.succeeded += count + 0", tests)
    )
