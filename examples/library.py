"""A census of the standard library: every source file parsed, in parallel, and the largest modules named."""

import ast
import sysconfig
import time
import tokenize
import warnings
from pathlib import Path

import upswell as modal

app = modal.App("library")
root = Path(sysconfig.get_paths()["stdlib"])


@app.function()
def measure(path: str) -> tuple[str, int, int, int, int] | None:
    """Return a module's name, lines, functions, classes and characters; None for a file that is no valid Python."""
    try:
        with tokenize.open(path) as file:
            text = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's strings
            nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    name = ".".join(Path(path).relative_to(root).with_suffix("").parts)
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
    classes = sum(isinstance(node, ast.ClassDef) for node in nodes)
    return name.removesuffix(".__init__"), text.count("\n"), functions, classes, len(text)


@app.local_entrypoint()
def main(top: int = 10, within: str = ""):
    found = sorted((root / within).rglob("*.py"))
    paths = [str(path) for path in found if not {"site-packages", "dist-packages"} & {*path.parts}]
    started = time.perf_counter()
    measured = list(measure.map(paths))
    seconds = time.perf_counter() - started
    modules = sorted((module for module in measured if module), key=lambda module: module[1], reverse=True)

    print(f"{'module':<36} {'lines':>9} {'functions':>9} {'classes':>9} {'characters':>11}")
    for name, lines, functions, classes, characters in modules[:top]:
        print(f"{name:<36} {lines:>9,} {functions:>9,} {classes:>9,} {characters:>11,}")
    totals = [sum(module[column] for module in modules) for column in (1, 2, 3, 4)]
    print(f"{'all ' + format(len(modules), ',') + ' modules':<36} {totals[0]:>9,} {totals[1]:>9,} ", end="")
    print(f"{totals[2]:>9,} {totals[3]:>11,}")
    print(f"{len(paths):,} files in {seconds:.2f} s; {len(paths) - len(modules)} of them do not parse")
