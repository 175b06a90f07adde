"""The layers of the code, held on its syntax tree: imports go strictly down, and what a start waits for stays light.

A unit is what stands directly under src/upswell: a package or a single module. A unit may import itself and units of a
lower rank, nothing beside it and nothing above. Imports inside functions and under TYPE_CHECKING count like all others.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
FACADE = "upswell"  # the public names: upswell/__init__.py and what it is made of

RANKS = {
    "_cold_start": 0,
    "errors": 0,
    "spec": 1,
    "operations": 1,
    "capacity": 2,
    "core": 3,
    "wire": 4,
    "home": 5,
    "code": 5,
    "engine": 5,
    "store": 5,
    "clock": 5,
    "stores": 6,
    "sdk": 7,
    FACADE: 8,
    "exception": 8,
    "call_graph": 8,
    "container": 9,
    "engines": 10,
    "server": 11,
    "sim": 11,
    "cli": 12,
    "__main__": 13,
}
FACADE_MAY_IMPORT = {FACADE, "_cold_start", "exception", "call_graph", "sdk", "spec", "errors"}
CORE_MAY_IMPORT = set(
    "__future__ bisect collections cronsim dataclasses datetime enum heapq itertools math msgspec typing "
    "zoneinfo".split()
)
IMPLEMENTATIONS = {"engines", "stores"}
WHERE_SEAMS_MEET = "upswell.server.__main__"  # within the server, only it names an implementation
HEAVY = (
    "asyncio uvloop apsw cronsim zoneinfo click rich cloudpickle psutil numpy multiprocessing "
    "upswell.server upswell.core upswell.engines upswell.container upswell.cli"
).split()


def module_name(path: Path, source: Path = SOURCE) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else FACADE


def imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every import, wherever it stands."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for (
                alias
            ) in node.names:  # `from upswell import core` imports the unit, `from upswell import App` the facade
                named = f"{base}.{alias.name}"
                yield node.lineno, named if base == "upswell" and alias.name in RANKS else base


def violation(module: str, target: str) -> str | None:
    """Return the rule that an import breaks, or None."""
    unit = unit_of(module)
    if target.split(".")[0] != "upswell":
        if unit == "core" and target.split(".")[0] not in CORE_MAY_IMPORT:
            return f"core decides and never acts: it may import only {' '.join(sorted(CORE_MAY_IMPORT))}"
        return None
    other = unit_of(target)
    for name in (unit, other):
        if name not in RANKS:
            return f"'{name}' has no layer: give it a rank in tests/test_layers.py"
    if unit in {FACADE, "exception", "call_graph"}:
        return None if other in FACADE_MAY_IMPORT else "the public names come from sdk, spec and errors alone"
    if unit == "server" and other in IMPLEMENTATIONS and module != WHERE_SEAMS_MEET:
        return f"only {WHERE_SEAMS_MEET} names an implementation; use the seam ('engine', 'store')"
    if unit != other and RANKS[other] >= RANKS[unit]:
        return f"imports go strictly down: '{unit}' (rank {RANKS[unit]}) may not use '{other}' (rank {RANKS[other]})"
    return None


def violations(text: str, module: str, where: str, is_package: bool = False) -> list[str]:
    found = []
    for line, target in imported(ast.parse(text), module, is_package):
        if rule := violation(module, target):
            found.append(f"{where}:{line}: imports {target}: {rule}")
    return found


def test_imports_go_down() -> None:
    paths = sorted((SOURCE / "upswell").rglob("*.py"))
    assert paths, f"no modules under {SOURCE / 'upswell'}"
    found: list[str] = []
    for path in paths:
        where = str(path.relative_to(SOURCE.parent))
        found += violations(path.read_text(), module_name(path), where, path.name == "__init__.py")
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("upswell.core.pool", "import time"),
        ("upswell.core.pool", "def now():\n    from asyncio import sleep"),
        ("upswell.core.pool", "from ..wire import codec"),
        (
            "upswell.core.pool",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from upswell.store import Store",
        ),
        ("upswell.spec", "from upswell.core.model import Pool"),
        ("upswell.errors", "from upswell.spec import Cron"),
        ("upswell.wire.codec", "from upswell.store import Store"),
        ("upswell.sdk.app", "from upswell import server"),
        ("upswell.sdk.app", "import upswell"),
        ("upswell.server.runtime", "from ..engines.local import LocalEngine"),
        ("upswell.sim.world", "from upswell.server import runtime"),
        ("upswell.utilities", "import upswell.spec"),
        ("upswell.exception", "from upswell.core import plane"),
    ],
)
def test_a_planted_import_is_caught(module: str, text: str) -> None:
    assert len(violations(text, module, "planted.py")) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            "upswell.core.pool",
            "import heapq\nfrom collections.abc import Iterator\nfrom ..spec import Cron\nfrom . import model",
        ),
        ("upswell.sdk.app", "import asyncio\nfrom ..wire import codec\nfrom upswell.errors import Error"),
        (
            "upswell.server.__main__",
            "from upswell.engines.local import LocalEngine\nfrom upswell.stores.memory import MemoryStore",
        ),
        ("upswell.server.runtime", "from ..core.plane import Plane\nfrom ..engine import Engine"),
        ("upswell.cli.run", "from upswell import App, server\nimport click"),
        ("upswell.container.loader", "import upswell"),
    ],
)
def test_a_proper_import_passes(module: str, text: str) -> None:
    assert violations(text, module, "proper.py") == []


def imported_by(program: str, names: Sequence[str]) -> list[str]:
    """Return which of the modules a fresh interpreter has imported after the program."""
    program = f"import sys\n{program}\nprint(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_upswell_is_light() -> None:
    assert imported_by("from upswell import *", HEAVY) == []
    assert imported_by("import upswell", ["upswell.sdk", "upswell.wire"]) == []


DECLARING = """
import upswell
app = upswell.App("light")
@app.function(retries=1)
def double(x): return 2 * x
"""
LATE = "inspect dataclasses subprocess pickle upswell.sdk.client upswell.sdk.call upswell.wire.messages".split()


def test_declaring_an_app_imports_nothing_that_runs_it() -> None:
    assert imported_by(DECLARING, [*HEAVY, *LATE]) == []


def test_what_is_late_is_imported_as_it_is_named() -> None:
    late = [name for name in LATE if name.startswith("upswell.sdk")]
    assert imported_by("from upswell import sdk; sdk.client", late) == ["upswell.sdk.client"]
    assert imported_by("from upswell import sdk; sdk.complete()", late) == late


def test_the_root_zygote_imports_no_more_than_containers_need() -> None:
    others = ["asyncio", "inspect", "dataclasses", "subprocess", "traceback", "upswell.sdk.client"]
    assert imported_by("import upswell.container.root", others) == []


def test_the_root_zygote_is_forked_before_the_imports_of_either_side() -> None:
    assert imported_by("import upswell.engines.local", ["asyncio", "pathlib", "upswell.sdk", "upswell.core"]) == []


def test_a_private_server_starts_without_what_it_does_not_do() -> None:
    others = "apsw argparse cronsim pathlib zoneinfo tempfile secrets dataclasses upswell.sdk".split()
    others += ["upswell.code", "upswell.server.logs"]
    assert imported_by("import upswell.server.serve, upswell.stores.memory", others) == []
