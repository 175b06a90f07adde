"""The death of the simulated server, and the one that follows it and is told what was kept.

Some containers re-join it at once, some late, some die. What was on its way to or from a container is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core import events as e
from ..core.snapshot import SavedCall, SavedSegment, unsettled_spans

if TYPE_CHECKING:
    from .process import Process
    from .world import Caller, World


def follow(world: World) -> None:
    """The server dies now, and another takes its place."""
    world.life += 1
    world.plane = world.successor(world.highest_id + 1)
    again = []
    for process in list(world.processes.values()):
        draw = world.random.random()
        if draw < 0.2 or not process.serves or process.drained:
            world.exit(process, "its server died")
        elif draw < 0.8:
            again.append(_rejoined(process))
        else:
            world.after(world.random.expovariate(1.0), process, lambda process=process: _late(world, process))  # type: ignore[misc]
    functions: list[e.FunctionDeclared | e.SettingsUpdated] = []
    for declared in world.declared.values():
        functions.append(declared)
        functions += world.updated.get(declared.function, [])
    calls = [e.CallRestored(saved) for caller in world.callers.values() for saved in _saved(world, caller)]
    world.happened(e.Recovered((*functions, *calls, *again)))
    for caller in world.callers.values():
        world.offer_again(caller)


def _late(world: World, process: Process) -> None:
    if not process.drained and process.connected != world.life:
        world.happened(_rejoined(process))


def _rejoined(process: Process) -> e.ContainerRejoined:
    process.connected = process.world.life
    held = [
        e.HeldRange(work.range, work.caller.call, work.first, work.sent, work.stop, suspended=work.suspended)
        for work in process.held.values()
        if work.sent < work.stop
    ]
    return e.ContainerRejoined(process.id, process.function, process.version, tuple(held), process.spec)


def _saved(world: World, caller: Caller) -> Iterator[SavedCall]:
    """The call, unless it has ended or never began."""
    settled = world.watch.settled_in(caller.call)
    if caller.finished or not settled:
        return
    segments = []
    for first, count in caller.segments:
        done = [(place, 1) for place in range(first, first + count) if settled[place]]
        if spans := unsettled_spans(first, count, done):
            segments.append(SavedSegment(first, count, spans))
    total = caller.submitted if caller.ended else None
    yield SavedCall(
        caller.call,
        caller.function,
        caller.kind,
        caller.submitted,
        total,
        caller.cancelled,
        tuple(segments),
        owner=caller.owner,
        cancelled_inputs=tuple(place for place in caller.unwanted if not settled[place]),
    )
