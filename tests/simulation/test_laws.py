"""Random histories full of faults keep the laws of the core, and the watch that says so can tell when they do not."""

import pytest

from upswell.core import commands as c
from upswell.core import events as e
from upswell.sim import histories
from upswell.sim.histories import play
from upswell.sim.watch import Violation, Watch
from upswell.spec import AutoscalerSettings, Concurrency, FunctionSpec

SEEDS, SEEDS_A_TEST = 150, 30


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_any_history_keeps_the_laws(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            play(seed)
        except Violation as violation:
            pytest.fail(f"python -m upswell.sim --laws 1 --seed {seed}\n{violation}")


def test_the_same_seed_is_the_same_history() -> None:
    once, again = play(11), play(11)
    assert once.watch.last_steps() == again.watch.last_steps()
    assert (once.now, once.starts, once.decisions) == (again.now, again.starts, again.decisions)
    assert once.watch.last_steps() != play(12).watch.last_steps()


def test_a_history_without_an_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MOST_DECISIONS", play(11).decisions)
    play(11)
    monkeypatch.setattr(histories, "MOST_DECISIONS", histories.MOST_DECISIONS - 1)
    with pytest.raises(Violation, match="still no end"):
        play(11)


# -- the watch itself --------------------------------------------------------------------------------------

DECLARED = e.FunctionDeclared("f", FunctionSpec(settings=AutoscalerSettings(max_containers=1)))
SUBMITTED = e.InputsSubmitted("fc", "f", "map", 0, 2, True)
ACCEPT = c.Accept("fc", 0, 2)
START = c.Start("co-1", "f")
READY = e.ContainerReady("co-1")


BACK = e.ContainerRejoined("co-9", "f", 0, (e.HeldRange(1, "fc", 0, 0, 2),), FunctionSpec())


def grant(start: int, stop: int, container: str = "co-1", number: int = 1) -> c.Grant:
    return c.Grant(container, number, "fc", 0, 2, start, stop)


Step = tuple[e.Event | None, list[c.Command]]
BEGUN: list[Step] = [(DECLARED, []), (SUBMITTED, [ACCEPT, START])]
GRANTED: list[Step] = [*BEGUN, (READY, [grant(0, 2)])]


def result(position: int) -> e.ResultsReceived:
    return e.ResultsReceived("co-1", 1, position, 1, 0.1, 0.0)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([*BEGUN, (None, [grant(0, 1)])], "not ready"),
        ([*BEGUN, (None, [c.Start("co-2", "f")])], "max_containers=1"),
        ([*BEGUN, (READY, [])], "2 inputs wait while co-1"),
        ([*BEGUN, (READY, [grant(0, 1), grant(0, 1, number=2)])], "is held"),
        ([*GRANTED, (None, [c.Drain("co-1", "")])], "not idle"),
        ([*BEGUN, (e.InputCancelled("fc", 1), []), (READY, [grant(0, 2)])], "input 1 was cancelled"),
        ([*GRANTED, (result(0), [c.Deliver("fc", 1, 1)])], "does not follow"),
        ([*GRANTED, (result(0), [c.Deliver("fc", 0, 1), c.Deliver("fc", 0, 1)])], "is settled"),
        ([*GRANTED, (None, [c.Fail("fc", 0, 1, "lost", "", 1)])], "is held"),
        ([*GRANTED, (None, [c.Kill("co-1", ""), grant(0, 1)])], "not ready"),
        ([*GRANTED, (None, [c.Retire("co-1", "")])], "not outdated"),
        ([*GRANTED, (BACK, [grant(0, 1, number=2)])], "is held"),
        ([*GRANTED, (e.Recovered((DECLARED,)), [grant(0, 1)])], "no such container"),
        ([*BEGUN, (e.Recovered((DECLARED, BACK)), [grant(0, 1, "co-9", 2)])], "is held"),
    ],
)
def test_the_watch_sees_a_broken_law(steps: list[Step], words: str) -> None:
    watch = Watch()
    with pytest.raises(Violation, match=words):
        for moment, (event, commands) in enumerate(steps):
            watch.saw(event, commands, float(moment))


def test_the_watch_counts_places() -> None:
    watch = Watch()
    spec = FunctionSpec(concurrency=Concurrency(max_inputs=2, target_inputs=1))
    watch.saw(e.FunctionDeclared("f", spec), [], 0.0)
    watch.saw(e.InputsSubmitted("fc", "f", "map", 0, 3, True), [c.Accept("fc", 0, 3), START], 0.0)
    with pytest.raises(Violation, match="max_inputs=2"):
        watch.saw(READY, [c.Grant("co-1", number, "fc", 0, 3, number, number + 1) for number in range(3)], 1.0)


def test_the_watch_knows_rest() -> None:
    watch = Watch()
    for moment, (event, commands) in enumerate(GRANTED):
        watch.saw(event, commands, float(moment))
    with pytest.raises(Violation, match="2 inputs were never settled"):
        watch.at_rest(None)
