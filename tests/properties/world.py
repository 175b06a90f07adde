"""The world around the core, and its judge. It knows only what it told the core (events) and what the core asked for
(commands), keeps its own account of every input and container from these, and asserts the laws on that account.

The laws are those of the design, restated here by number where they are checked. The core is never asked.
"""

from __future__ import annotations

from collections import Counter

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.spec import CANCEL_GRACE_SECONDS, Limits

from .accounts import Account, Declared, Held, Input, Known
from .process import Process

CORES = 4.0
LIMITS = Limits(pending=10, total=24, spawned_pending=16)
AHEAD = 2  # ranges that may wait in a container that takes one input at a time
LEAST_PATIENCE_SECONDS, GRACE_SECONDS = 0.5, 5.0
LOST_TOO_OFTEN = 3
A_MOMENT = 1e-6
CANCELLED = "the call was cancelled"


class World:
    """Tells the core what happens, does what it asks, and holds it to the laws."""

    def __init__(self) -> None:
        self.plane = self._new_plane()
        self.now = 0.0
        self.history: list[tuple[e.Event | None, float, list[c.Command]]] = []  # `None`: it was woken
        self.together = 0  # further events that happen before the plane is woken
        self.functions: dict[str, Declared] = {}
        self.calls: dict[str, Account] = {}
        self.containers: dict[str, Known] = {}  # those that have not exited
        self.samples: list[c.Sample] = []
        self._event: e.Event | None = None
        self._arrived: list[Input] = []  # whose outputs came with the event
        self._struck: list[Input] = []  # of spawned calls, that lost an attempt with it, and nobody was told
        self._chunks: c.Forward | None = None  # that came with it
        self._forming: c.Grant | None = None  # the last part of a batch that is not complete
        self._gave_way: list[Declared] = []  # pools of which one went, for another to start

    def _new_plane(self) -> Plane:
        return Plane(LIMITS, cores=CORES, memory_available=1 << 40)

    # -- what the history does -----------------------------------------------------------------------

    def tell(self, event: e.Event) -> None:
        """The event happens, and what follows from it."""
        self._event = event
        refusal = self._must_refuse(event) if isinstance(event, e.InputsSubmitted) else None
        self._note(event)
        answer = self.plane.take(event, self.now)
        self._obey(answer)
        if not self.together:
            self.catch_up()
        self.together = max(0, self.together - 1)
        if isinstance(event, e.InputsSubmitted):  # law 7
            refused = any(isinstance(command, c.Refuse) for command in answer)
            taken = any(isinstance(command, c.Accept) for command in answer)
            assert (refused, taken) == (refusal, not refusal), (event, answer)

    def catch_up(self) -> None:
        """What has happened together is settled, as far as the plane does not leave it for a moment later."""
        self.together = 0
        moment = self.plane.deadline()
        if moment is not None and moment <= self.now:
            self._wake()

    def pass_time(self, until: float, late: bool = False) -> None:
        """The clock moves on, with a wake at each deadline, or `late` with a single one at the end."""
        self.catch_up()
        while not late and (moment := self.plane.deadline()) is not None and moment <= until:
            self.now = max(self.now, moment)
            self._wake()
            again = self.plane.deadline()
            assert again is None or again > self.now, "it wants to be woken for what it has just been woken for"
        self.now = until
        self._wake()
        for known in self.containers.values():
            if known.state in ("ready", "retiring") and known.active():
                silence, patience = self.now - known.heard_at, known.spec.timeout + GRACE_SECONDS
                assert silence <= patience, f"{known.process.id} has been stuck for {silence} s"

    def _wake(self) -> None:
        self._event = None
        self._obey(self.plane.wake(self.now))
        for pool in self.functions.values():
            self._judge(pool)

    def replay(self) -> None:
        """Law 10: the same history, the same commands."""
        plane = self._new_plane()
        for event, now, answer in self.history:
            assert (plane.wake(now) if event is None else plane.take(event, now)) == answer

    # -- what the core has been told -------------------------------------------------------------------

    def _note(self, event: e.Event) -> None:
        match event:
            case e.FunctionDeclared():
                self._declare(event)
            case e.FunctionRemoved(function=name, reason=reason):
                if pool := self.functions.get(name):
                    pool.alive = False
                    for call in pool.calls:
                        call.cancelled = call.cancelled or reason
            case e.SettingsUpdated(function=name, update=update):
                self.functions[name].settings = self.functions[name].settings.merge(update)
            case e.InputsSubmitted(call=name, function=function, accepted=True):
                if not self.functions[function].alive:
                    self.calls[name].cancelled = f"there is no function {function} any more"
            case e.InputsEnded(call=name):
                self.calls[name].ended = True
            case e.CallCancelled(call=name):
                self.calls[name].cancelled = self.calls[name].cancelled or CANCELLED
            case e.InputCancelled(call=name, position=position, terminate=terminate):
                for one in self.calls[name].inputs[position : position + 1]:
                    one.unwanted, one.dies = True, one.dies or terminate
            case e.OwnerLeft(owner=owner):
                for call in self.calls.values():
                    if call.owner == owner:
                        call.cancelled = call.cancelled or CANCELLED
            case _:
                self._note_of_container(event)

    def _declare(self, event: e.FunctionDeclared) -> None:
        pool = self.functions.get(event.function)
        if pool is None or not pool.alive:
            pool = Declared(event.function, event.spec, event.ephemeral, event.spec.settings, event.version)
            self.functions[event.function] = pool
        if event.version != pool.version:
            pool.version, pool.failed_starts = event.version, 0
        pool.spec, pool.settings, pool.ephemeral = event.spec, event.spec.settings, event.ephemeral

    def _note_of_container(self, event: e.Event) -> None:
        known = self.containers.get(getattr(event, "container", ""))
        if known is None:
            return
        held = known.held.get(getattr(event, "range", -1))
        match event:
            case e.ContainerReady() if known.state == "starting":
                known.state, known.heard_at, known.idle_since = "ready", self.now, self.now
                known.pool.failed_starts = 0
            case e.StartFailed():
                known.pool.failed_starts += not known.is_outdated()
            case e.ContainerExited():
                self._note_exit(known, event)
            case e.ResultsReceived(start=start, count=count) if held:
                self._arrived = self._release(held, start, start + count)
                held.next = start + count
                self._heard(known, event.range)
            case e.FailureReceived(position=position) if held:
                self._note_failure(known, held, event)
                held.next = position + 1
                self._heard(known, event.range)
            case e.ChunksReceived(first=first, count=count) if held and first == held.chunks:
                if not held.call.cancelled:
                    self._chunks = c.Forward(held.call.id, first, count)
                    held.chunks += count
            case e.RangeReturned(stop=stop) if held:
                self._release(held, max(stop, held.next), held.stop)
                held.stop = min(held.stop, max(stop, held.next))
                self._drop_if_done(known, event.range)
            case e.InputSuspended() | e.InputResumed() if held:
                held.suspended = isinstance(event, e.InputSuspended)
                known.heard_at = self.now

    def _note_failure(self, known: Known, held: Held, event: e.FailureReceived) -> None:
        (one,) = self._release(held, event.position, event.position + 1)
        one.failures += 1
        retries = known.pool.spec.retries
        one.allowed = retries.max_retries if retries else 0
        if retries:
            one.not_before = self.now + retries.delay_seconds(one.failures + one.blows)
        if event.fatal:
            known.state = "ending"

    def _note_exit(self, known: Known, event: e.ContainerExited) -> None:
        del self.containers[known.process.id], known.pool.containers[known.process.id]
        if known.state == "starting":
            known.pool.failed_starts += not known.is_outdated()
        # Where a lent place was granted again and taken back at the same moment, only the container knows who runs.
        all_begun = known.state in ("ready", "retiring") and known.active() <= known.spec.concurrency.max_inputs
        for held in known.held.values():
            released = self._release(held, held.next, held.stop)
            for one in released if held.batch else released[:1]:
                one.blows += 1
                if held.batch and all_begun and not event.out_of_memory:
                    one.losses += 1
                    self._struck += [one] if held.call.kind == "spawn" and not held.call.cancelled else []
                if retries := known.pool.spec.retries:
                    one.not_before = self.now + retries.delay_seconds(one.failures + one.blows)

    def _release(self, held: Held, start: int, stop: int) -> list[Input]:
        released = held.call.inputs[start:stop]
        for one in released:
            one.holder, one.since = "", 0.0
        return released

    def _heard(self, known: Known, number: int) -> None:
        known.heard_at = self.now
        self._drop_if_done(known, number)

    def _drop_if_done(self, known: Known, number: int) -> None:
        if known.held[number].next >= known.held[number].stop:
            del known.held[number]
            if not known.held:
                known.idle_since = self.now

    def _must_refuse(self, event: e.InputsSubmitted) -> bool:
        """Whether a limit, or what the call has become, says that the segment is not taken."""
        if event.accepted:
            return False
        pool, call = self.functions.get(event.function), self.calls.get(event.call)
        if pool is None or not pool.alive or call is None:
            return True
        if call.pool is not pool or call.cancelled or call.finished or event.first != len(call.inputs):
            return True
        spawned = event.kind == "spawn"
        there = [other for other in pool.calls if (other.kind == "spawn") == spawned]
        unsettled = sum(other.unsettled() for other in there)
        if spawned:
            return unsettled + event.count > max(LIMITS.spawned_pending, event.count)
        pending = min(unsettled, self._not_started(pool))
        return unsettled + event.count > max(LIMITS.total, event.count) or (
            pending + event.count > max(LIMITS.pending, event.count)
        )

    def _not_started(self, pool: Declared) -> int:
        """Inputs in no container, and those that wait in a ready one."""
        found = sum(not one.settled and not one.holder for call in pool.calls for one in call.inputs)
        for known in pool.containers.values():
            if known.state == "ready" and not known.spec.concurrency.batch_size:
                active = [held.stop - held.next for held in known.held.values() if not held.suspended]
                found += sum(active) - min(len(active), known.spec.concurrency.max_inputs)
        return found

    # -- what the core asks for --------------------------------------------------------------------------

    def _obey(self, answer: list[c.Command]) -> None:
        self.history.append((self._event, self.now, answer))
        for command in answer:
            self._perform(command)
        assert all(one.settled for one in self._arrived), "outputs came and were not delivered"
        assert all(one.settled for one in self._struck), "a container died, and not all of its batch lost an attempt"
        assert self._chunks is None, f"{self._chunks}: they were not passed on"
        assert self._forming is None, f"{self._forming}: the rest of its batch never came"
        assert not self._gave_way, f"one of {self._gave_way[0].name} went at the maximum, and no other started"
        self._arrived, self._struck = [], []

    def _perform(self, command: c.Command) -> None:
        assert self._forming is None or isinstance(command, c.Grant), f"{command} in the middle of a batch"
        match command:
            case c.Accept(call=name, first=first, count=count):
                call = self.calls[name]
                call.segments[first] = count
                call.inputs += [Input(since=self.now) for _ in range(count)]
                call.ended = call.ended or (isinstance(self._event, e.InputsSubmitted) and self._event.last)
            case c.Refuse() | c.Sample():
                if isinstance(command, c.Sample):
                    self.samples.append(command)
            case c.Invite(call=name):
                self.calls[name].invited = True
            case c.Start():
                self._start(command)
            case c.Grant():
                self._grant(command)
            case c.Retire(container=name):
                self._retire(self.containers[name])
            case c.Drain(container=name):
                self._drain(self.containers[name])
            case c.Kill(container=name):
                self._kill(self.containers[name])
            case c.TakeBack(container=name, range=number) | c.CancelRange(container=name, range=number):
                known = self.containers[name]
                assert number in known.held, f"{command}: nobody holds it"
                held = known.held[number]
                left = held.call.inputs[held.next : held.stop]
                unwanted = held.call.cancelled or all(one.unwanted for one in left)
                assert not held.batch or unwanted, f"{command}: a batch is never taken back"
                if isinstance(command, c.CancelRange):
                    self._end_running(known, number, held)
                known.process.inbox.append(command)
            case c.Deliver(call=name, start=start, count=count):
                for one in self._settle(name, start, count):
                    assert one in self._arrived, f"{command}: its output did not come just now"
            case c.Forward(call=name):
                assert command == self._chunks, f"{command}: other chunks came just now, or none"
                self._chunks = None
                self.calls[name].inputs[0].yielded = True
            case c.Fail():
                self._fail(command)
            case c.RememberAttempts(call=name, position=position, failures=failures, losses=losses):
                one = self.calls[name].inputs[position]
                assert not one.settled, f"{command}: it is not tried again"
                assert 1 <= failures + losses <= one.failures + one.blows
                self._struck = [other for other in self._struck if other is not one]
            case c.ForgetSegment(call=name, first=first):
                count = self.calls[name].segments.pop(first)
                assert all(one.settled for one in self.calls[name].inputs[first : first + count])
            case c.FinishCall(call=name):
                call = self.calls[name]
                assert not call.finished and not call.unsettled() and (call.ended or call.cancelled)
                assert not call.segments, "its segments are not forgotten"
                call.finished = True

    def _end_running(self, known: Known, number: int, held: Held) -> None:
        """Where one input is cancelled, no other one is ended with it: none that the container runs by now, either."""
        work = known.process.works.get(number)
        if work is not None and isinstance(self._event, e.InputCancelled | e.RangeReturned) and not held.call.cancelled:
            wanted = [place for place in range(work.position, work.stop) if not held.call.inputs[place].unwanted]
            assert not wanted, f"inputs {wanted} of range {number} are ended with another"

    def _start(self, command: c.Start) -> None:
        pool = self.functions[command.function]
        assert pool.alive and command.container not in self.containers
        process = Process(command.container, pool.name, pool.spec.concurrency.max_inputs)
        known = Known(process, pool, pool.spec, pool.version, self.now, heard_at=self.now)
        if pool in self._gave_way:
            self._gave_way.remove(pool)
        self.containers[process.id] = pool.containers[process.id] = known
        most = pool.settings.max_containers
        assert most is None or pool.present() <= most, f"law 4: {pool.present()} of at most {most}"
        reserved = self._reserved()
        assert reserved <= CORES or not pool.spec.resources.cpu, f"{reserved} of {CORES} cores are reserved"

    def _reserved(self) -> float:
        return sum(known.spec.resources.cpu for known in self.containers.values())

    def _grant(self, command: c.Grant) -> None:
        call, known = self.calls[command.call], self.containers[command.container]
        assert known.state == "ready", f"law 2: {command} to one that is {known.state}"
        assert known.pool is call.pool and not call.cancelled, command
        assert call.segments[command.first] == command.count
        assert command.first <= command.start < command.stop <= command.first + command.count
        self._gather(command, known)
        for one in call.inputs[command.start : command.stop]:
            assert not one.settled and not one.holder, f"law 1: {command} of an input that is elsewhere"
            assert not one.yielded, f"{command}: what was yielded would be yielded again"
            assert one.not_before <= self.now + A_MOMENT or one.blows, f"{command}: too early for another attempt"
            one.holder = known.process.id
        if not known.active():
            known.heard_at = self.now
        place = command.batch or command.range
        known.held[command.range] = Held(call, command.start, command.start, command.stop, place, command.batch)
        known.process.inbox.append(command)
        spec, active = known.spec, known.active()
        most = spec.concurrency.max_inputs
        if spec.single_use:
            alone = command.batch or command.stop - command.start == 1
            assert alone and {held.place for held in known.held.values()} == {place}, "law 2: single use"
        else:
            ahead = AHEAD if most == 1 and not command.batch else 0
            assert active <= most + ahead, f"law 2: {active} ranges or batches for {most} places"

    def _gather(self, command: c.Grant, known: Known) -> None:
        """Batches: as large as they may be, only when one is due, and in one go to one container."""
        size, before, now, pool = command.stop - command.start, self._forming, self.now, known.pool
        assert bool(command.batch) == bool(known.spec.concurrency.batch_size), command
        if before is not None:
            same = (command.batch, command.container) == (before.batch, before.container)
            assert same and command.left == before.left - size, f"{command} after {before}"
        elif command.batch:
            total, most = size + command.left, known.spec.concurrency.batch_size
            assert total <= most, f"{command}: a batch is too large"
            assert total >= min(most, len(pool.waiting(now, surely=True))), f"{command}: a batch leaves inputs behind"
            assert pool.is_due(now, surely=False), f"{command}: a batch is formed too early"
        self._forming = command if command.left else None

    def _drain(self, known: Known) -> None:
        """Law 5: only who is idle, and surplus, outdated, or has retired."""
        pool, idle = known.pool, self.now - known.idle_since
        assert known.state in ("ready", "retiring"), f"law 5: {known.process.id} is drained while {known.state}"
        assert not (pool.alive and known.held), f"law 5: {known.process.id} is drained while it is busy"
        if pool.alive and known.state == "ready" and not known.spec.single_use:
            least = min(pool.settings.window_seconds, LEAST_PATIENCE_SECONDS) - A_MOMENT
            is_surplus = pool.present() > pool.settings.floor and idle >= least
            expired = idle >= pool.settings.window_seconds - A_MOMENT or pool.failed_starts
            if known.is_outdated() and not (is_surplus and expired):
                self._replaced(known)
            elif not pool.is_above_maximum():
                assert is_surplus, f"law 5: {pool.present()} containers, and it was idle for {idle} s"
        known.state, known.heard_at = "ending", self.now
        known.process.inbox.append(c.Drain(known.process.id, ""))

    def _retire(self, known: Known) -> None:
        assert known.state == "ready" and known.held and known.is_outdated() and known.pool.alive
        self._replaced(known)
        known.state = "retiring"

    def _replaced(self, known: Known) -> None:
        """A roll-out leaves as many ready as must be, or one goes as the next one starts or as its room is needed."""
        pool, event = known.pool, self._event
        if isinstance(event, e.FunctionDeclared) and event.strategy == "recreate" and event.function == pool.name:
            return
        if pool.is_above_maximum() or pool.count("ready") > max(1, pool.settings.floor):
            return
        assert not pool.count("starting"), "one goes, and the next is not ready"
        cpu = pool.spec.resources.cpu
        if cpu and self._reserved() + cpu > CORES:
            assert not pool.count("retiring", "ending"), "one goes, and the room of the last is not taken"
        else:
            assert pool.present() == pool.settings.ceiling, "one goes, and there was room for one more"
            self._gave_way.append(pool)

    def _kill(self, known: Known) -> None:
        event, spec = self._event, known.spec
        on_demand = isinstance(event, e.ContainerStopped) or (isinstance(event, e.CallCancelled) and event.terminate)
        on_demand = on_demand or any(
            one.dies for held in known.held.values() for one in held.call.inputs[held.next : held.stop]
        )
        replaced = known.is_outdated() and known.state == "starting"
        if known.pool.alive and not on_demand and not replaced:
            limits = {
                "starting": spec.startup_timeout,
                "ready": spec.timeout,
                "retiring": spec.timeout,
                "ending": CANCEL_GRACE_SECONDS,
            }
            limit, since = limits[known.state], known.started_at if known.state == "starting" else known.heard_at
            assert self.now - since >= limit - A_MOMENT, f"{known.process.id} is killed without a reason"
            if known.state in ("ready", "retiring"):
                assert known.active(), "it is killed for its silence, and had nothing to say"
        known.pool.failed_starts += known.state == "starting" and not replaced
        known.state = "ending"
        known.process.dead = True

    def _settle(self, name: str, start: int, count: int) -> list[Input]:
        call = self.calls[name]
        assert not call.finished
        inputs = call.inputs[start : start + count]
        assert count > 0 and len(inputs) == count, "law 1: of inputs that were never accepted"
        for one in inputs:
            assert not one.settled, "law 1: settled twice"
            assert not one.holder, f"law 1: settled while {one.holder} has it"
            one.settled = True
        return inputs

    def _fail(self, command: c.Fail) -> None:
        call = self.calls[command.call]
        allowed = call.pool.spec.retries.max_retries if call.pool.spec.retries else 0
        for one in self._settle(command.call, command.start, command.count):
            match command.kind:  # law 6
                case "cancelled":
                    event = self._event
                    said = isinstance(event, e.FailureReceived) and event.kind == "cancelled"
                    assert call.cancelled or said or one.unwanted
                    assert not call.cancelled or command.reason == call.cancelled
                case "lost":
                    assert isinstance(self._event, e.ContainerExited | e.ContainerRejoined)
                    assert one.yielded or one.blows >= LOST_TOO_OFTEN, "it has attempts left"
                case "start":
                    assert call.pool.ephemeral and call.pool.failed_starts
                case "unreadable":
                    assert one.failures
                case _:
                    assert one.yielded or one.failures + one.blows > allowed

    # -- the laws that hold after every step -----------------------------------------------------------------

    def _judge(self, pool: Declared) -> None:
        outdated = [known for known in pool.containers.values() if known.is_outdated()]
        if isinstance(self._event, e.FunctionDeclared) and self._event.function == pool.name:
            at_once = ("starting", "ready") if self._event.strategy == "recreate" else ("starting",)
            late = [known.process.id for known in outdated if known.state in at_once]
            assert not late, f"{late} were to go at once"
        free = [known for known in pool.containers.values() if known.has_room()] if pool.alive else []
        free = free if free and pool.is_due(self.now, surely=True) else []
        for call in pool.calls:
            if call.finished:
                continue
            assert not (call.inputs and call.cancelled and not call.unsettled()), f"{call.id} is over and not finished"
            for position, one in enumerate(call.inputs):
                if one.settled or one.holder:
                    continue
                assert not call.cancelled, f"{call.id} is cancelled, and input {position} waits"
                assert not one.unwanted, f"input {position} of {call.id} is cancelled, and waits"
                assert one.failures <= one.allowed, f"law 6: input {position} of {call.id} waits, and has no retries"
                assert one.losses < LOST_TOO_OFTEN, f"input {position} of {call.id} was lost too often, and waits"
                assert not one.yielded, f"{call.id} has yielded, and waits to be begun again"
                assert not free or one.not_before > self.now, (
                    f"law 3: input {position} of {call.id} waits while {free[0].process.id} has room"
                )

    def counts(self) -> Counter[str]:
        """Containers by state."""
        return Counter(known.state for known in self.containers.values())
