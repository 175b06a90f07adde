"""The loads that policies are compared on. A workload and a seed give the same calls, and the same seconds for each
input, to every policy. Those marked as held out are not looked at while the policy is tuned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from ..spec import Concurrency, FunctionSpec
from .process import Behaviour

LONGEST_INPUT_SECONDS = 300.0
FORK = Behaviour(start_seconds=0.003, start_compute=0.002, memory_bytes=10 << 20)
IMPORTS = Behaviour()
MODEL = Behaviour(start_seconds=13.0, start_compute=2.0, memory_bytes=1 << 30)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call: when, of which function, and how many seconds each of its inputs takes."""

    at: float
    services: tuple[float, ...]
    function: str = "f"


@dataclass(frozen=True, slots=True)
class Workload:
    """What arrives, and where it runs."""

    name: str
    arrivals: Callable[[Random], list[Arrival]]
    behaviour: Behaviour = IMPORTS
    concurrency: Concurrency = field(default_factory=Concurrency)
    held_out: bool = False

    @property
    def spec(self) -> FunctionSpec:
        return FunctionSpec(concurrency=self.concurrency)


Service = Callable[[Random], float]


def constant(seconds: float) -> Service:
    """Every input takes as long."""
    return lambda random: seconds


def around(mean: float, sigma: float = 0.5) -> Service:
    """Lognormal with this mean."""
    mu = math.log(mean) - sigma * sigma / 2
    return lambda random: min(LONGEST_INPUT_SECONDS, random.lognormvariate(mu, sigma))


def _times(random: Random, rate: Callable[[float], float], most: float, until: float) -> Iterator[float]:
    """Moments of a Poisson process whose rate changes (thinning, Lewis and Shedler 1979)."""
    now = random.expovariate(most)
    while now < until:
        if random.random() * most < rate(now):
            yield now
        now += random.expovariate(most)


def poisson(
    rate: Callable[[float], float], most: float, until: float, service: Service
) -> Callable[[Random], list[Arrival]]:
    """Single calls at `rate(t)` a second, which is at most `most`."""
    return lambda random: [Arrival(at, (service(random),)) for at in _times(random, rate, most, until)]


def maps(count: int, service: Service, moments: tuple[float, ...] = (0.0, 60.0)) -> Callable[[Random], list[Arrival]]:
    """Maps of `count` inputs, the first to a function nothing is known of."""
    return lambda random: [Arrival(at, tuple(service(random) for _ in range(count))) for at in moments]


def _spikes(random: Random) -> list[Arrival]:
    service = around(0.5)
    calls = [Arrival(at, (service(random),)) for at in _times(random, lambda _: 0.5, 0.5, 600.0)]
    for _ in range(6):
        at = random.random() * 600.0
        calls += [Arrival(at + random.random(), (service(random),)) for _ in range(100)]
    return calls


def _rare(random: Random) -> list[Arrival]:
    return [Arrival(at, (random.lognormvariate(-0.1, 0.5),)) for at in _times(random, lambda _: 1 / 90, 1 / 90, 3600.0)]


def _timer(random: Random) -> list[Arrival]:
    return [Arrival(30.0 * number, (random.lognormvariate(0.6, 0.3),)) for number in range(60)]


def _random_maps(random: Random) -> list[Arrival]:
    arrivals = []
    for at in _times(random, lambda _: 1 / 25, 1 / 25, 500.0):
        service = around(random.choice((0.02, 0.3, 3.0)), 0.8)
        arrivals.append(Arrival(at, tuple(service(random) for _ in range(int(random.paretovariate(0.7)) % 300 + 1))))
    return arrivals


def _azure(random: Random) -> list[Arrival]:
    """After "Serverless in the Wild" (Shahrad et al., 2020): few functions get nearly all the calls."""
    arrivals = []
    for number in range(40):
        draw = random.random()
        if draw < 0.45:
            rate = random.uniform(0.2, 1.0) / 3600
        elif draw < 0.81:
            rate = math.exp(random.uniform(math.log(1 / 3600), math.log(1 / 60)))
        else:
            rate = math.exp(random.uniform(math.log(1 / 60), math.log(1.0)))
        typical = random.lognormvariate(-0.38, 2.0)  # with the spread within a function: σ = 2.36 over all
        name = f"f{number}"
        for at in _times(random, lambda _, rate=rate: rate, rate, 1800.0):  # type: ignore[misc]
            arrivals.append(Arrival(at, (min(LONGEST_INPUT_SECONDS, typical * random.lognormvariate(0, 1.25)),), name))
    return arrivals


def _diurnal(now: float) -> float:
    return 4.1 - 3.9 * math.cos(now * math.tau / 300.0)


def _on_off(now: float) -> float:
    return 10.0 if now % 80.0 < 20.0 else 0.0


WORKLOADS = [
    Workload("steady", poisson(lambda _: 5.0, 5.0, 300.0, around(0.4))),
    Workload("step", poisson(lambda now: 20.0 if 120 <= now < 180 else 1.0, 20.0, 300.0, around(0.4))),
    Workload("ramp", poisson(lambda now: 15.0 * now / 200, 15.0, 200.0, around(0.4))),
    Workload("spikes", _spikes),
    Workload("diurnal", poisson(_diurnal, 8.0, 600.0, around(0.4))),
    Workload("on and off", poisson(_on_off, 10.0, 400.0, around(0.4))),
    Workload("rare", _rare),
    Workload("timer", _timer),
    Workload("map of 2,000 × 50 ms", maps(2000, constant(0.05))),
    Workload("map of 2,000 × 2 s", maps(2000, around(2.0, 0.2), (0.0,))),
    Workload("map of 200 × 60 s", maps(200, around(60.0, 0.2), (0.0,))),
    Workload(
        "heavy tail", poisson(lambda _: 2.0, 2.0, 300.0, lambda random: min(300.0, random.lognormvariate(-1.6, 2.0)))
    ),
    Workload(
        "a model, 15 s to start", poisson(lambda now: 6.0 if 300 <= now < 450 else 2.0, 6.0, 600.0, around(0.8)), MODEL
    ),
    Workload(
        "forks, bursts of 30 ms", poisson(lambda now: 60.0 if now % 10 < 2 else 1.0, 60.0, 100.0, around(0.03)), FORK
    ),
    Workload(
        "input and output, 10 of 12",
        poisson(lambda _: 30.0, 30.0, 60.0, around(0.5)),
        IMPORTS,
        Concurrency(max_inputs=12, target_inputs=10),
    ),
    Workload("forks, maps of 100 × 1 s", maps(100, constant(1.0), tuple(20.0 * n for n in range(6))), FORK),
    Workload(
        "computing, 400 × 1 s",
        maps(400, constant(1.0), (0.0,)),
        Behaviour(start_seconds=0.003, start_compute=0.002, compute=1.0),
    ),
    Workload("many functions, as on Azure", _azure),
    Workload("maps of any size", _random_maps, held_out=True),
    Workload(
        "flash crowd on a slow start",
        poisson(lambda now: 40.0 if 60 <= now < 75 else 0.5, 40.0, 200.0, around(0.3)),
        Behaviour(start_seconds=4.0, start_compute=0.5),
        held_out=True,
    ),
    Workload("forks, steady 5 ms", poisson(lambda _: 40.0, 40.0, 60.0, around(0.005, 1.0)), FORK, held_out=True),
]
