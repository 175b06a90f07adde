"""Decisions alone, at the size of a large cluster: 0 to 10,000 containers on 1,000 nodes, by the real core and leases.

`python -m benchmarks.thousand_nodes`. Nothing is started: time is simulated, and what is measured is the processor
time of whoever decides, on how many events, and the memory that it takes.
"""

import heapq
import itertools
import time

import psutil

from upswell.capacity import MIB
from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.engines.ray.link import Link
from upswell.engines.ray.messages import Node
from upswell.engines.ray.sizing import Shape
from upswell.engines.ray.stock import Lease, Stock, Wanted, free_of
from upswell.spec import Concurrency, Environment, FunctionRecord, FunctionSpec, Limits, Resources

NODES, CPUS_EACH, CONTAINERS = 1_000, 16, 10_000
INPUTS, INPUT_SECONDS, SEGMENT = 40_000, 30.0, 1_000
LEASE_SECONDS, START_SECONDS = 2.0, 0.02
ENVIRONMENT = Environment(kind="script", origin="", module="m", main=False, sys_path=(), directory="/")
SPEC = FunctionSpec(resources=Resources(cpu=1.0), concurrency=Concurrency())


class Play:
    """A cluster that does at once, in simulated time, what it is asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spent = 0.0  # seconds of processor time in decisions
        self.events = 0
        self.ready = 0
        self._agenda: list[tuple[float, int, object]] = []
        self._numbers = itertools.count()
        self.plane = Plane(
            Limits(pending=10**6, total=10**6), cores=float(NODES * CPUS_EACH), memory_available=NODES << 36
        )
        self.stock = Stock(Shape.of(SPEC.resources))
        self.free = {f"{number}": float(CPUS_EACH) for number in range(NODES)}
        self.record = FunctionRecord(id="ap-1/f", app_name="", name="f", spec=SPEC, environment=ENVIRONMENT)

    def later(self, seconds: float, event: object) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._numbers), event))

    def happen(self, event: e.Event) -> None:
        began = time.process_time()
        commands = self.plane.handle(event, self.now)
        self.spent += time.process_time() - began
        self.events += 1
        self.perform(commands)

    def perform(self, commands: list[c.Command]) -> None:
        for command in commands:
            match command:
                case c.Start(container=container):
                    self.stock.waiting[container] = Wanted(container, "", self.record, self.now)
                case c.Grant(container=container, range=number, start=start, stop=stop):
                    seconds = INPUT_SECONDS * (stop - start)
                    result = e.ResultsReceived(container, number, start, stop - start, seconds, seconds)
                    self.later(seconds, result)
                case c.TakeBack(container=container, range=number):
                    pass  # ranges are of one input here
                case c.Sample(function=function, containers=containers):
                    usage = tuple((name, self.now) for name in containers)
                    self.later(0.0, e.UsageSampled(function, usage, 64 << 20, NODES * CPUS_EACH, NODES << 36))

    def settle(self) -> None:
        """As the engine does it after each turn."""
        began = time.process_time()
        assigned = self.stock.assign(self.now)
        nodes = [Node(name, "", CPUS_EACH, 1 << 36, free, 1 << 36) for name, free in self.free.items()]
        wishes = []
        if self.stock.waiting:
            wishes = self.stock.wishes(free_of(nodes, list(self.stock.leases.values()), self.now), self.now)
        self.spent += time.process_time() - began
        for _, wanted in assigned:
            self.later(START_SECONDS, e.ContainerReady(wanted.container, START_SECONDS))
        for node, slots in wishes:
            lease = Lease(f"{next(self._numbers)}", "", self.stock.shape, slots, self.now, node)
            self.stock.leases[lease.name] = lease
            if node:
                self.later(LEASE_SECONDS, lease)

    def run(self) -> None:
        self.happen(e.FunctionDeclared("ap-1/f", SPEC))
        for first in range(0, INPUTS, SEGMENT):
            last = first + SEGMENT == INPUTS
            self.happen(e.InputsSubmitted("fc-1", "ap-1/f", "map", first, SEGMENT, last, "cx-1"))
        self.settle()
        while self.ready < CONTAINERS:
            deadline = self.plane.deadline()
            if deadline is not None and (not self._agenda or deadline <= self._agenda[0][0]):
                self.now = max(self.now, deadline)
                began = time.process_time()
                commands = self.plane.wake(self.now)
                self.spent += time.process_time() - began
                self.events += 1
                self.perform(commands)
            else:
                self.now, _, event = heapq.heappop(self._agenda)
                if isinstance(event, Lease):
                    event.link, event.heard_at = Link.__new__(Link), self.now
                    self.free[event.likely] -= event.slots
                else:
                    self.ready += isinstance(event, e.ContainerReady)
                    self.happen(event)  # type: ignore[arg-type]
            if not self._agenda or self._agenda[0][0] > self.now:
                self.settle()


def main() -> None:
    before = psutil.Process().memory_info().rss
    play = Play()
    play.run()
    grown = psutil.Process().memory_info().rss - before
    leases = sum(lease.is_there for lease in play.stock.leases.values())
    print(f"{play.ready:,} containers on {NODES:,} nodes after {play.now:.1f} simulated seconds, in {leases:,} leases")
    print(f"{play.spent:.2f} s of processor time, {play.events:,} events, {play.events / play.spent:,.0f} a second")
    print(f"{grown / MIB:.0f} MiB, of which a part is the play's own")


if __name__ == "__main__":
    main()
