"""One function's queue and containers, and what becomes of them.

Whatever happens changes a few fields and is followed by `grant`, which gives what waits to who has room, and sooner or
later by one `reconcile`, which takes back what waits in the wrong place, and starts or drains containers as the
autoscaler decides.
"""

from __future__ import annotations

from collections.abc import Callable

from ..spec import Limits, label_of
from . import autoscaler, dispatch, watch
from .autoscaler import Estimates, Policy
from .commands import CancelRange, Command, Complain, Deliver, Drain, Forward, Kill, TakeBack
from .containers import Containers
from .events import (
    ChunksReceived,
    ContainerExited,
    ContainerRejoined,
    FailureReceived,
    FunctionDeclared,
    HeldRange,
    ResultsReceived,
    UsageSampled,
)
from .matching import Matching
from .model import Call, Container, Range, State
from .placement import Node
from .queue import Queue
from .sampling import Sampling
from .scaling import Scaling


class Pool:
    """The containers of one function and its queue."""

    def __init__(self, function: str, limits: Limits, node: Node, policy: Policy, new_id: Callable[[], int]) -> None:
        self.function = function
        self.label = label_of(function)
        self.ephemeral = False
        self.removed = False
        self.losses_are_told = False  # that a container died and what it ran is tried again
        self.queue = Queue(function, limits)
        self.estimates = Estimates()
        self.containers = Containers()
        self._node = node
        self._sampling = Sampling(function)
        self._matching = Matching(self.queue, self.containers, self.estimates, new_id)
        self.scaling = Scaling(
            function, self.queue, self.containers, self.estimates, self._sampling, node, policy, new_id
        )

    @property
    def not_started(self) -> int:
        """Inputs that wait: here, for another attempt, or granted and not started."""
        return self.queue.waiting + len(self.queue.delayed) + self.containers.unstarted

    def is_short_of_room(self) -> bool:
        """Whether it would have more containers if the nodes had room for them."""
        return not self.removed and self.scaling.is_short_of_room

    # -- what happens to the function ------------------------------------------------------------------

    def declare(self, event: FunctionDeclared, now: float, out: list[Command]) -> None:
        """Go on under another declaration: what waits and runs, and what was learned, stays."""
        self.ephemeral = event.ephemeral
        self.queue.declare(event.spec)
        self._matching.spec = event.spec
        self.scaling.declare(event, now, out)

    def remove(self, reason: str, now: float, out: list[Command]) -> None:
        """The function is gone: cancel its calls, end its containers."""
        self.removed = True
        self.queue.invite_all(out)
        for call in list(self.queue.calls.values()):
            self.queue.cancel(call, out, reason)
        for container in list(self.containers.by_id.values()):
            if container.state is State.STARTING:
                self.containers.kill(container, "cancelled", reason, out)
            elif container.state is not State.ENDING:
                self.containers.drain(container, reason, now, out)

    # -- what happens to containers ------------------------------------------------------------------

    def container_ready(self, container: Container, now: float) -> None:
        if container.state is State.STARTING:
            self.containers.began(container, now)
            self.scaling.starts.worked()
            others = container.starting_beside + self.containers.starting
            self.estimates.learn_startup(now - container.started_at, others)

    def rejoined(self, event: ContainerRejoined, now: float, out: list[Command]) -> None:
        """A container is there anew, and says what it holds: what of that is still to be done is its own again."""
        container = self.containers.by_id.get(event.container)
        if container is None:
            container = self._joined(event, now)
        elif container.state is State.STARTING:
            self.container_ready(container, now)
        elif container.state is State.ENDING:
            reason = "it was told so before"
            out.append(Kill(container.id, reason) if container.killed_for else Drain(container.id, reason))
            return
        told = {one.range: one for one in event.ranges}
        for held in reversed(list(container.ranges.values())):
            self._compare(container, held, told.pop(held.id, None), out)
        for one in event.ranges:
            if one.range in told and not self._take_again(container, one, now):
                out.append(CancelRange(container.id, one.range))
        container.heard_at = container.idle_since = now
        self.containers.recount(container)
        self.containers.watch(container)
        if container.state is State.RETIRING and not container.ranges:
            self.containers.drain(container, container.retired_for, now, out)
        elif container.state is State.RETIRING:
            self.containers.ask_back(container, out)

    def _joined(self, event: ContainerRejoined, now: float) -> Container:
        spec = self._node.given(event.spec or self.scaling.spec)
        container = Container(event.container, spec, State.READY, now, now, event.version)
        self.containers.join(container)
        self._node.reserve(spec.resources)
        if event.version == self.scaling.version:
            self.scaling.starts.worked()
        return container

    def _compare(self, container: Container, held: Range, told: HeldRange | None, out: list[Command]) -> None:
        """Bring a range to what its container has told of it (`None`: it has no such range).

        Inputs whose results were lost on the way wait again.
        """
        before, stop, until = held.next, held.stop, held.next
        if told is None:  # the grant never reached it, or its last results never reached us
            until = stop
        elif told.chunks > held.chunks:  # what its generator has yielded is lost
            until = stop
            out.append(CancelRange(container.id, held.id))
        else:
            held.wanted_back = held.returned = held.is_ending = False
            container.suspend(held, told.suspended)
            until = min(max(before, told.next), stop)
            if told.stop < stop:
                container.shorten(held, max(until, told.stop))
                self.queue.put_back(held, held.stop, stop, out)
        container.advance(held, until - before)
        if held.next >= held.stop:
            container.release(held)
            del held.call.ranges[held.id]
        elif held.call.cancelled:
            held.wanted_back = True
            out.append(CancelRange(container.id, held.id))
        else:
            self._end_unwanted(held, out)
        self.queue.put_back(held, before, until, out, "its results were lost with its connection")

    def _take_again(self, container: Container, told: HeldRange, now: float) -> bool:
        """Let the container have the range again, if all of it that is not settled has been waiting since."""
        call = self.queue.calls.get(told.call)
        segment = call.segments.get(told.first) if call else None
        if call is None or segment is None:
            return False
        first = self.queue.reclaim(call, segment, told.next, told.stop)
        if first is None:
            return False
        held = Range(told.range, container, call, segment, told.next, told.stop, first, now, told.batch, told.chunks)
        call.ranges[held.id] = held
        container.hold(held)
        container.suspend(held, told.suspended)
        segment.holders.add(container.id)
        return True

    def start_failed(self, container: Container, message: str, out: list[Command]) -> None:
        """User code could not be loaded. Where that never worked, more attempts would only repeat it."""
        if container.version != self.scaling.version:
            return
        self.scaling.starts.complaint = message
        if self.ephemeral and not self.scaling.starts.have_worked:
            self._fail_pending(f"{self.label} could not start: {message}", out)

    def container_exited(self, container: Container, event: ContainerExited, now: float, out: list[Command]) -> None:
        # It was hardly ready, and died by itself: without a pause the next would go the same way at once.
        died_new = container.id in self.containers.idle and container.is_new(now, autoscaler.BACKOFF_FIRST_SECONDS)
        died_at_once = container.state is State.STARTING or died_new
        self.containers.remove(container)
        self._node.release(container.spec.resources, self.estimates.memory_bytes)
        self._sampling.forget(container.id)
        started = container.started()
        again = False
        for held in reversed(list(container.ranges.values())):  # each goes before the others, so they keep their order
            again |= self._lose(container, held, held.id in started, event, now, out)
        if again and not self.losses_are_told:
            self.losses_are_told = True
            out.append(
                Complain(
                    self.function, f"a container of {self.label} died, and what it ran is tried again: {event.reason}"
                )
            )
        if died_at_once:
            self._back_off(container, event.reason, now, out)

    def _back_off(self, container: Container, reason: str, now: float, out: list[Command]) -> None:
        """A start failed, and the next has to wait. Where several have failed in a row and no container is ready, calls
        of an ephemeral app fail; those of a deployed one, whose next version may serve them, wait on, which is said.
        """
        if not self.scaling.failed(container, reason, now):
            return
        starts = self.scaling.starts
        if not starts.are_hopeless() or self.containers.ready:
            return
        if self.ephemeral:
            self._fail_pending(f"{self.label} could not start a container: {starts.trouble}", out)
        elif not starts.are_told:
            starts.are_told = True
            out.append(
                Complain(self.function, f"no container of {self.label} can start, and its calls wait: {starts.trouble}")
            )

    def _lose(
        self, container: Container, held: Range, started: bool, event: ContainerExited, now: float, out: list[Command]
    ) -> bool:
        """The container is gone: settle or put back what remains of one of its ranges. Returns whether its death ended
        an attempt at an input that is tried again.
        """
        again = False
        del held.call.ranges[held.id]
        held.segment.holders.discard(container.id)
        first, killed_for, timeout = held.next, container.killed_for, container.spec.timeout
        stuck = killed_for == "timeout" and not held.suspended and now - held.heard_at >= timeout
        innocent = killed_for == "cancelled" or (killed_for == "timeout" and not (stuck or held.suspended))
        if started and not container.blameless and not innocent:
            first = held.stop if held.batch else min(first + 1, held.stop)
        self.queue.put_back(held, first, held.stop, out, event.reason)
        for position in reversed(range(held.next, first)):
            if event.out_of_memory:
                again |= self.queue.fail_attempt(held, position, "memory", event.reason, now, out)
            elif stuck:
                reason = f"it ran longer than timeout={timeout:g} s"
                self.queue.fail_attempt(held, position, "timeout", reason, now, out)
            else:
                again |= self.queue.lose_attempt(held, position, event.reason, out)
        return again

    def _fail_pending(self, reason: str, out: list[Command]) -> None:
        for call in list(self.queue.calls.values()):
            self.queue.fail_waiting(call, "start", reason, out)

    def make_way(self, call: Call, out: list[Command]) -> None:
        """The call is new, and takes turns with others from now on."""
        if not self.removed:
            self._matching.make_way(call, out)

    # -- what happens to inputs ----------------------------------------------------------------------

    def results(self, container: Container, event: ResultsReceived, now: float, out: list[Command]) -> Range | None:
        """Outputs came: where they are the next of their range they are delivered. The range is returned, and `account`
        must follow; `None` where they are not.
        """
        held = container.ranges.get(event.range)
        if held is not None and event.start < held.next < event.start + event.count:
            # Sent again, and settled in part meanwhile: nobody can take results apart.
            self._give_up(container, held, now, out)
            return None
        if held is None or event.start != held.next or event.start + event.count > held.stop:
            return None  # of a range it no longer holds, or sent again
        out.append(Deliver(held.call.id, event.start, event.count))
        return held

    def account(
        self, container: Container, held: Range, event: ResultsReceived, now: float, out: list[Command]
    ) -> None:
        """Keep the books on outputs that were delivered."""
        container.advance(held, event.count)
        self.estimates.learn_service(event.count, event.seconds)
        if event.seconds > 1e-3:
            busy = max(1, container.running)
            share, running = event.cpu_seconds / event.seconds, max(self.containers.running, busy)
            self.estimates.learn_cpu(share, running, self._node.cores, event.seconds)
        self.queue.delivered(held, event.start, event.count, out)
        self._progressed(container, held, now, out)

    def _give_up(self, container: Container, held: Range, now: float, out: list[Command]) -> None:
        """What is not done of the range waits again, and the container drops it."""
        before = held.stop
        container.shorten(held, held.next)
        self.queue.put_back(held, held.next, before, out)
        out.append(CancelRange(container.id, held.id))
        self._progressed(container, held, now, out, heard=False)

    def failure(self, container: Container, event: FailureReceived, now: float, out: list[Command]) -> None:
        if event.fatal:
            container.blameless = True
            self.containers.end(container, now)
        held = container.ranges.get(event.range)
        if held is None or event.position != held.next or event.position >= held.stop:
            return
        container.advance(held, 1)
        if event.kind == "user":
            self.estimates.learn_service(1, event.seconds)
        self.queue.fail_attempt(held, event.position, event.kind, event.kind, now, out)
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
        held.wanted_back = held.returned = True  # all before `stop` has begun: there is nothing to ask for again
        stop = max(stop, held.next)
        if stop < held.stop:
            before = held.stop
            container.shorten(held, stop)
            self.queue.put_back(held, stop, before, out)
        self._end_unwanted(held, out)
        self._progressed(container, held, now, out, heard=False)

    def suspended(self, container: Container, range_id: int, suspended: bool, now: float, out: list[Command]) -> None:
        held = container.ranges.get(range_id)
        if held is not None:
            container.suspend(held, suspended)
            container.heard_at = held.heard_at = now
            self.containers.recount(container)
            self.containers.watch(container)
            if container.state is State.RETIRING:
                self.containers.ask_back(container, out)

    def _progressed(
        self, container: Container, held: Range, now: float, out: list[Command], *, heard: bool = True
    ) -> None:
        if heard:
            container.heard_at = held.heard_at = self.containers.progress_at = now
            container.proven = True
        if held.next >= held.stop:
            container.release(held)
            del held.call.ranges[held.id]
            if not container.ranges:
                container.idle_since = now
                self.containers.watch(container)
                if container.state is State.RETIRING:
                    self.containers.drain(container, container.retired_for, now, out)
                elif container.spec.single_use and container.state is State.READY:
                    self.containers.drain(container, "single_use_containers: it has run its input", now, out)
        self.containers.recount(container)

    def cancel(self, call: Call, running: bool, terminate: bool, out: list[Command]) -> None:
        """End the call: what waits now, what containers hold as soon as they answer."""
        self.queue.cancel(call, out)
        for held in call.ranges.values():
            if terminate:
                self.containers.kill(held.container, "cancelled", "its call was cancelled", out)
            elif running:
                held.wanted_back = True
                out.append(CancelRange(held.container.id, held.id))
            elif not held.wanted_back:
                held.wanted_back = True
                out.append(TakeBack(held.container.id, held.id))

    def cancel_input(self, call: Call, position: int, terminate: bool, out: list[Command]) -> None:
        """End one input of the call: at once where it waits, and as soon as its container answers where it has it."""
        self.queue.cancel_input(call, position, terminate, out)
        for held in call.ranges.values():
            if held.next <= position < held.stop:
                self._end_unwanted(held, out)

    def _end_unwanted(self, held: Range, out: list[Command]) -> None:
        """End cancelled inputs of the range, as far as that is possible without ending others.

        A container can be told to end a range only as a whole. So its tail is asked back first; a cancelled input that
        comes back fails, and when the last that is left is cancelled, so is the range. A batch can't be taken apart.
        """
        unwanted = {place: dies for place, dies in held.call.unwanted.items() if held.next <= place < held.stop}
        alone = len(unwanted) == len(held) or (held.returned and not held.batch and held.stop - 1 in unwanted)
        if unwanted and (alone or held.batch) and any(unwanted.values()):
            self.containers.kill(held.container, "cancelled", "an input that it ran was cancelled", out)
        elif unwanted and alone:
            if not held.is_ending:  # it answers with what has not begun, and it may be long until what has is ended
                held.is_ending = True
                out.append(CancelRange(held.container.id, held.id))
        elif unwanted and not (held.batch or held.wanted_back):
            held.wanted_back = True
            out.append(TakeBack(held.container.id, held.id))

    def stop(self, container: Container, out: list[Command]) -> None:
        """End the container because somebody said so: none of its inputs is to blame."""
        self.containers.kill(container, "cancelled", "it was stopped", out)

    # -- sampling ------------------------------------------------------------------------------------

    def sampled(self, event: UsageSampled, now: float) -> None:
        """Learn what running inputs use, before any of them has ended."""
        self._node.measured(event.cores, event.memory_available)
        containers = self.containers
        self._sampling.learn(event, containers.by_id, containers.running, self._node.cores, self.estimates, now)

    # -- reconcile -----------------------------------------------------------------------------------

    def grant(self, now: float, out: list[Command]) -> None:
        """Who has room gets what waits."""
        if not self.removed:
            self.queue.release_delayed(now)
            self.scaling.shed(now, out)
            self._matching.grant(now, out)

    def is_pressing(self) -> bool:
        """Whether `reconcile` should follow at once: an input waits for it, or there may be something to fetch."""
        queue, containers = self.queue, self.containers
        return (
            queue.waiting > 0
            or bool(queue.delayed or containers.outdated)
            or queue.has_refused
            or dispatch.worth_taking_back(containers.unstarted, 0.0, self.estimates.service_seconds)
        )

    def reconcile(self, now: float, out: list[Command]) -> float:
        """Bring work and containers together, where what can be granted was. Returns the moment at which to look again
        without an event.
        """
        if self.removed:
            return self._watch_over(now, out)
        queue, matching = self.queue, self._matching
        moments = [self.scaling.scale(now, out), self.scaling.reconsider_at, self.scaling.complain(now, out)]
        if queue.waiting:
            # Others start, or none can or should be: what waits may go beyond the target.
            waited = queue.waiting
            matching.grant(now, out, beyond_target=True)
            if queue.waiting < waited:
                moments.append(now)  # what was decided was about inputs that run now
            if not self.scaling.is_above_maximum():
                matching.grant_ahead(now, out)
        moments += (matching.take_back(now, out), self._watch_over(now, out))
        if self.containers.running and self.not_started:
            moments.append(self._sampling.ask(self.containers.by_id, now, out))
        else:
            self._sampling.rest()
        if queue.has_refused:
            queue.invite(self.not_started, out)
        if queue.delayed:
            moments.append(queue.delayed[0][0])
        if queue.waiting:
            moments.append(matching.batch_due_at())
        return min(moments)

    def _watch_over(self, now: float, out: list[Command]) -> float:
        """Kill containers that take too long to start or to exit, or are silent for longer than any input may take."""
        while container := self.containers.overdue(now):
            why, late = watch.exceeded(container)
            self.containers.kill(container, why, late, out)
            if why == "start":
                self._back_off(container, late, now, out)
        return self.containers.due_at()
