"""From `python script.py` to its first line of output, which is a result: imports, start-up and one call."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.harness import CpuClock, Figures, Measure, Target, adopt_orphans

SCRIPTS = Path(__file__).parent / "fresh"


def run_script(name: str) -> Figures:
    adopt_orphans()
    script = str(SCRIPTS / f"{name}.py")
    _run(script)  # byte code and file cache are warm for everybody
    return _run(script)


def _run(script: str) -> Figures:
    cpu, started = CpuClock(), time.perf_counter()
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        first = time.perf_counter() - started
        process.stdout.read()
        process.wait()
        ended = time.perf_counter() - started
    assert (line, process.returncode) == (b"1\n", 0), f"{script} printed {line!r} and ended with {process.returncode}"
    return {
        "first result ms": first * 1e3,
        "until its end ms": ended * 1e3,
        "CPU ms": cpu.seconds() * 1e3,
    }


MEASURES = [
    Measure(
        "fresh_interpreter",
        "From a fresh interpreter to the first result",
        {
            "upswell": partial(run_script, "with_upswell"),
            "loky": partial(run_script, "with_loky"),
            "mp.Pool": partial(run_script, "with_pool"),
            "ProcessPoolExecutor": partial(run_script, "with_executor"),
            "joblib": partial(run_script, "with_joblib"),
            "ray": partial(run_script, "with_ray"),
            "dask": partial(run_script, "with_dask"),
        },
        (Target("first result ms", 1.0, 0.6, against="loky"),),
        rounds=7,
        optional={"ray": "ray", "dask": "dask"},
    )
]
