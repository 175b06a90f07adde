"""Every rule of the policy: what is known, how many containers that deserves, and the words for it."""

import pytest
from msgspec.structs import replace

from upswell.core.agenda import NEVER
from upswell.core.autoscaler import (
    LIMITS,
    RULES,
    Decision,
    Estimates,
    Load,
    Policy,
    backoff_seconds,
    decide,
    patience_seconds,
    reconsider_seconds,
)
from upswell.spec import GATHER_SECONDS, AutoscalerSettings

NOTHING = Load(
    waiting=0,
    running=0,
    ready=0,
    starting=0,
    running_seconds=0.0,
    starting_seconds=0.0,
    calls_per_second=0.0,
    target_inputs=1,
    cores=4.0,
    memory_available=1 << 40,
    node_room=None,
)


def decision(load: Load, estimates: Estimates | None = None, **settings: int) -> Decision:
    return decide(load, estimates or Estimates(), AutoscalerSettings(**settings))


def known(service_seconds: float, cpu_share: float | None = None, startup_seconds: float = 0.005) -> Estimates:
    return Estimates(service_seconds, startup_seconds, cpu_share=cpu_share, finished=100, started=9)


@pytest.mark.parametrize(
    ("load", "estimates", "settings", "containers", "rule"),
    [
        ({}, Estimates(), {}, 0, "idle"),
        ({}, Estimates(), {"min_containers": 3, "buffer_containers": 2}, 3, "idle"),
        ({}, Estimates(), {"buffer_containers": 2}, 0, "idle"),
        ({"running": 7, "ready": 9}, known(1.0), {}, 7, "running"),
        ({"waiting": 100}, Estimates(), {}, 4, "probe"),  # a container for each core finds out
        ({"waiting": 2}, Estimates(), {}, 2, "probe"),
        ({"waiting": 96, "running": 4, "ready": 4, "running_seconds": 0.02}, Estimates(), {}, 4, "probe"),
        (
            {"waiting": 90, "running": 10, "ready": 10, "running_seconds": 0.1},
            Estimates(cpu_share=0.0),
            {},
            100,
            "long inputs",
        ),
        (
            {"waiting": 90, "running": 10, "ready": 10, "running_seconds": 0.1},
            Estimates(cpu_share=1.0),
            {},
            4,
            "processors",
        ),
        (
            {"waiting": 90, "running": 10, "ready": 10, "running_seconds": 0.1},
            Estimates(cpu_share=0.5),
            {},
            8,
            "processors",
        ),
        ({"waiting": 100}, known(1.0), {}, 100, "long inputs"),  # 100 inputs of a second: at once
        ({"waiting": 100, "target_inputs": 10}, known(1.0), {}, 10, "long inputs"),
        ({"waiting": 2000}, known(0.05), {}, 317, "backlog"),  # sqrt(100 s of work / 1 ms)
        ({"waiting": 2000}, known(0.05, startup_seconds=15.0), {}, 7, "backlog"),  # slow starts are worth less
        ({"waiting": 2000}, known(0.00001), {}, 2, "backlog"),
        ({"waiting": 1}, known(0.00001), {}, 1, "backlog"),
        (
            {"waiting": 50, "running": 1, "ready": 1, "running_seconds": 9.0},
            known(0.001),
            {},
            51,
            "long inputs",
        ),  # age counts
        # What is there or starting already, and will have served the queue before another start is over, suffices.
        ({"waiting": 2, "running": 3, "ready": 3}, known(0.5, startup_seconds=15.0), {}, 3, "look-ahead"),
        (
            {"waiting": 2, "running": 3, "ready": 3, "starting": 2},
            known(60.0, startup_seconds=1.0),
            {},
            5,
            "look-ahead",
        ),
        ({"waiting": 20, "running": 3, "ready": 3}, known(60.0, startup_seconds=1.0), {}, 23, "long inputs"),
        # Calls that will have come by then count too.
        (
            {"waiting": 2, "running": 3, "ready": 3, "calls_per_second": 20.0},
            known(0.5, startup_seconds=15.0),
            {},
            16,
            "headroom",
        ),
        # Where starts are slow, random crowds must find their containers; where they are quick, they need not.
        ({"running": 2, "ready": 9, "calls_per_second": 4.0}, known(1.0, startup_seconds=15.0), {}, 8, "headroom"),
        ({"running": 4, "ready": 9, "calls_per_second": 4.0}, known(1.0), {}, 4, "running"),
        # ... and a rate seen for a moment says little about inputs that run for minutes.
        ({"running": 90, "ready": 99, "calls_per_second": 1.0}, known(150.0, startup_seconds=0.5), {}, 90, "running"),
        ({"waiting": 1000}, known(1.0, cpu_share=1.0), {}, 4, "processors"),
        ({"waiting": 1000}, known(1.0, cpu_share=0.25), {}, 16, "processors"),
        ({"waiting": 100}, known(1.0), {"max_containers": 10}, 10, "max_containers"),
        ({"waiting": 1}, known(1.0), {"min_containers": 5}, 5, "min_containers"),
        ({"waiting": 1}, known(1.0), {"buffer_containers": 2}, 3, "long inputs"),
        ({"waiting": 9}, known(1.0), {"buffer_containers": 2, "max_containers": 10}, 10, "max_containers"),
        ({"waiting": 100, "memory_available": 120 << 20}, known(1.0), {}, 10, "memory"),
        ({"waiting": 100, "memory_available": 0}, known(1.0), {}, 1, "memory"),  # the first one may always come
        ({"waiting": 100, "memory_available": 0, "ready": 7}, known(1.0), {}, 7, "memory"),
        ({"waiting": 100, "node_room": 3}, known(1.0), {}, 3, "resources"),
        ({"waiting": 100, "node_room": 0}, known(1.0), {}, 0, "resources"),
        ({"node_room": 3}, Estimates(), {"min_containers": 9}, 3, "resources"),  # nor does a minimum make room
    ],
)
def test_each_rule(
    load: dict[str, float], estimates: Estimates, settings: dict[str, int], containers: int, rule: str
) -> None:
    decided = decision(replace(NOTHING, **load), estimates, **settings)
    assert (decided.containers, decided.rule) == (containers, rule), decided.words


@pytest.mark.parametrize(
    ("load", "estimates", "settings", "words"),
    [
        ({}, Estimates(), {}, "no input waits or runs; min_containers is 0"),
        ({"waiting": 9}, Estimates(), {}, "9 waiting and 0 running; nothing is known yet, so it begins with 4"),
        ({"waiting": 9}, known(2.0), {}, "9 waiting and 0 running, 2.0 s each; one place for each"),
        ({"waiting": 2000}, known(0.05), {}, "2000 waiting and 0 running, 50 ms each; cleared within 316 ms"),
        (
            {"waiting": 8},
            known(2.0, 1.0),
            {},
            "8 waiting and 0 running, 2.0 s each; one place for each; each uses 100% of a core, so 4 cores keep 4 busy",
        ),
        (
            {"waiting": 8},
            known(2.0),
            {"max_containers": 3},
            "8 waiting and 0 running, 2.0 s each; one place for each; max_containers is 3",
        ),
        (
            {"waiting": 8, "node_room": 2},
            known(2.0),
            {},
            "8 waiting and 0 running, 2.0 s each; one place for each; the machine has room for 2 by what they reserve",
        ),
    ],
)
def test_its_words(load: dict[str, float], estimates: Estimates, settings: dict[str, int], words: str) -> None:
    assert decision(replace(NOTHING, **load), estimates, **settings).words == words


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "patience"])
def test_each_rule_can_be_left_out_and_matters(rule: str) -> None:
    """The simulator asks what a rule is worth; leaving it out changes some decision."""
    loads = [
        (replace(NOTHING, waiting=2000), known(0.05)),
        (replace(NOTHING, waiting=100), Estimates()),
        (replace(NOTHING, waiting=2, running=3, ready=3), known(0.5, startup_seconds=15.0)),
        (replace(NOTHING, running=2, ready=9, calls_per_second=4.0), known(1.0, startup_seconds=15.0)),
        (replace(NOTHING, waiting=1000), known(1.0, cpu_share=1.0)),
        (replace(NOTHING, waiting=100, memory_available=120 << 20), known(1.0)),
    ]
    settings, without = AutoscalerSettings(), Policy(without=frozenset({rule}))
    assert any(decide(*pair, settings) != decide(*pair, settings, without) for pair in loads)


@pytest.mark.parametrize(
    ("startup_seconds", "window", "last", "patience"),
    [
        (0.001, 60, False, 0.5),  # a fork costs nothing, so a surplus container goes soon
        (3.0, 60, False, 21.0),  # a model that loads for long is kept
        (20.0, 60, False, 60.0),  # and nothing beyond the window
        (0.001, 60, True, 60.0),  # which the last one has in full
        (0.001, 2, True, 2.0),
    ],
)
def test_how_long_a_surplus_container_idles(startup_seconds: float, window: int, last: bool, patience: float) -> None:
    settings = AutoscalerSettings(scaledown_window=window)
    estimates = Estimates(startup_seconds=startup_seconds)
    assert patience_seconds(estimates, settings, last) == patience
    assert patience_seconds(estimates, settings, last, Policy(without=frozenset({"patience"}))) == window


BEHIND_OTHERS = replace(NOTHING, waiting=1, running=3, ready=3, running_seconds=0.5)
NONE_MORE = Decision(3, "look-ahead", "3 containers will be faster")


@pytest.mark.parametrize(
    ("load", "decided", "estimates", "seconds"),
    [
        # At the time at which those that run are as old as those that ended: before, nothing can change.
        ({"running_seconds": 0.0}, NONE_MORE, known(2.0), GATHER_SECONDS + 2.0),
        ({"running_seconds": 1.0}, NONE_MORE, known(2.0), GATHER_SECONDS + 1.0),
        # From then on ever more rarely, ...
        ({}, NONE_MORE, known(0.0001), 0.505 / 4),
        ({"running_seconds": 0.9}, NONE_MORE, known(0.0001), 0.905 / 4),
        ({}, NONE_MORE, known(0.0001, startup_seconds=15.0), 15.5 / 4),
        # ... until age says no more.
        ({"running_seconds": 1.0}, NONE_MORE, known(0.0001), 1.005 / 4),
        ({"running_seconds": 1.1}, NONE_MORE, known(0.0001), NEVER),
        ({"running_seconds": 1.1}, NONE_MORE, known(0.1), 1.105 / 4),
        # Nobody waits, nobody runs, or nobody knows yet: then samples say more.
        ({"waiting": 0}, NONE_MORE, known(0.0001), NEVER),
        ({"running": 0, "running_seconds": 0.0}, NONE_MORE, known(0.0001), NEVER),
        ({}, NONE_MORE, Estimates(cpu_share=0.0), NEVER),
        # Who waits will have a place, in a container that starts or beside others; one that is only to replace is none.
        ({}, Decision(4, "long inputs", ""), known(0.0001), NEVER),
        ({"target_inputs": 2}, NONE_MORE, known(0.0001), NEVER),
        ({}, Decision(4, "roll-out", "", spare=1), known(0.0001), 0.505 / 4),
    ],
)
def test_when_to_decide_anew_as_what_runs_grows_older(
    load: dict[str, float], decided: Decision, estimates: Estimates, seconds: float
) -> None:
    assert reconsider_seconds(replace(BEHIND_OTHERS, **load), decided, estimates) == pytest.approx(seconds)


@pytest.mark.parametrize("rule", sorted(LIMITS))
def test_no_age_lifts_a_limit(rule: str) -> None:
    assert reconsider_seconds(BEHIND_OTHERS, Decision(3, rule, ""), known(0.0001)) == NEVER


@pytest.mark.parametrize("startup_seconds", [0.005, 0.2, 15.0])
@pytest.mark.parametrize("service_seconds", [0.00001, 0.05, 3.0])
@pytest.mark.parametrize("running", [1, 5, 40])
def test_a_decision_made_anew_is_late_by_a_quarter_at_most(
    service_seconds: float, startup_seconds: float, running: int
) -> None:
    """As often as asked for, and beside it every millisecond: one more is started about as early, after a few looks."""
    estimates = known(service_seconds, startup_seconds=startup_seconds)
    settings, load = AutoscalerSettings(), replace(BEHIND_OTHERS, running=running, ready=running)

    def starts_more(age: float) -> bool:
        return decide(replace(load, running_seconds=age), estimates, settings).containers > running

    age, looks = 0.0, 0
    while age < NEVER and not starts_more(age):
        at = replace(load, running_seconds=age)
        age += reconsider_seconds(at, decide(at, estimates, settings), estimates)
        looks += 1
        assert looks < 20
    last = 10 * service_seconds + 2
    earliest = next((moment / 1000 for moment in range(int(last * 1000)) if starts_more(moment / 1000)), NEVER)
    assert age == earliest == NEVER or age + startup_seconds <= 1.25 * (earliest + startup_seconds)


def test_back_off() -> None:
    assert [backoff_seconds(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_estimates_follow_a_change() -> None:
    estimates = Estimates()
    estimates.learn_service(1000, 1.0)
    assert estimates.service_seconds == pytest.approx(0.001)
    for _ in range(30):
        estimates.learn_service(1, 1.0)
    assert estimates.service_seconds is not None and estimates.service_seconds > 0.1
    estimates.learn_cpu(1.0, running=1, cores=2.0)
    estimates.learn_cpu(
        0.25, running=8, cores=2.0
    )  # the processors are full, so this says nothing of what it would use
    assert estimates.cpu_share == 1.0


def test_an_input_of_a_moment_says_little_of_what_others_use() -> None:
    """Eight that wait for long leave the processors free, though one of a millisecond did nothing but compute."""
    estimates = Estimates(service_seconds=0.001, finished=9)
    estimates.learn_cpu(0.0, running=8, cores=2.0)
    estimates.learn_cpu(1.0, running=8, cores=2.0, seconds=0.0011)
    load = replace(NOTHING, waiting=1, running=8, ready=8, running_seconds=1.0, cores=2.0)
    assert decision(load, estimates).containers == 9
    estimates.learn_cpu(1.0, running=8, cores=2.0, seconds=0.1)
    assert decision(load, estimates).rule == "processors"


def test_the_rate_of_calls_fades() -> None:
    estimates = Estimates()
    for tenth in range(600):
        estimates.learn_call(tenth / 10)
    assert estimates.calls_per_second(60.0) == pytest.approx(10.0, rel=0.1)
    assert estimates.calls_per_second(160.0) < 0.01


def test_what_the_first_start_waited_for_is_not_expected_of_later_ones() -> None:
    estimates = Estimates()
    estimates.learn_startup(0.3, 0)  # with the imports of its environment
    estimates.learn_startup(0.005, 0)
    assert estimates.startup_seconds == pytest.approx(0.005)
    estimates.learn_startup(0.003, 0)
    assert 0.004 < estimates.startup_seconds < 0.005, "what comes after these two is no more than a hint"


def test_starts_in_parallel_do_not_hide_what_one_takes() -> None:
    estimates = Estimates()
    estimates.learn_startup(0.1, 0)
    for _ in range(100):
        estimates.learn_startup(0.1 + 100 * 0.02, 100)
    assert estimates.startup_seconds == pytest.approx(0.1, rel=0.5)
    assert estimates.start_cost_seconds == pytest.approx(0.02, rel=0.2)
