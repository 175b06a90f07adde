"""A load on one function, played to its end on a small machine whose containers are forked."""

from random import Random

from upswell.core.plane import Plane
from upswell.sim.faults import NO_FAULTS, Faults
from upswell.sim.process import Behaviour
from upswell.sim.world import Caller, Machine, World
from upswell.spec import AutoscalerSettings, Concurrency, FunctionSpec, Limits

FORKED = Behaviour(start_seconds=0.001, start_compute=0.002, memory_bytes=6 << 20)
TWO_CORES = Machine(cores=2.0, memory_bytes=16 << 30)
REST_SECONDS = 5000.0


def made(at: float, *services: float, call: str = "") -> Caller:
    """Return a call at a moment, with these seconds for its inputs."""
    kind = "remote" if len(services) == 1 else "map"
    return Caller(call or f"fc-{at}", "f", kind, services, at)  # type: ignore[arg-type]


def play(
    *calls: Caller,
    behaviour: Behaviour = FORKED,
    machine: Machine = TWO_CORES,
    settings: AutoscalerSettings = AutoscalerSettings(),  # noqa: B008 - frozen
    concurrency: Concurrency = Concurrency(),  # noqa: B008 - frozen
    faults: Faults = NO_FAULTS,
    until: float = REST_SECONDS,
) -> World:
    """Let the calls happen, and what follows from them until the pool rests or `until` comes."""
    plane = Plane(Limits(), cores=machine.cores, memory_available=machine.memory_bytes)
    world = World(plane, machine, Random(1), faults=faults)
    world.declare("f", FunctionSpec(settings=settings, concurrency=concurrency), behaviour)
    for call in calls:
        world.at(call.made_at, lambda call=call: world.call(call))  # type: ignore[misc]
    world.run(until)
    if until == REST_SECONDS:
        world.watch.at_rest(plane.deadline())
    return world


def waits(*calls: Caller) -> list[float]:
    """Return what the inputs waited, in order of length."""
    return sorted(wait for call in calls for wait in call.waits)
