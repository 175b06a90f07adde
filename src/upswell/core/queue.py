"""The inputs of one function: who waits, whose turn it is, what becomes of an input that fails, and the limits.

Every accepted input is in one place until it is settled: in its call's `waiting`, in `delayed`, or in a range that a
container holds. It is settled once, by `delivered` or `_fail`. Containers are none of this module's business.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from ..spec import MAX_ATTEMPTS_LOST, FunctionSpec, Limits, Retries, label_of
from .commands import (
    Accept,
    Command,
    Fail,
    FailureKind,
    FinishCall,
    ForgetSegment,
    Invite,
    Refuse,
    RememberAttempts,
)
from .events import InputsSubmitted
from .model import Call, Range, Segment, Span
from .snapshot import SavedCall, rebuild

CANCELLED = "the call was cancelled"


class Queue:
    """The waiting inputs of one function's calls, which take turns."""

    def __init__(self, function: str, limits: Limits) -> None:
        self._label = label_of(function)
        self.limits = limits
        self.retries: Retries | None = None
        self.calls: dict[str, Call] = {}
        self.turns: deque[Call] = deque()  # exactly the calls whose `waiting` is not empty, the next to be served first
        self.waiting = 0  # inputs in the `waiting` of all calls
        self.delayed: list[tuple[float, int, Span]] = []  # heap of inputs to be tried again at a moment
        self.unsettled = {"attached": 0, "spawned": 0}  # inputs accepted and not settled
        # Calls that offer a segment again when invited, in order, and how many inputs it has.
        self.refused: dict[str, dict[str, int]] = {"attached": {}, "spawned": {}}
        self.succeeded = 0
        self.failed = 0
        self._tick = 0  # breaks ties in `delayed`
        # For batches: what waits, the oldest first. A span that was taken since is empty and leaves when it is met.
        self._arrivals: deque[Span] | None = None

    def declare(self, spec: FunctionSpec) -> None:
        """Go by this declaration from now on."""
        self.retries = spec.retries
        if not spec.concurrency.batch_size:
            self._arrivals = None
        elif self._arrivals is None:
            waiting = (span for call in self.turns for span in call.waiting)
            self._arrivals = deque(sorted(waiting, key=lambda span: span.since))

    @property
    def has_refused(self) -> bool:
        """Whether a call waits to be invited."""
        return any(self.refused.values())

    # -- in ----------------------------------------------------------------------------------------

    def admit(self, event: InputsSubmitted, not_started: int, now: float, out: list[Command]) -> Call | None:
        """Take the segment whole, or refuse it whole: for a limit only what was not accepted before. `not_started`
        counts all inputs of the function that wait.
        """
        call = self.calls.get(event.call)
        if (call is None and event.first) or (call is not None and (call.cancelled or event.first != call.submitted)):
            out.append(Refuse(event.call, event.first, event.count, "the call is cancelled or unknown", missing=True))
            return None
        family = _family(event.kind)
        reason = "" if event.accepted else self._over_limit(family, event.count, not_started)
        if reason:
            out.append(Refuse(event.call, event.first, event.count, reason))
            if event.kind in ("map", "spawn"):
                self.refused[family][event.call] = event.count
            return None
        if call is None:
            call = self.calls[event.call] = Call(event.call, event.function, event.kind, event.owner)
        segment = call.segments[event.first] = Segment(event.first, event.count, event.count)
        call.submitted += event.count
        call.unsettled += event.count
        self.unsettled[family] += event.count
        if event.last:
            call.total = call.submitted
        self.put(Span(call, segment, event.first, event.first + event.count, now))
        out.append(Accept(event.call, event.first, event.count))
        return call

    def _over_limit(self, family: str, count: int, not_started: int) -> str:
        """Which limit `count` more inputs would exceed, or "". What is larger than a limit may come alone."""
        limits, unsettled = self.limits, self.unsettled[family]
        if not unsettled:
            return ""
        pending = min(unsettled, not_started)
        if family == "spawned":
            most = limits.spawned_pending
            if unsettled + count > max(most, count):
                return f"{self._label} has {unsettled:,} spawned inputs, and its limit is {most:,}: wait for some"
        elif unsettled + count > max(limits.total, count):
            return f"{self._label} has {unsettled:,} inputs, its limit is {limits.total:,}: wait for some, or use .map"
        elif pending + count > max(limits.pending, count):
            return (
                f"{self._label} has {pending:,} inputs pending, and its limit is {limits.pending:,}: "
                "raise max_containers, wait for some, or use .map or .spawn"
            )
        return ""

    def restore(self, saved: SavedCall, out: list[Command]) -> Call:
        """Go on with a call that was accepted before; no limit refuses it."""
        call, spans = rebuild(saved)
        assert call.id not in self.calls, f"{call.id} is here already"
        self.calls[call.id] = call
        self.unsettled[_family(call.kind)] += call.unsettled
        for span in spans:
            self.put(span)
        for segment in list(call.segments.values()):
            self._forget_if_settled(call, segment, out)
        if saved.cancelled:
            self.cancel(call, out)
        for position in saved.cancelled_inputs:
            self.cancel_input(call, position, False, out)
        self._finish_if_done(call, out)
        return call

    def put(self, span: Span, *, front: bool = False) -> None:
        """Let the span wait for its call's turn; `front` for inputs that waited before."""
        call = span.call
        if not call.waiting:
            self.turns.append(call)
        (call.waiting.appendleft if front else call.waiting.append)(span)
        self.waiting += span.stop - span.start
        if self._arrivals is not None:
            (self._arrivals.appendleft if front else self._arrivals.append)(span)

    def end(self, call: Call, total: int, out: list[Command]) -> None:
        """No more inputs of the call come."""
        call.total = total
        self._finish_if_done(call, out)

    # -- out ---------------------------------------------------------------------------------------

    def oldest_since(self) -> float:
        """Of a queue for batches: since when the oldest input waits; 0 for one that has been in a container before."""
        arrivals = self._arrivals
        assert arrivals is not None and self.waiting
        while not len(arrivals[0]):
            arrivals.popleft()
        return arrivals[0].since

    def take(self, size: int) -> Span:
        """The next inputs in turn, at most `size`, all of one segment. The caller must give them to a container."""
        call = self.turns.popleft()
        span = call.waiting[0]
        start, stop = span.start, min(span.stop, span.start + size)
        span.start = stop
        if stop == span.stop:
            call.waiting.popleft()
        if call.waiting:
            self.turns.append(call)
        self.waiting -= stop - start
        return Span(call, span.segment, start, stop)

    def reclaim(self, call: Call, segment: Segment, start: int, stop: int) -> int | None:
        """Take the inputs `start .. stop` out of the queue, which a container that has re-joined has had all along.

        Returns the first of them that is not settled, if all from there on have been waiting; otherwise nothing is
        taken, and it is `None`.
        """
        spans = [span for span in call.waiting if span.segment is segment and span.start < stop and span.stop > start]
        spans.sort(key=lambda span: span.start)
        first = position = max(start, spans[0].start) if spans else stop
        for span in spans:
            if max(span.start, first) != position:
                return None
            position = min(span.stop, stop)
        if not spans or position != stop or self._is_elsewhere(call, segment, start, first):
            return None
        for span in spans:
            if span.stop > stop:
                rest = Span(call, segment, stop, span.stop, span.since)
                call.waiting.insert(call.waiting.index(span) + 1, rest)
                if self._arrivals is not None:
                    self._arrivals.insert(self._arrivals.index(span) + 1, rest)
            span.stop = max(span.start, min(span.stop, first))
            if not len(span):
                call.waiting.remove(span)
        if not call.waiting:
            self.turns.remove(call)
        self.waiting -= stop - first
        return first

    def _is_elsewhere(self, call: Call, segment: Segment, start: int, stop: int) -> bool:
        """Whether one of these inputs is neither waiting nor settled, but in a container or delayed."""
        held = any(one.segment is segment and one.next < stop and one.stop > start for one in call.ranges.values())
        return held or any(entry[2].call is call and start <= entry[2].start < stop for entry in self.delayed)

    def release_delayed(self, now: float) -> None:
        """Let inputs wait again whose delay before the next attempt is over."""
        while self.delayed and self.delayed[0][0] <= now:
            self.put(heappop(self.delayed)[2], front=True)

    def invite(self, not_started: int, out: list[Command]) -> None:
        """Ask refused calls to offer their segments again, once half of their limit is free and they would be taken."""
        limits = self.limits
        for family, refused in self.refused.items():
            spawned, unsettled = family == "spawned", self.unsettled[family]
            pending = unsettled if spawned else min(unsettled, not_started)
            half = (limits.spawned_pending if spawned else limits.pending) // 2
            while refused and pending <= half:
                call, count = next(iter(refused.items()))
                if self._over_limit(family, count, not_started):
                    break
                del refused[call]
                out.append(Invite(call))
                if unsettled:
                    break  # one at a time: what is here will make us look again

    def invite_all(self, out: list[Command]) -> None:
        """The function is about to go: let refused calls offer their segments again, and hear of it."""
        for refused in self.refused.values():
            out += map(Invite, refused)
            refused.clear()

    # -- settled -----------------------------------------------------------------------------------

    def delivered(self, held: Range, start: int, count: int, out: list[Command]) -> None:
        """The outputs that just came are final, and on their way."""
        self.succeeded += count
        self._settle(held.call, held.segment, start, count, out)

    def fail_attempt(
        self, held: Range, position: int, kind: FailureKind, reason: str, now: float, out: list[Command]
    ) -> bool:
        """An attempt at the input failed by its own doing: try again later while it has retries, else it failed.
        Returns whether it is tried again.
        """
        call = held.call
        failures = call.failures[position] = call.failures.get(position, 0) + 1
        allowed = self.retries.max_retries if self.retries and not held.chunks else 0
        if kind == "cancelled" or call.cancelled or position in call.unwanted:
            reason = call.cancelled or CANCELLED
            self._fail(call, held.segment, position, position + 1, "cancelled", reason, out)
            return False
        if kind == "unreadable" or failures > allowed:
            self._fail(call, held.segment, position, position + 1, kind, reason, out)
            return False
        self._remember(call, position, out)
        delay = self.retries.delay_seconds(failures) if self.retries else 0.0
        self._tick += 1
        heappush(self.delayed, (now + delay, self._tick, Span(call, held.segment, position, position + 1)))
        return True

    def lose_attempt(self, held: Range, position: int, reason: str, out: list[Command]) -> bool:
        """The container died under the input: try again, but not for ever. Returns whether it is tried again."""
        call = held.call
        losses = call.losses[position] = call.losses.get(position, 0) + 1
        if losses >= MAX_ATTEMPTS_LOST and not (call.cancelled or position in call.unwanted or held.chunks):
            reason = f"its container died {losses} times in a row, the last one: {reason}"
            self._fail(call, held.segment, position, position + 1, "lost", reason, out)
            return False
        self._remember(call, position, out)
        waiting = self.waiting
        self.put_back(held, position, position + 1, out, reason)
        return self.waiting > waiting

    def _remember(self, call: Call, position: int, out: list[Command]) -> None:
        if call.kind == "spawn" and not call.cancelled and position not in call.unwanted:
            failures, losses = call.failures.get(position, 0), call.losses.get(position, 0)
            out.append(RememberAttempts(call.id, position, failures, losses))

    def put_back(self, held: Range, start: int, stop: int, out: list[Command], reason: str = "") -> None:
        """Inputs of the range wait again, in front of those that never left.

        Cancelled ones fail instead, and so does that of a generator that has yielded, which can't begin anew: `reason`
        says why it ended.
        """
        call, segment = held.call, held.segment
        if call.unwanted and not call.cancelled:
            for position in sorted(call.unwanted, reverse=True):
                if start <= position < stop:
                    self.put_back(held, position + 1, stop, out, reason)
                    self._fail(call, segment, position, position + 1, "cancelled", CANCELLED, out)
                    stop = position
        if start >= stop:
            return
        if held.call.cancelled:
            self._fail(held.call, held.segment, start, stop, "cancelled", held.call.cancelled, out)
        elif held.chunks:
            reason = f"its container ended after {held.chunks} values were passed on, and is not begun again: {reason}"
            self._fail(held.call, held.segment, start, stop, "lost", reason, out)
        else:
            self.put(Span(held.call, held.segment, start, stop), front=True)

    def cancel(self, call: Call, out: list[Command], reason: str = CANCELLED) -> None:
        """Nothing of the call starts any more; what waits is failed now, what containers hold is the pool's to end."""
        self.refused[_family(call.kind)].pop(call.id, None)
        if not call.cancelled:
            call.cancelled = reason
            self.fail_waiting(call, "cancelled", reason, out)
            self._finish_if_done(call, out)

    def cancel_input(self, call: Call, position: int, terminate: bool, out: list[Command]) -> None:
        """The input does not start any more: it is failed now, or is `unwanted` where a container has it."""
        held = (one for one in call.segments.values() if one.first <= position < one.first + one.count)
        if (segment := next(held, None)) is None:
            return
        delayed = [entry for entry in self.delayed if entry[2].call is call and entry[2].start == position]
        if delayed:
            self.delayed = sorted(entry for entry in self.delayed if entry is not delayed[0])
        if delayed or self.reclaim(call, segment, position, position + 1) is not None:
            self._fail(call, segment, position, position + 1, "cancelled", CANCELLED, out)
        elif any(one.next <= position < one.stop for one in call.ranges.values()):
            call.unwanted[position] = terminate or call.unwanted.get(position, False)

    def fail_waiting(self, call: Call, kind: FailureKind, reason: str, out: list[Command]) -> None:
        """Fail what waits of the call, delayed inputs included."""
        spans = list(call.waiting)
        if spans:
            call.waiting.clear()
            self.turns.remove(call)
            self.waiting -= sum(map(len, spans))
        # Only a call with failed attempts has delayed inputs; the others need not look.
        delayed = [entry for entry in self.delayed if entry[2].call is call] if call.failures else []
        if delayed:
            self.delayed = sorted(entry for entry in self.delayed if entry[2].call is not call)
        for span in [*spans, *(entry[2] for entry in delayed)]:
            start, span.start = span.start, span.stop
            self._fail(call, span.segment, start, span.stop, kind, reason, out)

    def _fail(
        self, call: Call, segment: Segment, start: int, stop: int, kind: FailureKind, reason: str, out: list[Command]
    ) -> None:
        attempts = call.failures.get(start, 0) + call.losses.get(start, 0) if stop - start == 1 else 0
        out.append(Fail(call.id, start, stop - start, kind, reason, max(1, attempts)))
        self.failed += stop - start
        call.failed += stop - start
        self._settle(call, segment, start, stop - start, out)

    def _settle(self, call: Call, segment: Segment, start: int, count: int, out: list[Command]) -> None:
        if call.unwanted:
            call.unwanted = {
                position: dies for position, dies in call.unwanted.items() if not start <= position < start + count
            }
        call.unsettled -= count
        self.unsettled[_family(call.kind)] -= count
        segment.unsettled -= count
        self._forget_if_settled(call, segment, out)
        self._finish_if_done(call, out)

    def _forget_if_settled(self, call: Call, segment: Segment, out: list[Command]) -> None:
        if not segment.unsettled:
            del call.segments[segment.first]
            if call.failures or call.losses:
                call.forget_attempts(segment)
            out.append(ForgetSegment(call.id, segment.first, tuple(sorted(segment.holders))))

    def _finish_if_done(self, call: Call, out: list[Command]) -> None:
        if call.unsettled or call.id not in self.calls:
            return
        if call.cancelled or (call.total is not None and call.submitted >= call.total):
            del self.calls[call.id]
            out.append(FinishCall(call.id))


def _family(kind: str) -> str:
    return "spawned" if kind == "spawn" else "attached"
