"""Calls that outlived the server, or their connection to it: plain rows, and from these calls of the core again.

What was granted and has no outcome waits again. Where a container still has it, `ContainerRejoined` takes it out of the
queue.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..spec import CallKind
from .model import Call, Segment, Span


class SavedSegment(msgspec.Struct, frozen=True):
    """A segment that is not settled; `unsettled` are its inputs without an outcome, as half-open spans in order."""

    first: int
    count: int
    unsettled: tuple[tuple[int, int], ...]


class SavedCall(msgspec.Struct, frozen=True):
    """A call that is not finished. `attempts` has position, failures and losses of inputs that were in difficulty."""

    id: str
    function: str
    kind: CallKind
    submitted: int
    total: int | None
    cancelled: bool
    segments: tuple[SavedSegment, ...]
    attempts: tuple[tuple[int, int, int], ...] = ()
    owner: str = ""
    cancelled_inputs: tuple[int, ...] = ()  # which are to end although the call goes on


def unsettled_spans(first: int, count: int, settled: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What of the segment remains without the `settled` (start, count), which come in order and do not overlap."""
    spans, position = [], first
    for start, length in settled:
        if start > position:
            spans.append((position, start))
        position = start + length
    if position < first + count:
        spans.append((position, first + count))
    return tuple(spans)


def rebuild(saved: SavedCall) -> tuple[Call, list[Span]]:
    """The call, and its inputs that are to wait."""
    call = Call(saved.id, saved.function, saved.kind, saved.owner, saved.submitted, total=saved.total)
    for position, failures, losses in saved.attempts:
        if failures:
            call.failures[position] = failures
        if losses:
            call.losses[position] = losses
    spans: list[Span] = []
    for kept in saved.segments:
        unsettled = sum(stop - start for start, stop in kept.unsettled)
        segment = call.segments[kept.first] = Segment(kept.first, kept.count, unsettled)
        call.unsettled += unsettled
        spans += [Span(call, segment, start, stop) for start, stop in kept.unsettled]
    return call, spans
