"""What goes wrong with containers and inputs, by seed: they crash, hang, raise, run out of memory, or are slow.

An input may also nest, which is no fault but as hard to get right.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from ..core import events as e

if TYPE_CHECKING:
    from .process import Process, Work
    from .world import World

FAULTY_SECONDS = 20.0  # faults end here, so that what follows must settle


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances of what may go wrong; without arguments nothing does."""

    calm: bool = True
    spools: bool = False  # some spawns are accepted before the plane hears of them, which is no fault
    ends_apart: bool = False  # clients say how many inputs there are after the last one
    crash_starting: float = 0.0
    crash_ready: float = 0.0  # a container dies some time after it became ready, whatever it does then
    crash_running: float = 0.0  # an input ends its container
    out_of_memory: float = 0.0
    raises: float = 0.0
    hangs: float = 0.0  # an input never returns; half of those keep their container from noticing
    nests: float = 0.0
    slow: float = 0.0

    def delay(self, random: Random) -> float:
        """How late a client says something."""
        return random.expovariate(10.0)

    def container_starts(self, world: World, process: Process) -> None:
        """Decide over a container's start and life."""
        random = world.random
        if self.calm or world.now > FAULTY_SECONDS:
            return
        if random.random() < self.slow:
            process.slowness = random.choice((2.0, 10.0, 100.0))
        if random.random() < self.crash_starting:
            after = random.random() * process.behaviour.start_seconds
            if random.random() < 0.5:
                world.after(after, process, lambda: world.exit(process, "exited with status 1"))
            else:
                world.after(after, process, lambda: _fails_to_load(world, process))
        elif random.random() < self.crash_ready:
            after = random.expovariate(1.0)
            world.after(after, process, lambda: world.exit(process, "killed by signal 11 (SIGSEGV)"))

    def input_begins(self, world: World, process: Process, work: Work, seconds: float) -> None:
        """Decide how an attempt at an input goes."""
        if self.calm or world.now > FAULTY_SECONDS:
            process.run(work, seconds)
            return
        position, draw = work.position, world.random.random
        if draw() < self.crash_running:
            world.after(seconds, process, lambda: world.exit(process, "killed by signal 11 (SIGSEGV)"))
        elif draw() < self.out_of_memory:
            if draw() < 0.5:
                world.after(seconds, process, lambda: world.exit(process, "out of memory", out_of_memory=True))
            else:
                process.interrupt(work, "memory", seconds)
        elif draw() < self.raises:
            world.after(seconds, process, lambda: _raises(process, work, position))
        elif draw() < self.hangs:
            if draw() < 0.5:
                process.interrupt(work, "timeout", process.spec.timeout)
        elif draw() < self.nests:
            world.after(seconds / 2, process, lambda: _nests(world, process, work, position))
        else:
            process.run(work, seconds)


NO_FAULTS = Faults()


def _fails_to_load(world: World, process: Process) -> None:
    if not process.serves:
        world.tell(process, e.StartFailed(process.id, "ImportError: there is no module 'absent'"))
        world.exit(process, "exited with status 1")


def _raises(process: Process, work: Work, position: int) -> None:
    if not work.ended and work.position == position:
        process.fail(work, "user", False)


def _nests(world: World, process: Process, work: Work, position: int) -> None:
    if not work.ended and not work.interrupted and work.position == position:
        process.suspend(work, world.random.expovariate(2.0))
