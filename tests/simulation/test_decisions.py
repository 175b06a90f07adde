"""The policy as a table: what a pool holds and has learned, and how many containers it should have, by which rule."""

import pytest
from msgspec.structs import replace

from upswell.core.autoscaler import (
    MEMORY_GUESS_BYTES,
    RULES,
    Decision,
    Estimates,
    Load,
    Policy,
    backoff_seconds,
    decide,
    patience_seconds,
)
from upswell.spec import AutoscalerSettings

NO_LOAD = Load(
    waiting=0,
    running=0,
    ready=0,
    starting=0,
    running_seconds=0.0,
    starting_seconds=0.0,
    calls_per_second=0.0,
    target_inputs=1,
    cores=2.0,
    memory_available=1 << 40,
    node_room=None,
)
DEFAULT = AutoscalerSettings()


def known(service: float, startup: float = 0.003, cpu_share: float = 0.0) -> Estimates:
    return Estimates(service_seconds=service, startup_seconds=startup, cpu_share=cpu_share, finished=10, started=3)


def number_and_rule(decision: Decision) -> tuple[int, str]:
    return decision.containers, decision.rule


@pytest.mark.parametrize(
    ("load", "estimates", "expected"),
    [
        # Nothing is known: as many as cores find out, and what has run for a while will run for longer.
        (replace(NO_LOAD, waiting=100), Estimates(), (2, "probe")),
        (replace(NO_LOAD, waiting=1), Estimates(), (1, "probe")),
        (replace(NO_LOAD, waiting=98, running=2, ready=2, running_seconds=0.02), Estimates(), (2, "probe")),
        (
            replace(NO_LOAD, waiting=98, running=2, ready=2, running_seconds=0.1),
            Estimates(cpu_share=0.0),
            (100, "long inputs"),
        ),
        (
            replace(NO_LOAD, waiting=98, running=2, ready=2, running_seconds=0.1),
            Estimates(cpu_share=1.0),
            (2, "processors"),
        ),
        # Inputs longer than a start deserve a place each, short ones what clears them soon.
        (replace(NO_LOAD, waiting=100), known(1.0), (100, "long inputs")),
        (replace(NO_LOAD, waiting=2000), known(0.05), (317, "backlog")),
        (replace(NO_LOAD, waiting=1000), known(0.0001), (10, "backlog")),
        (replace(NO_LOAD, running=7, ready=9), known(1.0), (7, "running")),
        # What is there or starting already, and will have served the queue before another start is over, suffices.
        (replace(NO_LOAD, waiting=2, running=3, ready=3), known(0.5, startup=15.0), (3, "look-ahead")),
        (replace(NO_LOAD, waiting=2, running=3, ready=3, starting=2), known(60.0, startup=1.0), (5, "look-ahead")),
        (replace(NO_LOAD, waiting=20, running=3, ready=3), known(60.0, startup=1.0), (23, "long inputs")),
        # Calls that will have come by then count too.
        (
            replace(NO_LOAD, waiting=2, running=3, ready=3, calls_per_second=20.0),
            known(0.5, startup=15.0),
            (16, "headroom"),
        ),
        # Where starts are slow, random crowds must find their containers; where they are quick, they need not.
        (replace(NO_LOAD, running=2, ready=9, calls_per_second=4.0), known(1.0, startup=15.0), (8, "headroom")),
        (replace(NO_LOAD, running=4, ready=9, calls_per_second=4.0), known(1.0), (4, "running")),
        # ... and a rate seen for a moment says little about inputs that run for minutes.
        (replace(NO_LOAD, running=90, ready=99, calls_per_second=1.0), known(150.0, startup=0.5), (90, "running")),
        # Processors, memory, room.
        (replace(NO_LOAD, waiting=1000), known(1.0, cpu_share=1.0), (2, "processors")),
        (replace(NO_LOAD, waiting=1000), known(1.0, cpu_share=0.25), (8, "processors")),
        (replace(NO_LOAD, waiting=100, memory_available=5 * MEMORY_GUESS_BYTES), known(1.0), (5, "memory")),
        (replace(NO_LOAD, waiting=100, node_room=4), known(1.0), (4, "resources")),
        # Several inputs at once.
        (replace(NO_LOAD, waiting=95, target_inputs=10), known(1.0), (10, "long inputs")),
        (NO_LOAD, known(1.0), (0, "idle")),
    ],
)
def test_decisions(load: Load, estimates: Estimates, expected: tuple[int, str]) -> None:
    assert number_and_rule(decide(load, estimates, DEFAULT)) == expected


@pytest.mark.parametrize(
    ("settings", "load", "expected"),
    [
        (AutoscalerSettings(min_containers=3), NO_LOAD, (3, "idle")),
        (AutoscalerSettings(min_containers=3), replace(NO_LOAD, waiting=1), (3, "min_containers")),
        (AutoscalerSettings(max_containers=7), replace(NO_LOAD, waiting=100), (7, "max_containers")),
        (AutoscalerSettings(buffer_containers=2), replace(NO_LOAD, waiting=5), (7, "long inputs")),
        (AutoscalerSettings(buffer_containers=2), NO_LOAD, (0, "idle")),
    ],
)
def test_settings(settings: AutoscalerSettings, load: Load, expected: tuple[int, str]) -> None:
    assert number_and_rule(decide(load, known(1.0), settings)) == expected


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "patience"])
def test_each_rule_can_be_left_out_and_matters(rule: str) -> None:
    """The simulator asks what a rule is worth; leaving it out changes some decision."""
    loads = [
        (replace(NO_LOAD, waiting=2000), known(0.05)),
        (replace(NO_LOAD, waiting=100), Estimates()),
        (replace(NO_LOAD, waiting=2, running=3, ready=3), known(0.5, startup=15.0)),
        (replace(NO_LOAD, running=2, ready=9, calls_per_second=4.0), known(1.0, startup=15.0)),
        (replace(NO_LOAD, waiting=1000), known(1.0, cpu_share=1.0)),
        (replace(NO_LOAD, waiting=100, memory_available=5 * MEMORY_GUESS_BYTES), known(1.0)),
    ]
    without = Policy(without=frozenset({rule}))
    assert any(decide(*pair, DEFAULT) != decide(*pair, DEFAULT, without) for pair in loads)


def test_patience_follows_what_a_start_costs() -> None:
    fork, model = known(1.0, startup=0.003), known(1.0, startup=15.0)
    assert patience_seconds(fork, DEFAULT, last=False) < 1.0
    assert patience_seconds(model, DEFAULT, last=False) == 60.0
    assert patience_seconds(fork, DEFAULT, last=True) == 60.0
    assert patience_seconds(model, AutoscalerSettings(scaledown_window=5), last=False) == 5.0
    assert patience_seconds(fork, DEFAULT, last=False, policy=Policy(without=frozenset({"patience"}))) == 60.0


def test_backoff_doubles_up_to_a_minute() -> None:
    assert [backoff_seconds(failures) for failures in (1, 2, 3, 4, 20)] == [1.0, 2.0, 4.0, 8.0, 60.0]


def test_the_rate_of_calls_fades() -> None:
    estimates = Estimates()
    for tenth in range(600):
        estimates.learn_call(tenth / 10)
    assert estimates.calls_per_second(60.0) == pytest.approx(10.0, rel=0.1)
    assert estimates.calls_per_second(160.0) < 0.01


def test_starts_in_parallel_do_not_hide_what_one_takes() -> None:
    estimates = Estimates()
    estimates.learn_startup(0.1, 0)
    for _ in range(100):
        estimates.learn_startup(0.1 + 100 * 0.02, 100)
    assert estimates.startup_seconds == pytest.approx(0.1, rel=0.5)
    assert estimates.start_cost_seconds == pytest.approx(0.02, rel=0.2)
