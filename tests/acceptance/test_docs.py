"""The documents are true: every program in them runs, and every session shown gives what is shown.

A python block whose first line is `# name.py` is that file. A console block is a session in the folder of those files:
lines that begin with `$ ` are commands, the others what they print, `...` standing for any text.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from .homes import Home
from .processes import UPSWELL, kept_server

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.py)\n")
LINK = re.compile(r"\[[^]]*\]\((?!https?:)([^)#]+)[^)]*\)")


@dataclass(frozen=True)
class Command:
    """One command of a session, and the pattern of what it prints."""

    words: list[str]
    expected: str

    def fits(self, printed: str) -> bool:
        pattern = ".*".join(map(re.escape, self.expected.strip().split("...")))
        return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def files_and_sessions(text: str) -> Iterator[tuple[str, str] | list[Command]]:
    for language, block in BLOCK.findall(text):
        if language == "python" and (name := FILE.match(block)):
            yield name[1], block
        elif language == "console":
            yield list(commands(block))


def commands(block: str) -> Iterator[Command]:
    for piece in block.split("$ ")[1:] if block.startswith("$ ") else []:
        line, _, expected = piece.partition("\n")
        words = shlex.split(line)
        replaced = {"upswell": UPSWELL, "python": [sys.executable]}[words[0]]
        yield Command([*replaced, *words[1:]], expected)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_sessions_are_as_shown(home: Home, document: Path) -> None:
    """No command leaves anything, but where a document starts a server: there it is looked at when all is over."""
    program, whole = home.program, document.read_text()
    run = home.run if "$ upswell server start" in whole else program.run
    # The first deploy would start a server in the background, which stays.
    with kept_server(program) if "$ upswell deploy" in whole else nullcontext():
        for item in files_and_sessions(whole):
            if isinstance(item, tuple):
                name, text = item
                program.write(text, name)
                continue
            for command in item:
                done = run(*command.words)
                printed = done.out + done.err
                said = f"{shlex.join(command.words)} printed\n{printed}\nnot\n{command.expected}"
                assert command.fits(printed), said
    program.assert_all_gone()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_is_valid_and_every_one_is_run(document: Path) -> None:
    text = document.read_text()
    names = {item[0] for item in files_and_sessions(text) if isinstance(item, tuple)}
    for language, block in BLOCK.findall(text):
        if language == "python":
            compile(block, str(document), "exec")
    sessions = " ".join(block for language, block in BLOCK.findall(text) if language == "console")
    assert {name for name in names if name not in sessions} == set()


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "ARCHITECTURE.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    missing = [target for target in LINK.findall(document.read_text()) if not (document.parent / target).exists()]
    assert not missing


def test_the_architecture_names_what_there_is() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`((?:core|sdk|cli|server|wire|container|engines|stores|sim)/[\w/]*\w\.py)`", text))
    assert named, "no module is named"
    assert {name for name in named if not (ROOT / "src" / "upswell" / name).exists()} == set()
