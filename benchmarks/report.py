"""What a run prints and writes: the machine, a table of each measure, and the verdicts in one table at the end."""

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import OURS, Result, Target

PACKAGES = "upswell msgspec cloudpickle uvloop numpy joblib loky ray dask distributed".split()


def machine() -> dict[str, Any]:
    models = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gigabytes": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def number(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def print_heading() -> None:
    here = machine()
    print(
        f"{here['processor']}, {here['usable_cores']} of {here['cores']} cores, {here['memory_gigabytes']} GB, ", end=""
    )
    print(f"{here['system']}, {here['python']}, load {here['load_at_start'][0]}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()))


def print_result(result: Result) -> None:
    rounds = max((len(runs) for runs in result.runs.values()), default=0)
    print(f"\n{result.measure.title} ({result.measure.name}; {rounds} {'round' if rounds == 1 else 'rounds'}, medians)")
    columns = list(dict.fromkeys(figure for runs in result.runs.values() for run in runs for figure in run))
    widths = [max(len(column), 10) for column in columns]
    print(f"  {'':<28}" + "".join(f"  {column:>{width}}" for column, width in zip(columns, widths, strict=True)))
    for contender in result.runs:
        cells = [number(result.median(contender, column)) for column in columns]
        print(f"  {contender:<28}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    for contender, reason in result.failures.items():
        print(f"  {contender:<28}  FAILED: {reason}")
    sys.stdout.flush()


def print_verdicts(results: list[Result]) -> None:
    rows = [("measure", "figure", "reached", "must", "aim", "verdict")]
    for result in results:
        for target in result.measure.targets:
            rows.append((result.measure.name, _figure(target), *_numbers(result, target), result.verdict(target)))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    print()
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print("× is a multiple of the other contender's figure: the median over the rounds of this run.")


def write(path: Path, results: list[Result]) -> None:
    path.write_text(
        json.dumps(
            {
                "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
                "machine": machine(),
                "versions": versions(),
                "measures": [_as_data(result) for result in results],
            },
            indent=1,
        )
        + "\n"
    )


def _as_data(result: Result) -> dict[str, Any]:
    targets = [
        {
            "figure": target.figure,
            "against": target.against,
            "must": target.must,
            "aim": target.aim,
            "reached": result.reached(target),
            "verdict": result.verdict(target),
        }
        for target in result.measure.targets
    ]
    return {
        "name": result.measure.name,
        "title": result.measure.title,
        "runs": result.runs,
        "failures": result.failures,
        "targets": targets,
    }


def _figure(target: Target) -> str:
    return target.figure if target.against is None else f"{target.figure}, {OURS} : {target.against}"


def _numbers(result: Result, target: Target) -> tuple[str, str, str]:
    unit, sign = (" ×" if target.against else ""), ("≥ " if target.higher_is_better else "≤ ")
    value = result.reached(target)
    reached = number(value) + (unit if value is not None else "")
    aim = "" if target.aim is None else sign + number(target.aim) + unit
    return reached, sign + number(target.must) + unit, aim


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
