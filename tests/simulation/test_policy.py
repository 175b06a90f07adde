"""What the policy promises, played in simulated time on a machine with two cores."""

from upswell.sim.process import Behaviour
from upswell.sim.world import Machine
from upswell.spec import AutoscalerSettings, Concurrency

from .scenes import FORKED, made, play, waits


def test_a_hundred_waiting_inputs_run_on_a_hundred_containers_at_once() -> None:
    call = made(0.0, *[1.0] * 100)
    world = play(call)
    assert world.starts == world.peak == 100
    assert max(call.waits) < 0.3


def test_a_thousand_waiting_inputs_run_on_a_thousand_containers() -> None:
    call = made(0.0, *[1.0] * 1000)
    world = play(call)
    assert world.peak > 900
    assert max(call.waits) < 2.0  # the starts alone take a second of two cores


def test_inputs_that_compute_stay_near_the_number_of_cores() -> None:
    computing = Behaviour(start_seconds=0.001, start_compute=0.002, compute=1.0)
    call = made(0.0, *[1.0] * 1000)
    world = play(call, behaviour=computing, until=495.0)
    assert world.peak <= 4
    assert len(call.waits) > 950  # two cores lose next to nothing


def test_short_inputs_deserve_few_containers() -> None:
    first, second = (made(at, *[0.05] * 2000) for at in (0.0, 30.0))
    world = play(first, second)
    assert world.peak < 600  # what is best for 100 s of work, if another start costs 1 ms, is sqrt(100 / 0.001) = 316
    assert max(second.waits) < 1.5


def test_an_idle_pool_falls_to_its_floor_and_keeps_the_last_container_for_the_window() -> None:
    settings = AutoscalerSettings(scaledown_window=20)
    world = play(made(0.0, *[0.5] * 50), settings=settings, until=15.0)
    assert len(world.processes) == 1
    world.run(25.0)
    assert not world.processes
    world = play(made(0.0, *[0.5] * 50), settings=AutoscalerSettings(min_containers=2))
    assert len(world.processes) == 2


def test_buffer_containers_are_idle_extras_while_the_function_is_active() -> None:
    world = play(made(0.0, 5.0), settings=AutoscalerSettings(buffer_containers=3), until=4.0)
    assert len(world.processes) == 4
    world.run(70.0)
    assert not world.processes


def test_input_concurrency_aims_at_the_target_and_bursts_to_the_maximum() -> None:
    slow = Behaviour(start_seconds=2.0, start_compute=0.1)
    calls = [made(at / 100, 3.0, call=f"fc-{at}") for at in range(24)]
    warm = made(-0.0, 0.1, call="fc-warm")
    later = [made(5.0 + call.made_at, 3.0, call=f"later-{call.call}") for call in calls]
    world = play(warm, *later, behaviour=slow, concurrency=Concurrency(max_inputs=12, target_inputs=8))
    assert world.peak == 3
    assert sum(wait < 0.1 for wait in waits(*later)) >= 12


def test_a_scale_up_never_takes_memory_that_is_not_there() -> None:
    large = Behaviour(start_seconds=0.2, start_compute=0.01, memory_bytes=100 << 20)
    world = play(made(0.0, *[5.0] * 200), behaviour=large, machine=Machine(cores=2.0, memory_bytes=2 << 30))
    assert world.out_of_memory == 0
    assert 15 <= world.peak <= 20


def test_a_slow_start_is_not_repeated_for_short_work() -> None:
    """Ten short inputs are done by those that start first, long before more could have started."""
    model = Behaviour(start_seconds=15.0, start_compute=0.5, memory_bytes=1 << 30)
    world = play(made(0.0, *[0.1] * 10), made(100.0, *[0.1] * 10), behaviour=model)
    assert world.starts <= 3


def test_each_decision_says_why() -> None:
    call = made(0.0, *[1.0] * 100)
    world = play(call, until=0.5)
    seen = world.plane.statistics("f")  # type: ignore[attr-defined]
    assert seen.decision.startswith("0 waiting and 100 running")
    world = play(made(0.0, *[1.0] * 100), settings=AutoscalerSettings(max_containers=7), until=0.5)
    seen = world.plane.statistics("f")  # type: ignore[attr-defined]
    assert seen.decision.endswith("max_containers is 7")


def test_what_is_learned_about_starts_is_that_of_one_alone() -> None:
    """A hundred forks at once take long together; each is still known to take milliseconds."""
    world = play(made(0.0, *[1.0] * 100))
    estimates = world.plane._pools["f"].estimates  # type: ignore[attr-defined]
    assert estimates.startup_seconds < 10 * (FORKED.start_seconds + FORKED.start_compute)
    assert 0.0005 <= estimates.start_cost_seconds < 0.005
