"""What a type checker sees of a user's program: each line of `program.py` says what mypy must find there."""

import os
import re
from pathlib import Path

import pytest
from mypy import api

HERE = Path(__file__).parent
PROGRAM = HERE / "program.py"
REPORT = re.compile(r"^[^:]+:(\d+): (note|error): (.*?)(?:  \[([\w-]+)\])?$")
REVEALED = re.compile(r'Revealed type is "(.*)"')
EXPECTED = re.compile(r"# (is|error): (.*)$")
MODULE = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])")  # builtins. typing. upswell.sdk.function. and the like


@pytest.mark.timeout(240)  # nothing is cached: mypy reads the standard library's types first
def test_types_pass_through() -> None:
    options = [
        "--strict",
        "--no-error-summary",
        "--config-file=",
        f"--cache-dir={os.devnull}",
        "--disable-error-code=unused-coroutine",
    ]
    printed, failed, _ = api.run([*options, str(PROGRAM)])
    assert not failed
    found: dict[int, list[str]] = {}
    for line in printed.splitlines():
        report = REPORT.match(line)
        assert report, line
        number, kind, text, code = report.groups()
        if revealed := REVEALED.match(text):
            found.setdefault(int(number), []).append("is: " + plain(revealed[1]))
        elif kind == "error":
            found.setdefault(int(number), []).append(f"error: {code}")
    lines = enumerate(PROGRAM.read_text().splitlines(), 1)
    expected = {number: [f"{match[1]}: {match[2]}"] for number, line in lines if (match := EXPECTED.search(line))}
    assert found == expected


def plain(revealed: str) -> str:
    """The type without modules, in today's notation."""
    return MODULE.sub("", revealed).replace("def (", "(")
