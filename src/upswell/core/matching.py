"""Who gets what waits: the queue of one function and its containers brought together.

Grants are made wherever there is room, and what waits behind a running input is taken back once another container has
room for it. How many containers there are is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from ..spec import FunctionSpec
from . import batching, dispatch
from .agenda import NEVER
from .autoscaler import Estimates
from .commands import Command, Grant, TakeBack
from .containers import Containers
from .model import Call, Container, Range, Span
from .queue import Queue

STRAGGLERS_LOOKED_AT = 16


class Matching:
    """Grants the inputs of a queue to containers."""

    def __init__(
        self,
        queue: Queue,
        containers: Containers,
        estimates: Estimates,
        new_id: Callable[[], int],
    ) -> None:
        self.spec = FunctionSpec()  # as declared last, for when batches are due; a container takes what its own says
        self._queue = queue
        self._containers = containers
        self._estimates = estimates
        self._new_id = new_id

    def grant(self, now: float, out: list[Command], *, beyond_target: bool = False) -> None:
        """Grant what waits to containers below their target, or (`beyond_target`) with any room: the fullest first, and
        of equals the one that became so last.
        """
        turns, buckets = self._queue.turns, self._containers.buckets
        for free in sorted(buckets) if turns else ():
            bucket = buckets.get(free) if free > 0 or beyond_target else None
            while bucket and turns and self._is_due(now):
                container = next(reversed(bucket.values()))
                self._grant_next(container, now, out)
                # Each grant moves it to another bucket, so it is filled here, as far as it may be.
                while turns and (left := container.bucket) is not None and (left > 0 or beyond_target):
                    if not self._is_due(now):
                        return
                    self._grant_next(container, now, out)

    def grant_ahead(self, now: float, out: list[Command]) -> None:
        """Nobody is idle: let the busy ones with little left have their next range early."""
        service = self._estimates.service_seconds
        if service is None or service > dispatch.PREFETCH_LONGEST_SECONDS:
            return
        for container in list(islice(self._containers.full.values(), STRAGGLERS_LOOKED_AT)):
            concurrency = container.spec.concurrency
            if concurrency.max_inputs > 1 or concurrency.batch_size or container.spec.single_use:
                continue
            silent = now - container.heard_at
            while self._queue.turns and dispatch.may_prefetch(
                container.running + container.unstarted, len(container.ranges), len(self._queue.turns), service
            ):
                if dispatch.is_straggler(silent, service):
                    break
                self._grant_next(container, now, out)

    def make_way(self, call: Call, out: list[Command]) -> None:
        """The call is new. Where nothing of it was granted, and every container has more than 10 ms of others' work to
        begin, one of them gives that back.
        """
        service, containers = self._estimates.service_seconds, self._containers
        if not call.waiting or call.ranges or containers.room or self.spec.concurrency.batch_size:
            return
        for container in islice(containers.full.values(), STRAGGLERS_LOOKED_AT):
            if not dispatch.is_in_the_way(container.unstarted, service):
                return
        for container in islice(containers.loaded.values(), STRAGGLERS_LOOKED_AT):
            if dispatch.is_in_the_way(container.unstarted, service) and containers.ask_back(container, out):
                return

    def take_back(self, now: float, out: list[Command]) -> float:
        """While there is room and nothing waits here, fetch what waits behind a running input."""
        loaded = self._containers.loaded
        if self._queue.waiting or not loaded:
            return NEVER
        service, wanted, look_again = self._estimates.service_seconds, self._containers.room, NEVER
        for container in islice(loaded.values(), STRAGGLERS_LOOKED_AT if wanted else 0):
            if (held := next(container.to_take_back(), None)) is None:
                continue
            # With one place, what waits is behind the input of another range.
            heard_at = container.heard_at if container.spec.concurrency.max_inputs == 1 else held.heard_at
            if not dispatch.worth_taking_back(container.unstarted, now - heard_at, service):
                look_again = min(look_again, heard_at + 1.01 * dispatch.STRAGGLER_SECONDS)
            elif wanted:
                held.wanted_back = True
                wanted -= 1
                out.append(TakeBack(container.id, held.id))
        return look_again

    def batch_due_at(self) -> float:
        """When what waits is due as a batch; `NEVER` where that is not all it waits for."""
        if not self.spec.concurrency.batch_size or not self._queue.waiting or not self._containers.room:
            return NEVER
        return self._batch_due_at()

    def _batch_due_at(self) -> float:
        return batching.due_at(self._queue.waiting, self._queue.oldest_since(), self.spec.concurrency)

    def _is_due(self, now: float) -> bool:
        """Whether what waits may be granted now: always, unless it is to form a batch."""
        return not self.spec.concurrency.batch_size or self._batch_due_at() <= now

    def _grant_next(self, container: Container, now: float, out: list[Command]) -> None:
        """Grant the container the next range, or all ranges of the next batch."""
        spec, queue = container.spec, self._queue
        if not container.running:
            container.heard_at = now
        if not self._containers.running:
            self._containers.progress_at = now
        if spec.concurrency.batch_size:
            batch, left = self._new_id(), min(spec.concurrency.batch_size, queue.waiting)
            while left:
                span = queue.take(left)
                left -= len(span)
                self._hand(container, span, now, out, batch, left)
        else:
            places = self._containers.ready * spec.concurrency.target_inputs
            estimates = self._estimates
            size = dispatch.range_size(
                queue.waiting, len(queue.turns), places, estimates.service_seconds, estimates.finished
            )
            self._hand(container, queue.take(1 if spec.single_use else size), now, out)
        self._containers.recount(container)
        self._containers.watch(container)

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
