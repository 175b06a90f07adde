"""`python -m benchmarks [--only NAME,...] [--with ray,dask] [--rounds N] [--json FILE] [--strict]`."""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks import harness, report

MODULES = [
    "noop_map",
    "warm_call",
    "fairness",
    "fresh_interpreter",
    "one_more_container",
    "sleeps",
    "idle_memory",
    "arrays",
    "skew",
    "cpu_bound",
    "lazy_memory",
    "durable_store",
    "kept_calls",
    "settings",
    "server_cost",
]
EXTRAS = {"ray", "dask"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="upswell and its peers, side by side")
    parser.add_argument("--only", default="", help=f"measures, separated by commas: {', '.join(MODULES)}")
    parser.add_argument("--with", dest="extras", default="", help=f"more peers: {', '.join(sorted(EXTRAS))}")
    parser.add_argument("--rounds", type=int, help="rounds of every measure (default: each measure's own)")
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 when a must is missed")
    chosen = parser.parse_args()
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    chosen.extras = frozenset(name for name in chosen.extras.split(",") if name)
    if unknown := chosen.extras - EXTRAS:
        parser.error(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(EXTRAS))}")
    return chosen


def main() -> int:
    chosen = options()
    measures = [
        (measure, f"benchmarks.{name}")
        for name in MODULES
        for measure in importlib.import_module(f"benchmarks.{name}").MEASURES
    ]
    wanted = {name for name in chosen.only.split(",") if name}
    known = {measure.name for measure, _ in measures} | set(MODULES)
    if wanted - known:
        print(f"no measure is called {', '.join(sorted(wanted - known))}; there are:", file=sys.stderr)
        print("\n".join(f"  {measure.name:<20} {measure.title}" for measure, _ in measures), file=sys.stderr)
        return 2

    report.print_heading()
    results = []
    for measure, module in measures:
        if not wanted or wanted & {measure.name, module.removeprefix("benchmarks.")}:
            results.append(harness.run(measure, module, chosen.rounds, chosen.extras))
            report.print_result(results[-1])
    report.print_verdicts(results)
    if chosen.json:
        report.write(chosen.json, results)
    missed = any(result.verdict(target) == "MISSED" for result in results for target in result.measure.targets)
    failed = any(result.failures for result in results)
    return 1 if failed or (chosen.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
