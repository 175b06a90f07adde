"""The house rules that a machine can hold: sizes, names, docstrings, and nothing of the machine it was written on."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES_PER_SOURCE_FILE = 500
LINES_PER_TEST_FILE = 700
LINES_PER_FUNCTION = 80
GENERATED = {".git", ".venv", "build", "dist", "__pycache__"}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "manager", "managers", "misc"}
# Split, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
OF_ONE_MACHINE = re.compile(r"(?<![\w.~-])/(wor" + r"k|roo" + r"t|op" + r"t|User" + r"s)/\w")
REGISTRY = re.compile(
    r"pypi\.or" + r"g|pythonhos" + r"ted|--(extra-)?index-ur" + r"l|--find-link" + r"s|/simpl" + r"e\b"
)


@cache
def files() -> list[Path]:
    """Return what git tracks or is about to; in an unpacked archive, everything that was not generated."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not GENERATED & {*path.relative_to(ROOT).parts}]
    return sorted(path for path in paths if path.is_file())


def modules(*folders: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


@cache
def texts() -> list[tuple[str, str]]:
    """Return name and content of every text file."""
    found = []
    for path in files():
        try:
            found.append((str(path.relative_to(ROOT)), path.read_text()))
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # no text, or what some tool had there for a moment
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def matches(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def report(found: list[str]) -> str:
    return "\n" + "\n".join(found)


def test_files_are_short() -> None:
    found = []
    for path in modules("src", "tests", "benchmarks", "examples"):
        name, lines = path.relative_to(ROOT), len(path.read_text().splitlines())
        limit = LINES_PER_TEST_FILE if name.parts[0] == "tests" else LINES_PER_SOURCE_FILE
        if lines > limit:
            found.append(f"{name}: {lines} lines, at most {limit}")
    assert not found, report(found)


def test_functions_are_short() -> None:
    found = []
    for path in modules("src"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_PER_FUNCTION:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}: {lines} lines")
    assert not found, f"\nfunctions have at most {LINES_PER_FUNCTION} lines" + report(found)


def test_names_say_something() -> None:
    found = [str(path) for path in modules("src", "tests") if NAMES_THAT_SAY_NOTHING & {*path.stem.lower().split("_")}]
    assert not found, report(found)


def test_every_module_says_what_it_is_for() -> None:
    found = []
    for path in modules("src", "tests", "benchmarks"):
        if path.read_text().strip() and not ast.get_docstring(tree(path)):
            found.append(f"{path.relative_to(ROOT)}: no docstring")
    assert not found, report(found)


def test_nothing_is_left_unfinished() -> None:
    assert not matches(UNFINISHED), report(matches(UNFINISHED))


def test_nothing_tells_of_one_machine() -> None:
    assert not matches(OF_ONE_MACHINE), report(matches(OF_ONE_MACHINE))


def test_no_address_of_a_registry() -> None:
    assert not matches(REGISTRY), report(matches(REGISTRY))
