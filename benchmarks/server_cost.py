"""What a container costs the server: its CPU for each input, and for each second of a container, at 10, 50 and 200.

Inputs sleep, so that the processors are the server's, the containers' and the client's in turn.
"""

import time
from functools import partial

import psutil

import upswell
from benchmarks.harness import OURS, Figures, Measure, Target, clock_of

INPUT_SECONDS, INPUTS_EACH = 0.5, 20
IDLE_SECONDS = 5.0

app = upswell.App("bench-server-cost")


@app.function()
def nap(_: int) -> None:
    time.sleep(INPUT_SECONDS)


def crowded(containers: int, server: int = 0, *, cpu: float | None = None) -> Figures:
    """Let so many work, and then wait, on the server of that process, or else on a private one."""
    sleeping = nap.with_options(max_containers=containers, cpu=cpu)
    with app.run():
        sleeping.update_autoscaler(min_containers=containers)
        while sleeping.get_current_stats().input_headroom < containers:
            time.sleep(0.05)
        list(sleeping.map(range(containers)))
        server = server or next(one.pid for one in psutil.Process().children() if "upswell.server" in one.cmdline())
        idle = -clock_of(server)
        time.sleep(IDLE_SECONDS)
        idle += clock_of(server)
        inputs, busy, began = containers * INPUTS_EACH, -clock_of(server), time.perf_counter()
        list(sleeping.map(range(inputs)))
        busy, seconds = busy + clock_of(server), time.perf_counter() - began
    return {
        "server CPU µs/input": 1e6 * busy / inputs,
        "µs/s of a container": 1e6 * busy / (containers * seconds),
        "µs/s of an idle one": 1e6 * idle / (containers * IDLE_SECONDS),
    }


FEWEST = "with 10 containers"
CROWDS = {OURS: 200, "with 50 containers": 50, FEWEST: 10}
TARGETS = (Target("server CPU µs/input", 1.2, against=FEWEST), Target("µs/s of a container", 1.2, against=FEWEST))
MEASURES = [
    Measure(
        "server_cost",
        f"CPU of the server for each of 200 containers, and of fewer; inputs sleep {INPUT_SECONDS} s",
        {name: partial(crowded, containers) for name, containers in CROWDS.items()},
        TARGETS,
        rounds=3,
    )
]
