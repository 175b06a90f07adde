"""Random histories for the laws of the core: a few functions, calls of every kind, all faults, trouble from outside.

Owners leave, calls and single inputs are cancelled, settings change, functions are removed or deployed anew, and the
server dies.
"""

from __future__ import annotations

from random import Random

from ..core import events as e
from ..core.plane import Plane
from ..spec import AutoscalerSettings, CallKind, Concurrency, FunctionSpec, Limits, Retries, SettingsUpdate
from .faults import FAULTY_SECONDS, Faults
from .lives import follow
from .process import Behaviour
from .world import Caller, Machine, World

TROUBLES = (
    "leaves",
    "cancelled",
    "cancelled",
    "unwanted",
    "unwanted",
    "updated",
    "updated",
    "deployed",
    "deployed",
    "removed",
)
REST_SECONDS = 36_000.0  # by then everything has settled
MOST_DECISIONS = 1_000_000  # a hundred times what a history takes


def play(seed: int) -> World:
    """Run one random history full of faults to its rest; a law that is broken raises `Violation`."""
    random = Random(seed)
    faults = _draw_faults(random, spools=seed % 2 == 1)
    machine = Machine(random.choice((1.0, 2.0, 4.0)), random.choice((1, 64)) << 30, random.choice((1e-5, 1e-3, 0.02)))
    limits = Limits(pending=random.choice((20, 2000)), total=random.choice((50, 25_000)), spawned_pending=500)

    def plane(first_id: int) -> Plane:
        return Plane(limits, cores=machine.cores, memory_available=machine.memory_bytes, first_id=first_id)

    world = World(plane(1), machine, random, faults=faults, successor=plane, most_decisions=MOST_DECISIONS)
    functions = [f"fu-{number}" for number in range(random.choice((1, 1, 2, 3)))]
    for function in functions:
        world.declare(function, _draw_spec(random), _draw_behaviour(random))
    for number in range(random.randrange(1, 12)):
        _plan_call(world, random, f"fc-{number}", random.choice(functions))
    if faults.crash_ready or random.random() < 0.5:
        for _ in range(random.randrange(4)):
            _plan_trouble(world, random, functions)
    for _ in range(random.choice((0, 0, 1, 3))):
        world.at(random.random() * FAULTY_SECONDS, lambda: follow(world))
    world.run(REST_SECONDS)
    world.watch.at_rest(world.plane.deadline())
    return world


def _draw_faults(random: Random, spools: bool) -> Faults:
    def chance(most: float) -> float:
        return random.choice((0.0, 0.0, random.random() * most))

    return Faults(
        calm=random.random() < 0.05,
        spools=spools,
        ends_apart=random.random() < 0.5,
        crash_starting=random.choice((0.0, 0.0, 0.1, 0.9)),
        crash_ready=chance(0.5),
        crash_running=chance(0.2),
        out_of_memory=chance(0.1),
        raises=chance(0.3),
        hangs=chance(0.05),
        nests=chance(0.2),
        slow=chance(0.3),
    )


def _draw_spec(random: Random) -> FunctionSpec:
    most = random.choice((1, 1, 1, 2, 5))
    ceiling = random.choice((None, None, 1, 2, 5))
    floor = random.choice((0, 0, 0, 1, 2))
    return FunctionSpec(
        settings=AutoscalerSettings(
            min_containers=floor if ceiling is None else min(floor, ceiling),
            max_containers=ceiling,
            buffer_containers=random.choice((0, 0, 1, 3)),
            scaledown_window=random.choice((2, 5, 60)),
        ),
        concurrency=Concurrency(max_inputs=most, target_inputs=random.randint(1, most)),
        retries=random.choice((None, Retries(max_retries=random.randrange(4), initial_delay=random.random()))),
        timeout=random.choice((1.0, 300.0)),
        startup_timeout=random.choice((5.0, 300.0)),
        single_use=most == 1 and random.random() < 0.15,
    )


def _draw_behaviour(random: Random) -> Behaviour:
    return Behaviour(
        start_seconds=random.choice((0.001, 0.1, 3.0)),
        start_compute=random.choice((0.001, 0.05)),
        compute=random.choice((0.0, 0.0, 0.5, 1.0)),
        asynchronous=random.random() < 0.5,
    )


def _plan_call(world: World, random: Random, call: str, function: str) -> None:
    kinds: tuple[CallKind, ...] = ("remote", "map", "map", "spawn")
    kind = random.choice(kinds)
    count = 1 if kind == "remote" else int(random.paretovariate(0.8))
    scale = random.choice((1e-5, 1e-3, 0.05, 1.0))
    services = [scale * random.lognormvariate(0.0, 0.7) for _ in range(min(count, 400))]
    moment = random.choice((0.0, random.random() * FAULTY_SECONDS / 2))
    owner = "" if kind == "spawn" else f"owner-{random.randrange(3)}"
    caller = Caller(call, function, kind, services, moment, owner)
    world.at(moment, lambda: world.call(caller))


def _plan_trouble(world: World, random: Random, functions: list[str]) -> None:
    function = random.choice(functions)
    moment = random.random() * FAULTY_SECONDS / 2
    trouble = random.choice(TROUBLES)

    def happen() -> None:
        if trouble == "deployed":
            version, at_once = random.randrange(3), random.random() < 0.3  # perhaps the one that is there
            world.declare(function, _draw_spec(random), _draw_behaviour(random), version=version, at_once=at_once)
        elif trouble == "updated":
            floor = random.randrange(2)
            update = SettingsUpdate(min_containers=floor, max_containers=floor + random.randrange(1, 4))
            world.happened(e.SettingsUpdated(function, update))
        elif trouble == "removed":
            world.happened(e.FunctionRemoved(function))
        elif trouble == "leaves":
            world.happened(e.OwnerLeft(f"owner-{random.randrange(3)}"))
        elif trouble == "unwanted":
            _have_one_unwanted(world, random)
        elif world.callers:
            call = random.choice(list(world.callers))
            world.happened(e.CallCancelled(call, random.random() < 0.6, random.random() < 0.3))

    world.at(moment, happen)


def _have_one_unwanted(world: World, random: Random) -> None:
    """Somebody cancels one input, of those that are not settled."""
    unsettled = {
        call: [at for at, done in enumerate(world.watch.settled_in(call)) if not done] for call in world.callers
    }
    if calls := [call for call, places in unsettled.items() if places]:
        call = random.choice(calls)
        world.happened(e.InputCancelled(call, random.choice(unsettled[call]), random.random() < 0.3))
