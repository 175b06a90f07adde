"""`python -m upswell.sim`: compare policies, or with `--laws` play histories full of faults.

The laws of the core are checked at every step of every run, and each result is that of its seed. `--help` lists the
options.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

from ..core.autoscaler import RULES
from .histories import play
from .report import OURS, Result, details, measure, summarise, table
from .rivals import RIVALS
from .watch import Violation
from .workloads import WORKLOADS, Workload

SOME_RIVALS = [
    "Knative KPA",
    "Ray Serve, tuned",
    "Lambda-like, keep 600 s",
    "the guide, window 60 s",
    "the guide, window 5 s",
]


def main() -> int:
    """Do what the command line says; the exit status."""
    arguments = _arguments()
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    if arguments.laws:
        return _laws(range(arguments.seed, arguments.seed + arguments.laws))
    rules = list(RULES) if "each" in arguments.without else arguments.without
    policies = [OURS, *(f"{OURS} without {rule}" for rule in rules)]
    if not rules or arguments.all:
        policies += RIVALS if arguments.all else SOME_RIVALS
    wanted = [workload for workload in WORKLOADS if arguments.workload in workload.name]
    if not wanted:
        names = ", ".join(workload.name for workload in WORKLOADS)
        sys.exit(f"--workload {arguments.workload}: no workload has this in its name; there are {names}")
    results = _campaign(policies, wanted, seeds, arguments.processes)
    if arguments.json:
        print(json.dumps([asdict(result) for result in results]))
        return 0
    if arguments.details:
        print(*(details(results, workload.name) for workload in wanted), sep="\n\n", end="\n\n")
    print("Geometric means, with 95 % intervals over seeds. Cost is container-seconds over those of the inputs alone.")
    for held_out, title in ((False, "tuned on"), (True, "held out from tuning")):
        shown = {workload.name for workload in wanted if workload.held_out == held_out}
        mine = [result for result in results if result.workload in shown]
        if mine:
            print(f"\n{len(shown)} workloads {title}, {len(seeds)} seeds\n")
            print(table([summarise(policy, mine) for policy in policies]))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("upswell.sim", description="Compare autoscaling policies in simulated time.")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds to run (1); quote nothing below 20")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (0)")
    parser.add_argument("--all", action="store_true", help="every rival, not only the best known")
    parser.add_argument("--workload", default="", metavar="TEXT", help="only workloads with this in their names")
    parser.add_argument("--without", action="append", default=[], choices=[*RULES, "each"], help="leave out a rule")
    parser.add_argument("--laws", type=int, default=0, metavar="N", help="play N histories full of faults instead")
    parser.add_argument("--details", action="store_true", help="a table for each workload")
    parser.add_argument("--json", action="store_true", help="results for programs")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="run so many at once")
    return parser.parse_args()


def _campaign(policies: Iterable[str], workloads: list[Workload], seeds: range, processes: int) -> list[Result]:
    runs = [(policy, workload.name, seed) for workload in workloads for seed in seeds for policy in policies]
    if processes == 1:
        return [_run(run) for run in runs]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(_run, runs, chunksize=4))


def _run(run: tuple[str, str, int]) -> Result:
    policy, name, seed = run
    workload = next(workload for workload in WORKLOADS if workload.name == name)
    try:
        return measure(policy, workload, seed)
    except Violation as violation:
        raise Violation(f"{policy} on {name}, seed {seed}: {violation}") from None


def _laws(seeds: range) -> int:
    began = time.perf_counter()
    decisions = 0
    for seed in seeds:
        try:
            decisions += play(seed).decisions
        except Violation as violation:
            print(
                f"seed {seed}: {violation}\nagain with: python -m upswell.sim --laws 1 --seed {seed}", file=sys.stderr
            )
            return 1
    print(f"{len(seeds):,} histories, {decisions:,} decisions, {time.perf_counter() - began:.1f} s: every law holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
