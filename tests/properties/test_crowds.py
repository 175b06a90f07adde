"""The same laws where batches and generators meet in few containers that are up already, which histories of everything
reach too rarely: ranges of several calls in one batch, what dies or breaks while it runs, and what has yielded.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from upswell.core import events as e
from upswell.spec import AutoscalerSettings, Concurrency, FunctionSpec, Retries

from .test_laws import EXAMPLES, NAMES, OWNERS, PLAYED, History, one_of


@st.composite
def crowded(draw: st.DrawFn, batch: int) -> FunctionSpec:
    most = draw(st.sampled_from([1, 2, 3]))
    return FunctionSpec(
        settings=AutoscalerSettings(min_containers=1, max_containers=2),
        concurrency=Concurrency(
            max_inputs=most,
            target_inputs=most,
            batch_size=batch,
            batch_wait_ms=batch and draw(st.sampled_from([0, 310])),
        ),
        retries=draw(st.sampled_from([None, Retries(max_retries=2, initial_delay=0.0), Retries(max_retries=2)])),
    )


class Crowd(History):
    """What may happen, and more often the rare."""

    @initialize(pair=crowded(2), four=crowded(4), single=crowded(0))
    def functions_are_declared(self, pair: FunctionSpec, four: FunctionSpec, single: FunctionSpec) -> None:
        for name, spec in zip(NAMES, (pair, four, single), strict=True):
            self.world.tell(e.FunctionDeclared(name, spec))
        self.everybody_gets_on()

    @rule(number=one_of, counts=st.lists(st.integers(1, 3), min_size=1, max_size=5), spawned=st.booleans())
    def many_come_at_once(self, number: int, counts: list[int], spawned: bool) -> None:
        for count in counts:
            self.a_call_is_made(number, "spawn" if spawned else "map", count, True, OWNERS[0])
        self.exchange()

    @rule(number=one_of)
    def one_comes_soon_after_another(self, number: int) -> None:
        """And the first one's wait ends before the other one's does."""
        for seconds in (0.02, 0.3):
            self.a_call_is_made(number, "remote", 1, True, OWNERS[0])
            self.world.pass_time(self.world.now + seconds)

    @precondition(lambda self: self.running())
    @rule(number=one_of)
    def a_container_dies_at_work(self, number: int) -> None:
        self.exchange()
        if found := self.choose(self.running(), number):
            found[0].dead = True
            self.hear(found[0])

    @rule(number=one_of, count=st.integers(1, 5), then=st.sampled_from(["fails", "dies", "is cancelled", "goes on"]))
    def a_generator_yields_and(self, number: int, count: int, then: str) -> None:
        self.a_call_is_made(number, "generator", 1, True, OWNERS[0])
        self.exchange()
        found: Any = self.choose(self.generators(), number)
        if not found:
            return
        process, work = found
        process.give(work, count)
        self.exchange()
        match then:
            case "fails":
                process.fail(work, "user", fatal=False)
            case "dies":
                process.dead = True
            case "is cancelled":
                self.world.tell(e.CallCancelled(work.call))
                process.give(work, count)
        self.exchange()


TestCrowds = Crowd.TestCase
TestCrowds.settings = settings(PLAYED, max_examples=EXAMPLES or 40, stateful_step_count=30)
