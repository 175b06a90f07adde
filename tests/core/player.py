"""A stage for the core: events go in as short calls, and what it commands comes out as readable lines.

It does what a world must, and no more: containers get ready when they are told to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, get_args

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.spec import AutoscalerSettings, CallKind, Concurrency, FunctionSpec, Retries

CALL_KINDS = get_args(CallKind)

Kind = TypeVar("Kind")


def of(commands: Iterable[c.Command], kind: type[Kind]) -> list[Kind]:
    """Return the commands of that kind."""
    return [command for command in commands if isinstance(command, kind)]


class Player:
    """One function `f`, its containers in the order they were started, and a clock that is moved by hand."""

    def __init__(
        self,
        concurrency: Concurrency,
        *,
        containers: int = 1,
        retries: Retries | None = None,
        timeout: float = 300,
        single_use: bool = False,
    ) -> None:
        self.now = 0.0
        self.plane = Plane(cores=2.0)
        self.started: list[str] = []
        self.grants: list[c.Grant] = []
        settings = AutoscalerSettings(min_containers=containers, max_containers=containers)
        spec = FunctionSpec(
            settings=settings, concurrency=concurrency, retries=retries, timeout=timeout, single_use=single_use
        )
        self.happens(e.FunctionDeclared("f", spec))
        for container in list(self.started):
            self.happens(e.ContainerReady(container))

    def happens(self, event: e.Event) -> list[str]:
        """The event, now; what is commanded, in words."""
        return list(self._in_words(self.plane.handle(event, self.now)))

    def submit(self, call: str, count: int = 1, kind: str = "map", first: int = 0, last: bool = True) -> list[str]:
        assert kind in CALL_KINDS
        return self.happens(e.InputsSubmitted(call, "f", kind, first, count, last, "owner"))  # type: ignore[arg-type]

    def passes(self, seconds: float) -> list[str]:
        """Let time pass, waking the core whenever it asks for it."""
        end, wakes = self.now + seconds, 0
        lines: list[str] = []
        while (moment := self.plane.deadline()) is not None and moment <= end:
            self.now = max(self.now, moment)
            lines += self._in_words(self.plane.wake(self.now))
            wakes += 1
            assert wakes < 1000, "it wakes without end"
        self.now = end
        return lines

    def finishes(self, grant: c.Grant, start: int | None = None, count: int | None = None) -> list[str]:
        """The outputs of a granted range, or of some of it."""
        start = grant.start if start is None else start
        count = grant.stop - start if count is None else count
        return self.happens(e.ResultsReceived(grant.container, grant.range, start, count, 0.1 * count, 0.0))

    def fails(self, grant: c.Grant, position: int, *, fatal: bool = False) -> list[str]:
        return self.happens(e.FailureReceived(grant.container, grant.range, position, 0.1, 0.0, "user", fatal))

    def dies(self, container: str) -> list[str]:
        return self.happens(e.ContainerExited(container, "killed by signal 9 (SIGKILL)"))

    def _in_words(self, commands: list[c.Command]) -> Iterator[str]:
        for command in commands:
            match command:
                case c.Start(container=container):
                    self.started.append(container)
                case c.Grant(call=call, start=start, stop=stop, batch=batch, left=left):
                    self.grants.append(command)
                    together = f" in a batch, {left} to come" if batch else ""
                    yield f"grant {call} {start}..{stop}{together}"
                case c.Deliver(call=call, start=start, count=count):
                    yield f"deliver {call} {start}..{start + count}"
                case c.Forward(call=call, first=first, count=count):
                    yield f"forward {call} {first}..{first + count}"
                case c.Fail(call=call, start=start, count=count, kind=kind):
                    yield f"fail {call} {start}..{start + count}: {kind}"
                case c.TakeBack() | c.CancelRange() | c.Drain() | c.Kill():
                    yield type(command).__name__.lower()
                case _:
                    pass  # about payloads and measurements
