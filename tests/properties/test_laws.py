"""Any history keeps the laws of the design: functions come and go, calls are made and cancelled, containers run, lend
their places, fail and die, messages are late, and the clock moves on. `World` is the judge; this file is the history.

UPSWELL_EXAMPLES=n plays n histories drawn afresh (`make laws`); without it, a few that are always the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from upswell.core import events as e
from upswell.errors import InvalidError
from upswell.spec import AutoscalerSettings, CallKind, Concurrency, FunctionSpec, Resources, Retries, SettingsUpdate

from .accounts import Account, Declared
from .process import Process, Work
from .world import CORES, World

EXAMPLES = int(os.environ.get("UPSWELL_EXAMPLES", "0"))
PHASES = [phase for phase in Phase if phase is not Phase.shrink or not os.environ.get("UPSWELL_SABOTAGE")]
ROUNDS = 5000  # in which everything must come to an end once nothing goes wrong any more
LONGEST_BACKOFF_SECONDS = 60.0
NAMES = ("f", "g", "h")
OWNERS = ("ann", "bob")
OF_ONE_INPUT = ("remote", "generator")

one_of = st.integers(0, 1000)  # chooses among whatever there is
sizes = st.integers(1, 12)


@st.composite
def some_settings(draw: st.DrawFn) -> AutoscalerSettings:
    least, most = draw(st.sampled_from([(0, None), (0, None), (0, 1), (0, 2), (1, None), (2, 3), (0, 4)]))
    return AutoscalerSettings(
        min_containers=least,
        max_containers=most,
        buffer_containers=draw(st.sampled_from([0, 0, 2])),
        scaledown_window=draw(st.sampled_from([2, 60])),
    )


@st.composite
def specs(draw: st.DrawFn) -> FunctionSpec:
    wanted = draw(some_settings())
    most = draw(st.sampled_from([1, 1, 2, 4]))
    batch, wait = draw(st.sampled_from([(0, 0), (0, 0), (0, 0), (2, 310), (4, 20), (5, 0)]))
    cpu = 0.0 if wanted.floor else draw(st.sampled_from([0.0, 0.0, 1.0, 3.0, CORES]))
    return FunctionSpec(
        settings=wanted,
        concurrency=Concurrency(
            max_inputs=most, target_inputs=draw(st.integers(1, most)), batch_size=batch, batch_wait_ms=wait
        ),
        resources=Resources(cpu=cpu),
        retries=draw(st.sampled_from([None, None, Retries(max_retries=2), Retries(max_retries=1, initial_delay=0.0)])),
        timeout=draw(st.sampled_from([2.0, 30.0])),
        startup_timeout=draw(st.sampled_from([5.0, 30.0])),
        single_use=draw(st.sampled_from([False, False, False, True])),
    )


class History(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.new_world()
        self.made = 0
        self.yields: list[e.ChunksReceived] = []  # what generators have said

    def new_world(self) -> World:
        return World()

    def choose(self, among: Iterable[Any], number: int) -> Any:
        """One of them, or nothing where there are none."""
        found = list(among)
        return found[number % len(found)] if found else None

    def processes(self) -> list[Process]:
        return [known.process for known in self.world.containers.values()]

    def alive(self) -> list[Process]:
        return [process for process in self.processes() if not process.dead]

    def starting(self) -> list[Process]:
        starting = (known.process for known in self.world.containers.values() if known.state == "starting")
        return [process for process in starting if not process.outbox and not process.dead]

    def running(self) -> list[tuple[Process, Work]]:
        return [(process, work) for process in self.alive() for work in process.running()]

    def generators(self) -> list[tuple[Process, Work]]:
        return [(process, work) for process, work in self.running() if self.world.calls[work.call].kind == "generator"]

    def suspended(self) -> list[tuple[Process, Work]]:
        return [(process, work) for process in self.alive() for work in process.suspended()]

    def open_calls(self) -> list[Account]:
        return [call for call in self.world.calls.values() if not call.finished]

    # -- functions, calls and their owners ---------------------------------------------------------------

    @initialize(drawn=st.lists(st.tuples(specs(), st.booleans()), min_size=2, max_size=len(NAMES)))
    def functions_are_declared(self, drawn: list[tuple[FunctionSpec, bool]]) -> None:
        for name, (spec, ephemeral) in zip(NAMES, drawn, strict=False):
            self.world.tell(e.FunctionDeclared(name, spec, ephemeral))

    @rule(
        number=one_of,
        kind=st.sampled_from(["remote", "map", "map", "spawn", "generator"]),
        count=sizes,
        last=st.booleans(),
        owner=st.sampled_from(OWNERS),
    )
    def a_call_is_made(self, number: int, kind: CallKind, count: int, last: bool, owner: str) -> None:
        owner = "" if kind == "spawn" else owner
        self.offer(self.begun(number, kind, owner), *((1, True) if kind in OF_ONE_INPUT else (count, last)))

    @rule(number=one_of)
    def a_call_comes_by_a_spool(self, number: int) -> None:
        self.offer(self.begun(number, "spawn", ""), 1, True, accepted=True)

    def begun(self, number: int, kind: CallKind, owner: str) -> Account:
        pool = self.choose(self.world.functions.values(), number)
        self.made += 1
        call = self.world.calls[f"fc-{self.made}"] = Account(f"fc-{self.made}", pool, kind, owner)
        pool.calls.append(call)
        return call

    @precondition(lambda self: self.open_calls())
    @rule(number=one_of, count=sizes, last=st.booleans())
    def a_call_goes_on(self, number: int, count: int, last: bool) -> None:
        known = (call for call in self.open_calls() if call.inputs or (call.pool.alive and not call.cancelled))
        call = self.choose((call for call in known if not call.ended and not call.offer), number)
        if call and call.kind not in OF_ONE_INPUT:
            self.offer(call, count, last)

    @precondition(lambda self: any(call.invited for call in self.open_calls()))
    @rule(number=one_of)
    def an_invitation_is_taken(self, number: int) -> None:
        call = self.choose(
            (call for call in self.open_calls() if call.invited and call.offer and not call.cancelled), number
        )
        if call:
            self.offer(call, *call.offer)

    def offer(self, call: Account, count: int, last: bool, *, accepted: bool = False) -> None:
        before = len(call.inputs)
        call.offer, call.invited = ((count, last) if call.kind not in OF_ONE_INPUT else None), False
        kind: Any = call.kind
        self.world.tell(e.InputsSubmitted(call.id, call.pool.name, kind, before, count, last, call.owner, accepted))
        if len(call.inputs) > before or call.cancelled or not call.pool.alive:
            call.offer = None

    @precondition(lambda self: self.open_calls())
    @rule(number=one_of)
    def a_call_ends(self, number: int) -> None:
        call = self.choose((call for call in self.open_calls() if not call.ended and not call.offer), number)
        if call and call.inputs:
            self.world.tell(e.InputsEnded(call.id, len(call.inputs)))

    @precondition(lambda self: self.open_calls())
    @rule(number=one_of, running=st.booleans(), terminate=st.booleans())
    def a_call_is_cancelled(self, number: int, running: bool, terminate: bool) -> None:
        if call := self.choose(self.open_calls(), number):
            self.world.tell(e.CallCancelled(call.id, running, terminate))

    @precondition(lambda self: any(call.unsettled() for call in self.open_calls()))
    @rule(number=one_of, position=one_of, terminate=st.sampled_from([False, False, False, True]))
    def an_input_is_cancelled(self, number: int, position: int, terminate: bool) -> None:
        call = self.choose((call for call in self.open_calls() if call.unsettled()), number)
        left = [place for place, one in enumerate(call.inputs) if not one.settled]
        self.world.tell(e.InputCancelled(call.id, self.choose(left, position), terminate))

    @rule(
        what=st.sampled_from(
            [*4 * ["a container dies"], *2 * ["settings change", "deployed"], "its owner leaves", "removed", "stopped"]
        ),
        number=one_of,
        spec=specs(),
    )
    def an_upset(self, what: str, number: int, spec: FunctionSpec) -> None:
        name = self.choose(self.world.functions, number)
        match what:
            case "a container dies":
                if process := self.choose(self.alive(), number):
                    process.dead = True
            case "stopped":
                if process := self.choose(self.alive(), number):
                    self.world.tell(e.ContainerStopped(process.id))
            case "settings change":
                self.settings_change(
                    self.world.functions[name], SettingsUpdate.of(**msgspec.structs.asdict(spec.settings))
                )
            case "its owner leaves":
                self.world.tell(e.OwnerLeft(OWNERS[number % len(OWNERS)]))
            case "removed":
                self.world.tell(e.FunctionRemoved(name, "a deploy left it out"))
            case "deployed":
                self.a_version_is_deployed(name, number, spec)

    def a_version_is_deployed(self, name: str, number: int, spec: FunctionSpec) -> None:
        """Another one, or the same under other settings."""
        pool, is_same = self.world.functions[name], number % 7 == 0
        version = pool.version + (not is_same)
        declared = msgspec.structs.replace(pool.spec, settings=spec.settings) if is_same else spec
        if declared.resources.cpu and declared.settings.floor:
            return  # warm containers might take all cores for good
        strategy: Any = "recreate" if number % 3 == 0 else "rolling"
        self.world.tell(e.FunctionDeclared(name, declared, bool(number % 2), version, strategy))

    @rule(events=st.integers(1, 3))
    def events_come_together(self, events: int) -> None:
        """What can't wait is done for each of them, and the rest once."""
        self.world.together = events

    def settings_change(self, pool: Declared, update: SettingsUpdate) -> None:
        try:
            after = pool.settings.merge(update)
        except InvalidError:
            return  # refused before it gets to the core
        if pool.alive and not (pool.spec.resources.cpu and after.floor):
            self.world.tell(e.SettingsUpdated(pool.name, update))

    # -- containers ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.starting())
    @rule(number=one_of, fails=st.integers(0, 5))
    def a_container_starts(self, number: int, fails: int) -> None:
        process = self.choose(self.starting(), number)
        if fails == 0:
            process.outbox.append(e.StartFailed(process.id, "no such module"))
            process.dead = True
        else:
            process.outbox.append(e.ContainerReady(process.id))

    @precondition(lambda self: any(process.inbox for process in self.alive()))
    @rule(number=one_of)
    def a_container_reads(self, number: int) -> None:
        self.choose((process for process in self.alive() if process.inbox), number).read()

    @precondition(lambda self: self.running())
    @rule(number=one_of, count=sizes)
    def inputs_finish(self, number: int, count: int) -> None:
        process, work = self.choose(self.running(), number)
        process.finish(work, count)

    @precondition(lambda self: self.running())
    @rule(
        number=one_of,
        kind=st.sampled_from(["user", "user", "timeout", "memory", "cancelled", "unreadable"]),
        fatal=st.booleans(),
    )
    def an_input_fails(self, number: int, kind: Any, fatal: bool) -> None:
        process, work = self.choose(self.running(), number)
        process.fail(work, kind, fatal and kind in ("timeout", "memory"))

    @precondition(lambda self: self.running())
    @rule(number=one_of)
    def an_input_waits_for_a_nested_call(self, number: int) -> None:
        process, work = self.choose(self.running(), number)
        process.suspend(work)

    @precondition(lambda self: self.suspended())
    @rule(number=one_of)
    def an_input_goes_on(self, number: int) -> None:
        process, work = self.choose(self.suspended(), number)
        process.resume(work)

    @precondition(lambda self: self.yields or self.generators())
    @rule(number=one_of, count=sizes, again=st.integers(0, 3))
    def a_generator_yields(self, number: int, count: int, again: int) -> None:
        if again == 0 and self.yields:
            self.world.tell(self.choose(self.yields, number))  # a late message: of an old attempt, or heard before
        elif found := self.choose(self.generators(), number):
            process, work = found
            process.give(work, count)
            self.yields.append(process.outbox[-1])

    # -- what the core hears, and when -------------------------------------------------------------------------

    @precondition(lambda self: any(map(self.can_be_heard, self.processes())))
    @rule(number=one_of, out_of_memory=st.booleans())
    def the_core_hears(self, number: int, out_of_memory: bool) -> None:
        self.hear(self.choose(filter(self.can_be_heard, self.processes()), number), out_of_memory)

    @staticmethod
    def can_be_heard(process: Process) -> bool:
        """Whether it has said something, or is gone."""
        is_done = process.draining and not process.works and not process.inbox
        return bool(process.outbox) or process.dead or is_done

    def hear(self, process: Process, out_of_memory: bool = False) -> None:
        if process.outbox:
            self.world.tell(process.outbox.popleft())
        else:
            self.world.tell(e.ContainerExited(process.id, "exited with status 1", out_of_memory))

    @rule()
    def everybody_gets_on(self) -> None:
        """Containers that start become ready, all read, and the core hears all."""
        for process in self.starting():
            process.outbox.append(e.ContainerReady(process.id))
        self.exchange()

    @precondition(lambda self: self.world.samples)
    @rule(share=st.sampled_from([0.0, 0.5, 1.0]))
    def a_sample_is_answered(self, share: float) -> None:
        sample = self.world.samples.pop(0)
        seconds = tuple((name, share * self.world.now) for name in sample.containers)
        self.world.tell(e.UsageSampled(sample.function, seconds, 20 << 20, CORES, 1 << 40))

    @rule(seconds=st.sampled_from([0.001, 0.004, 0.02, 0.3, 1.0, 4.0, 40.0]), late=st.booleans())
    def time_passes(self, seconds: float, late: bool) -> None:
        self.world.pass_time(self.world.now + seconds, late)

    @precondition(lambda self: self.running())
    @rule()
    def the_dust_settles(self) -> None:
        """Nothing ends or fails, but everybody reads and is heard: then nothing waits in the wrong place (law 3)."""
        for _ in range(ROUNDS):
            if not self.exchange():
                self.world.pass_time(self.world.now + 0.01)
                if not self.exchange():
                    self.check_that_nothing_waits_in_the_wrong_place()
                    self.check_that_nothing_unwanted_goes_on()
                    return

    def exchange(self) -> bool:
        """Read and hear everything; whether there was anything."""
        busy = False
        for process in self.processes():
            while process.inbox and not process.dead:
                process.read()
                busy = True
            while process.id in self.world.containers and self.can_be_heard(process):
                self.hear(process)
                busy = True
        return busy

    def check_that_nothing_waits_in_the_wrong_place(self) -> None:
        for pool in self.world.functions.values():
            known = list(pool.containers.values()) if pool.alive else []
            works = [work for one in known if one.state == "ready" for work in one.process.works.values()]
            stuck = [work for work in works if work.unstarted and not work.batch]  # a batch is never taken back
            free = [one.process.id for one in known if one.has_room()]
            assert not (stuck and free), f"law 3: inputs of range {stuck[0].range} wait, and {free[0]} has room"
            if pool.alive and not pool.failed_starts and not self.an_exit_is_recent():
                assert pool.present() >= pool.settings.floor, "law 4: fewer than min_containers"

    def check_that_nothing_unwanted_goes_on(self) -> None:
        """A cancelled input is ended, unless that would end others that run with it."""
        for known in self.world.containers.values():
            for held in known.held.values():
                left = held.call.inputs[held.next : held.stop]
                together = held.batch and not all(one.unwanted for one in left)
                alive = known.state in ("ready", "retiring")
                assert together or not alive or not any(one.unwanted for one in left), f"{held} goes on"

    def an_exit_is_recent(self) -> bool:
        """Whether the next start of somebody may have to wait."""
        since = self.world.now - LONGEST_BACKOFF_SECONDS
        return any(isinstance(event, e.ContainerExited) for event, now, *_ in self.world.history if now >= since)

    # -- the end ---------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """From here on nothing goes wrong: everything ends, nobody was forgotten, and the pools go to rest."""
        world = self.world
        world.catch_up()
        for call in self.open_calls():
            if not call.ended and not call.cancelled and not call.offer and call.inputs:
                world.tell(e.InputsEnded(call.id, len(call.inputs)))
        for _ in range(ROUNDS):
            if not self.go_on():
                if not any(call.unsettled() for call in world.calls.values()):
                    break
                moment = world.plane.deadline()
                assert moment is not None, "inputs wait, and nothing will ever happen"
                world.pass_time(moment)
        for call in world.calls.values():
            assert not call.unsettled() and (call.finished or not (call.inputs and (call.ended or call.cancelled)))
            assert not call.offer or call.cancelled or not call.pool.alive, f"{call.id} was never invited"
        self.rest(LONGEST_BACKOFF_SECONDS if self.an_exit_is_recent() else 0.0)
        self.rest(max((pool.settings.window_seconds for pool in world.functions.values()), default=0.0))  # law 8
        world.pass_time(world.now + 0.1)
        for pool in world.functions.values():
            assert pool.present() == (pool.settings.floor if pool.alive else 0), (
                f"{pool.name} is not at rest: {pool.present()}"
            )
            outdated = [known.process.id for known in pool.containers.values() if known.is_outdated()]
            assert not outdated or pool.failed_starts, f"{pool.name} has outdated containers: {outdated}"
        assert world.plane.deadline() is None
        world.replay()

    def rest(self, seconds: float) -> None:
        """Time passes without load, and containers answer at once."""
        end = self.world.now + seconds
        for _ in range(ROUNDS):
            if not self.go_on():
                moment = self.world.plane.deadline()
                self.world.pass_time(end if moment is None else min(moment, end))
                if self.world.now == end and not self.go_on():
                    return

    def go_on(self) -> bool:
        """Whoever can do something does it; whether anybody could."""
        busy = False
        for process in self.starting():
            process.outbox.append(e.ContainerReady(process.id))
        for process in self.processes():
            while process.inbox and not process.dead:
                process.read()
            while process.works and not process.dead:
                assert process.running() or process.suspended()
                for work in process.suspended():
                    process.resume(work)
                for work in process.running():
                    process.finish(work, work.stop)
        busy = self.exchange()
        for call in self.open_calls():
            if call.offer and call.invited and not call.cancelled:
                self.offer(call, *call.offer)
                busy = True
        return busy


PLAYED = settings(
    max_examples=EXAMPLES or 100,
    stateful_step_count=80,
    derandomize=not EXAMPLES,
    phases=PHASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestLaws = History.TestCase
TestLaws.settings = PLAYED
