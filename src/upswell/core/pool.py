"""One function's containers, and their matching with its queue.

Whatever happens changes a few fields and is followed by one `reconcile`, which grants what waits to who has room, takes
back what waits in the wrong place, and starts or drains containers as the autoscaler decides. Sums over containers are
kept by `_recount`, so a step costs what changed and not what exists.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from ..spec import FunctionSpec, Limits, SettingsUpdate
from . import autoscaler, batching, dispatch, watch
from .agenda import NEVER, Agenda
from .autoscaler import ALL_RULES, Decision, Estimates, Load
from .commands import CancelRange, Command, Drain, Forward, Grant, Kill, Start, TakeBack
from .events import ChunksReceived, ContainerExited, FailureReceived, ResultsReceived, UsageSampled
from .model import Call, Container, KilledFor, Range, Span, State
from .placement import Node
from .queue import Queue
from .sampling import Sampling
from .starts import Starts

STRAGGLERS_LOOKED_AT = 16


class Pool:
    """The containers of one function and its queue."""

    def __init__(
        self, function: str, spec: FunctionSpec, ephemeral: bool, limits: Limits, node: Node, new_id: Callable[[], int]
    ) -> None:
        self.function = function
        self.spec = spec
        self.settings = spec.settings
        self.ephemeral = ephemeral
        self.removed = False
        self.queue = Queue(function, limits, spec.retries, batched=spec.concurrency.batch_size > 0)
        self.estimates = Estimates()
        self.policy = ALL_RULES
        self.containers: dict[str, Container] = {}
        self.starting = 0
        self.ready = 0
        self.running = 0  # sum over containers, as is the next
        self.unstarted = 0
        self.decision = Decision(0, "idle", "no input yet")
        self._node = node
        self._new_id = new_id
        # Ready containers that may take work, by how many places are taken; each in the order they came to that number.
        self._buckets: dict[int, dict[str, Container]] = {}
        self._idle: dict[str, Container] = {}  # ready ones that hold nothing, not even a suspended input; longest first
        self._loaded: dict[str, Container] = {}  # those with inputs that are not started
        self._watch: Agenda[Container] = Agenda()  # when to look whether a container is stuck
        self._starts = Starts()
        self._sampling = Sampling(function)
        self._progress_at = 0.0  # the last time an input finished, or the pool began to run
        self._ready_at = 0.0  # the last time a container became ready, or the first of those starting began to

    @property
    def not_started(self) -> int:
        """Inputs that wait: here, for another attempt, or granted and not started."""
        return self.queue.waiting + len(self.queue.delayed) + self.unstarted

    def is_short_of_room(self) -> bool:
        """Whether it would have more containers if the node had room for what they reserve."""
        return not self.removed and self.decision.rule == "resources"

    # -- what happens to containers ------------------------------------------------------------------

    def container_ready(self, container: Container, startup_seconds: float, now: float) -> None:
        if container.state is State.STARTING:
            container.state = State.READY
            container.heard_at = container.idle_since = now
            self.starting -= 1
            self.ready += 1
            self._starts.worked()
            self.estimates.learn_startup(now - container.started_at, container.starting_beside + self.starting)
            self._ready_at = now
            self._recount(container)

    def start_failed(self, container: Container, message: str, out: list[Command]) -> None:
        """User code could not be loaded. Where that never worked, more attempts would only repeat it."""
        self._starts.complaint = message
        if self.ephemeral and not self._starts.have_worked:
            self._fail_pending(f"{self.function} could not start: {message}", out)

    def container_exited(self, container: Container, event: ContainerExited, now: float, out: list[Command]) -> None:
        # Hardly ready, and gone by itself: without a pause the next would follow it as fast.
        died_new = container.id in self._idle and container.is_new(now, autoscaler.BACKOFF_FIRST_SECONDS)
        died_at_once = container.state is State.STARTING or died_new
        self._leave(container)
        del self.containers[container.id]
        self._node.release(self.spec.resources, self.estimates.memory_bytes)
        self._sampling.forget(container.id)
        started = container.started(self.spec.concurrency.max_inputs)
        for held in reversed(list(container.ranges.values())):  # each goes before the others, so they keep their order
            self._lose(container, held, held.id in started, event, now, out)
        if died_at_once:
            self._back_off(container, self._starts.complaint or event.reason, now, out)

    def _back_off(self, container: Container, reason: str, now: float, out: list[Command]) -> None:
        """A start failed: wait before the next one, and at last, where nobody else could serve them, fail who waits."""
        self._starts.failed(container.started_at, now)
        if self.ephemeral and self._starts.are_hopeless() and not self.ready:
            self._fail_pending(f"{self.function} could not start a container: {reason}", out)

    def _lose(
        self, container: Container, held: Range, started: bool, event: ContainerExited, now: float, out: list[Command]
    ) -> None:
        """The container is gone: settle or put back what remains of one of its ranges."""
        del held.call.ranges[held.id]
        held.segment.holders.discard(container.id)
        first, killed_for = held.next, container.killed_for
        stuck = killed_for == "timeout" and not held.suspended and now - held.heard_at >= self.spec.timeout
        innocent = killed_for == "cancelled" or (killed_for == "timeout" and not (stuck or held.suspended))
        if started and not container.blameless and not innocent:
            first = held.stop if held.batch else min(first + 1, held.stop)
        self.queue.put_back(held, first, held.stop, out, event.reason)
        for position in reversed(range(held.next, first)):
            if event.out_of_memory:
                self.queue.fail_attempt(held, position, "memory", event.reason, now, out)
            elif stuck:
                reason = f"it ran longer than timeout={self.spec.timeout:g} s"
                self.queue.fail_attempt(held, position, "timeout", reason, now, out)
            else:
                self.queue.lose_attempt(held, position, event.reason, out)

    def _fail_pending(self, reason: str, out: list[Command]) -> None:
        for call in list(self.queue.calls.values()):
            self.queue.fail_waiting(call, "start", reason, out)

    # -- what happens to inputs ----------------------------------------------------------------------

    def results(self, container: Container, event: ResultsReceived, now: float, out: list[Command]) -> None:
        held = container.ranges.get(event.range)
        if held is None or event.start != held.next or event.start + event.count > held.stop:
            return  # of a range it no longer holds
        container.advance(held, event.count)
        self.estimates.learn_service(event.count, event.seconds)
        if event.seconds > 1e-3:
            busy = max(1, container.running)
            self.estimates.learn_cpu(event.cpu_seconds / event.seconds, max(self.running, busy), self._node.cores)
        self.queue.deliver(held, event.start, event.count, out)
        self._progressed(container, held, now, out)

    def failure(
        self, container: Container, event: FailureReceived, reason: str, now: float, out: list[Command]
    ) -> None:
        if event.fatal:
            container.blameless = True
            self._end(container, now)
        held = container.ranges.get(event.range)
        if held is None or event.position != held.next or event.position >= held.stop:
            return
        container.advance(held, 1)
        if event.kind == "user":
            self.estimates.learn_service(1, event.seconds)
        self.queue.fail_attempt(held, event.position, event.kind, reason, now, out)
        self._progressed(container, held, now, out)

    def chunks(self, container: Container, event: ChunksReceived, out: list[Command]) -> None:
        """A generator has yielded: from the first chunk on, its input can't be tried again."""
        held = container.ranges.get(event.range)
        if held is not None and event.first == held.chunks and not held.call.cancelled:
            held.chunks += event.count
            out.append(Forward(held.call.id, event.first, event.count))

    def returned(self, container: Container, range_id: int, stop: int, now: float, out: list[Command]) -> None:
        held = container.ranges.get(range_id)
        if held is None:
            return
        held.wanted_back = True  # all before `stop` has begun, so there is nothing to ask for again
        stop = max(stop, held.next)
        if stop < held.stop:
            before = held.stop
            container.shorten(held, stop)
            self.queue.put_back(held, stop, before, out)
        self._progressed(container, held, now, out, heard=False)

    def suspended(self, container: Container, range_id: int, suspended: bool, now: float) -> None:
        held = container.ranges.get(range_id)
        if held is not None:
            container.suspend(held, suspended)
            container.heard_at = held.heard_at = now
            self._recount(container)
            self._watch.bring_forward(container, watch.due_at(container, self.spec))

    def _progressed(
        self, container: Container, held: Range, now: float, out: list[Command], *, heard: bool = True
    ) -> None:
        if heard:
            container.heard_at = held.heard_at = self._progress_at = now
            container.proven = True
        if held.next >= held.stop:
            container.release(held)
            del held.call.ranges[held.id]
            if not container.ranges:
                container.idle_since = now
                if self.spec.single_use and container.state is State.READY:
                    self._drain(container, "single_use_containers: it has run its input", now, out)
        self._recount(container)

    def cancel(self, call: Call, running: bool, terminate: bool, out: list[Command]) -> None:
        """End the call: what waits now, what containers hold as soon as they answer."""
        self.queue.cancel(call, out)
        for held in call.ranges.values():
            if terminate:
                self._kill(held.container, "cancelled", "its call was cancelled", out)
            elif running:
                held.wanted_back = True
                out.append(CancelRange(held.container.id, held.id))
            elif not held.wanted_back:
                held.wanted_back = True
                out.append(TakeBack(held.container.id, held.id))

    def remove(self, now: float, out: list[Command]) -> None:
        """The function is gone: cancel its calls, end its containers."""
        self.removed = True
        for call in list(self.queue.calls.values()):
            self.queue.cancel(call, out)
        for container in list(self.containers.values()):
            if container.state is State.READY:
                self._drain(container, "its app is stopped", now, out)
            elif container.state is State.STARTING:
                self._kill(container, "cancelled", "its app is stopped", out)

    # -- sampling ------------------------------------------------------------------------------------

    def sampled(self, event: UsageSampled, now: float) -> None:
        """Learn what running inputs use, before any of them has ended."""
        self._node.memory_available = event.memory_available
        self._sampling.learn(event, self.containers, self.running, self._node.cores, self.estimates, now)

    # -- reconcile -----------------------------------------------------------------------------------

    def reconcile(self, now: float, out: list[Command]) -> float:
        """Bring work and containers together. Returns the moment at which to look again without an event."""
        if self.removed:
            return self._watch_over(now, out)
        self.queue.release_delayed(now)
        self._shed(now, out)
        concurrency = self.spec.concurrency
        self._grant(concurrency.target_inputs, now, out)
        look_again = self._scale(now, out)
        if self.queue.waiting:
            # Others start, or none can or should be: what waits may go beyond the target.
            self._grant(concurrency.max_inputs, now, out)
            ahead = concurrency.max_inputs == 1 and not concurrency.batch_size and not self.spec.single_use
            if ahead and not self._is_above_maximum():
                self._grant_ahead(now, out)
        look_again = min(look_again, self._take_back(now, out), self._watch_over(now, out))
        if self.running and self.not_started:
            look_again = min(look_again, self._sampling.ask(self.containers, now, out))
        self.queue.invite(self.not_started, out)
        if self.queue.delayed:
            look_again = min(look_again, self.queue.delayed[0][0])
        if concurrency.batch_size and self.queue.waiting and self._room():
            look_again = min(look_again, self._batch_due_at())
        return look_again

    def _room(self) -> int:
        """Places that are free."""
        places = self.spec.concurrency.max_inputs
        return sum(len(bucket) * (places - taken) for taken, bucket in self._buckets.items() if taken < places)

    def _grant(self, places: int, now: float, out: list[Command]) -> None:
        """Grant what waits to containers with fewer than `places` taken: the fullest first, then the latest idle."""
        if not self.queue.turns:
            return
        for taken in sorted((taken for taken in self._buckets if taken < places), reverse=True):
            bucket = self._buckets.get(taken)
            while bucket and self._is_due(now):
                container = next(reversed(bucket.values()))
                # A container filled here moves up a bucket and is met again only by a caller with more places.
                while self._is_due(now) and 0 <= container.bucket < places:
                    self._grant_next(container, now, out)

    def _is_due(self, now: float) -> bool:
        """Whether something may be granted: an input waits, or enough of them do for a batch."""
        if not self.queue.turns:
            return False
        return not self.spec.concurrency.batch_size or self._batch_due_at() <= now

    def _batch_due_at(self) -> float:
        return batching.due_at(self.queue.waiting, self.queue.oldest_since(), self.spec.concurrency)

    def _grant_ahead(self, now: float, out: list[Command]) -> None:
        """Nobody is idle: let the busy ones with little left have their next range early."""
        service = self.estimates.service_seconds
        if service is None or service > dispatch.PREFETCH_LONGEST_SECONDS:
            return
        busy = self._buckets.get(1, {})
        for container in list(islice(busy.values(), STRAGGLERS_LOOKED_AT)):
            silent = now - container.heard_at
            while self.queue.turns and dispatch.may_prefetch(
                container.running + container.unstarted, len(container.ranges), service
            ):
                if dispatch.is_straggler(silent, service):
                    break
                self._grant_next(container, now, out)

    def _grant_next(self, container: Container, now: float, out: list[Command]) -> None:
        """Grant the container the next range, or all ranges of the next batch."""
        concurrency = self.spec.concurrency
        if not container.running:
            container.heard_at = now
        if not self.running:
            self._progress_at = now
        if concurrency.batch_size:
            batch, left = self._new_id(), min(concurrency.batch_size, self.queue.waiting)
            while left:
                span = self.queue.take(left)
                left -= len(span)
                self._hand(container, span, now, out, batch, left)
        else:
            places = self.ready * concurrency.target_inputs
            estimates = self.estimates
            size = dispatch.range_size(self.queue.waiting, places, estimates.service_seconds, estimates.finished)
            self._hand(container, self.queue.take(1 if self.spec.single_use else size), now, out)
        self._recount(container)
        self._watch.bring_forward(container, watch.due_at(container, self.spec))

    def _hand(
        self, container: Container, span: Span, now: float, out: list[Command], batch: int = 0, left: int = 0
    ) -> None:
        call, segment = span.call, span.segment
        held = Range(self._new_id(), container, call, segment, span.start, span.stop, span.start, now, batch)
        call.ranges[held.id] = held
        container.hold(held)
        segment.holders.add(container.id)
        first, count = segment.first, segment.count
        out.append(Grant(container.id, held.id, call.id, first, count, held.start, held.stop, batch, left))

    def _take_back(self, now: float, out: list[Command]) -> float:
        """While there is room and nothing waits here, fetch what waits behind a running input."""
        if self.queue.waiting or not self._loaded:
            return NEVER
        service, wanted, look_again = self.estimates.service_seconds, self._room(), NEVER
        for container in islice(self._loaded.values(), STRAGGLERS_LOOKED_AT if wanted else 0):
            if (held := container.to_take_back(self.spec.concurrency.max_inputs)) is None:
                continue
            # With one place, what waits is behind the input of another range.
            heard_at = container.heard_at if self.spec.concurrency.max_inputs == 1 else held.heard_at
            if not dispatch.worth_taking_back(container.unstarted, now - heard_at, service):
                look_again = min(look_again, heard_at + 1.01 * dispatch.STRAGGLER_SECONDS)
            elif wanted:
                held.wanted_back = True
                wanted -= 1
                out.append(TakeBack(container.id, held.id))
        return look_again

    def _scale(self, now: float, out: list[Command]) -> float:
        """Start what is missing; drain what is surplus and has idled long enough."""
        self.decision = autoscaler.decide(self._load(now), self.estimates, self.settings, self.policy)
        present = self.ready + self.starting
        missing = self.decision.containers - present
        if missing > 0:
            if self._starts.failures:
                if now < self._starts.blocked_until:
                    return self._starts.blocked_until
                missing = int(not self.starting)
            for _ in range(min(missing, autoscaler.STARTS_AT_ONCE - self.starting)):
                self._start(now, out)
            return NEVER
        while missing < 0 and self._idle:
            longest_idle = next(iter(self._idle.values()))
            last = self.ready + self.starting == 1
            patience = autoscaler.patience_seconds(self.estimates, self.settings, last, self.policy)
            if longest_idle.idle_since + patience > now:
                return longest_idle.idle_since + patience
            self._drain(longest_idle, f"idle for {patience:g} s: {self.decision.words}", now, out)
            missing += 1
        return NEVER

    def _is_above_maximum(self) -> bool:
        return self.settings.ceiling is not None and self.ready + self.starting > self.settings.ceiling

    def _shed(self, now: float, out: list[Command]) -> None:
        """Where max_containers was lowered, drain who is idle before it gets work again."""
        while self._idle and self._is_above_maximum():
            longest_idle = next(iter(self._idle.values()))
            self._drain(longest_idle, f"max_containers is {self.settings.ceiling}", now, out)

    def _load(self, now: float) -> Load:
        resources, present = self.spec.resources, self.ready + self.starting
        room = self._node.room(resources)
        memory = self._node.memory_available - self._sampling.starts * self.estimates.memory_bytes
        return Load(
            waiting=self.queue.waiting + self.unstarted,
            running=self.running,
            ready=self.ready,
            starting=self.starting,
            running_seconds=now - self._progress_at if self.running else 0.0,
            starting_seconds=now - self._ready_at if self.starting else 0.0,
            calls_per_second=self.estimates.calls_per_second(now),
            target_inputs=self.spec.concurrency.target,
            cores=self._node.cores,
            memory_available=memory,
            node_room=None if room is None else present + room,
        )

    def _start(self, now: float, out: list[Command]) -> None:
        container = Container(f"co-{self._new_id()}", State.STARTING, now, now)
        self.containers[container.id] = container
        if not self.starting:
            self._ready_at = now
        container.starting_beside = self.starting
        self.starting += 1
        self._sampling.starts += 1
        self._node.reserve(self.spec.resources)
        self._watch.put(container, watch.due_at(container, self.spec))
        out.append(Start(container.id, self.function))

    # -- the ends of containers ------------------------------------------------------------------------

    def _drain(self, container: Container, reason: str, now: float, out: list[Command]) -> None:
        self._end(container, now)
        out.append(Drain(container.id, reason))

    def _end(self, container: Container, now: float) -> None:
        """The container gets no more work, and its exit is on the way, after its exit hooks unless it is killed."""
        self._leave(container)
        container.state, container.heard_at = State.ENDING, now
        self._watch.put(container, watch.due_at(container, self.spec))

    def _kill(self, container: Container, why: KilledFor, reason: str, out: list[Command]) -> None:
        if not container.killed_for:
            container.killed_for = why
            self._end(container, container.heard_at)
            out.append(Kill(container.id, reason))

    def _leave(self, container: Container) -> None:
        """Take the container out of every count and bucket; its state is still the old one."""
        if container.state is State.STARTING:
            self.starting -= 1
        elif container.state is State.READY:
            self.ready -= 1
        self._place(container, -1)
        self._watch.put(container, NEVER)
        self._idle.pop(container.id, None)
        self.running -= container.running
        self.unstarted -= container.unstarted
        container.running = container.unstarted = 0
        self._loaded.pop(container.id, None)

    def _watch_over(self, now: float, out: list[Command]) -> float:
        """Kill containers that take too long to start or to exit, or are silent for longer than any input may take."""
        while first := self._watch.first():
            moment, container = first
            due = watch.due_at(container, self.spec)
            if moment == due > now:
                return due
            self._watch.put(container, due if due > now else NEVER)
            if due <= now:
                why, late = watch.exceeded(container, self.spec)
                self._kill(container, why, late, out)
                if why == "start":
                    self._back_off(container, late, now, out)
        return NEVER

    def _recount(self, container: Container) -> None:
        """Renew what the container adds to the pool's sums and where it stands in the buckets."""
        if container.state is not State.READY:
            return
        most = self.spec.concurrency.max_inputs
        taken = min(len(container.places), most)
        running = container.inputs if self.spec.concurrency.batch_size else taken
        unstarted = container.inputs - running
        self.running += running - container.running
        self.unstarted += unstarted - container.unstarted
        container.running, container.unstarted = running, unstarted
        if unstarted:
            self._loaded[container.id] = container
        else:
            self._loaded.pop(container.id, None)
        if container.ranges:
            self._idle.pop(container.id, None)
        else:
            self._idle.setdefault(container.id, container)
        self._place(container, most if self.spec.single_use and container.ranges else taken)

    def _place(self, container: Container, bucket: int) -> None:
        if container.bucket != bucket:
            if container.bucket >= 0:
                del self._buckets[container.bucket][container.id]
                if not self._buckets[container.bucket]:
                    del self._buckets[container.bucket]
            if bucket >= 0:
                self._buckets.setdefault(bucket, {})[container.id] = container
            container.bucket = bucket

    def apply(self, update: SettingsUpdate) -> None:
        self.settings = self.settings.merge(update)
