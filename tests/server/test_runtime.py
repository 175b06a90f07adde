"""Time in the server, moved by hand: what is to happen later happens then, and not before."""

from collections.abc import Callable
from typing import Any

from upswell.clock import ManualAlarm, ManualClock
from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.watch import TIMEOUT_GRACE_SECONDS
from upswell.server.runtime import Runtime
from upswell.spec import (
    DEFAULT_SCALEDOWN_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    AutoscalerSettings,
    FunctionSpec,
    Limits,
    Retries,
)
from upswell.wire import messages as m

from .stage import PlayedEngine, Stage, record, stage

ERROR = m.ErrorRecord("user", "builtins.ValueError", "no", "")


async def opened(here: Stage, **options: Retries | AutoscalerSettings) -> None:
    await here.client.send(m.OpenApp("ap-1", "app", [record("f", **options)]))  # type: ignore[arg-type]
    await here.has_taken_all()


async def test_an_idle_container_is_drained_after_the_window() -> None:
    async with stage() as here:
        await opened(here)
        await here.client.send(m.Submit("fc-1", "ap-1/f", "remote", 0, 1, True))
        container = await here.container(await here.started("ap-1/f"))
        assign, _ = await container.expect(m.Assign)
        await container.send(m.Results(assign.range, 0, 1, 0.001, 0.001))
        await here.client.expect(m.Outputs)
        here.clock.advance(DEFAULT_SCALEDOWN_SECONDS - 1)
        await here.has_taken_all()
        assert not container.is_dismissed() and not here.engine.killed
        here.clock.advance(1.5)
        drain, _ = await container.expect(m.Drain)
        assert "idle for 60 s" in drain.reason


async def test_a_silent_container_is_killed() -> None:
    async with stage() as here:
        await opened(here)
        await here.client.send(m.Submit("fc-1", "ap-1/f", "remote", 0, 1, True))
        name = await here.started("ap-1/f")
        container = await here.container(name)
        await container.expect(m.Assign)
        here.clock.advance(DEFAULT_TIMEOUT_SECONDS + TIMEOUT_GRACE_SECONDS - 1)
        assert not here.engine.killed
        here.clock.advance(2)
        assert here.engine.killed == [name]
        container.close()
        failed, _ = await here.client.expect(m.Failed)
        assert failed.error.kind == "timeout"


async def test_retries_without_end() -> None:
    async with stage() as here:
        await opened(here, retries=Retries(max_retries=500, backoff_coefficient=10.0, initial_delay=0.0))
        await here.client.send(m.Submit("fc-1", "ap-1/f", "remote", 0, 1, True))
        container = await here.container(await here.started("ap-1/f"))
        for _ in range(500):
            assign, _ = await container.expect(m.Assign)
            await container.send(m.Failure(assign.range, 0, 0.001, 0.001, ERROR))
            await here.has_taken_all()
            here.clock.advance(0.001)
        assign, _ = await container.expect(m.Assign)
        await container.send(m.Failure(assign.range, 0, 0.001, 0.001, ERROR))
        failed, _ = await here.client.expect(m.Failed)
        assert failed.error.attempts == 501


async def test_what_is_due_at_once_does_not_wait_for_a_timer_of_the_same_moment() -> None:
    async with stage() as here:
        await here.client.send(m.OpenApp("ap-1", "app", [record("f"), record("g")]))
        await here.client.send(m.Submit("fc-1", "ap-1/f", "remote", 0, 1, True))
        container = await here.container(await here.started("ap-1/f"))
        await container.expect(m.Assign)
        await here.has_taken_all()
        moment = here.server._runtime._wakes_at
        here.clock.advance(moment - here.clock.time())
        assert here.clock.time() == moment
        await here.client.send(m.Submit("fc-2", "ap-1/g", "remote", 0, 1, True))
        await here.started("ap-1/g")


class RoundingClock(ManualClock):
    """Counts in milliseconds, and rings at the nearest one, as uvloop does."""

    def __init__(self) -> None:
        super().__init__()
        self.alarms = 0

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> ManualAlarm:
        self.alarms += 1
        assert self.alarms < 10, "it is asked for the same moment again and again"
        return super().call_at(round(when, 3), callback, *args)


def test_a_clock_that_rounds_is_not_asked_again_until_it_is_time() -> None:
    clock, turns, commands = RoundingClock(), list[Callable[[], None]](), list[c.Command]()
    runtime = Runtime(PlayedEngine(), Limits(), clock, turns.append)
    runtime.begin(commands.append)
    spec = FunctionSpec(retries=Retries(max_retries=1, initial_delay=0.0014))
    runtime.happened(e.FunctionDeclared("f", spec))
    runtime.happened(e.InputsSubmitted("fc-1", "f", "remote", 0, 1, True))
    turns.pop()()
    runtime.happened(e.ContainerReady("co-1"))
    granted = [one for one in commands if isinstance(one, c.Grant)]
    runtime.happened(e.FailureReceived("co-1", granted[0].range, 0, 0.001, 0.0, "user"))
    turns.pop()()
    clock.advance(0.003)
    assert len([one for one in commands if isinstance(one, c.Grant)]) == 2


def test_the_manual_clock() -> None:
    clock = ManualClock(10.0)
    seen: list[tuple[str, float]] = []

    def ring(name: str) -> None:
        seen.append((name, clock.time()))

    clock.call_at(12.0, ring, "second")
    clock.call_later(1.0, ring, "first")
    clock.call_later(1.5, ring, "never").cancel()
    clock.call_later(1.0, lambda: clock.call_later(0.5, ring, "made on the way"))
    clock.call_later(9.0, ring, "later")
    clock.advance(5.0)
    assert seen == [("first", 11.0), ("made on the way", 11.5), ("second", 12.0)]
    assert clock.time() == 15.0
    clock.call_at(3.0, ring, "late")
    clock.advance(0.0)
    assert seen[-1] == ("late", 15.0)
