"""How large a range a container gets next, and when what it has not started is taken back. Pure functions of numbers.

A range is worth about 50 ms of work, so that the cost of handing it out, and of its results, which come together,
disappears for short inputs while long ones travel alone; where calls take turns, about 10 ms. A container that runs a
range has the next one. Towards the end of a queue ranges shrink (guided self-scheduling, Polychronopoulos and Kuck
1987), and what remains behind a straggler is taken back, so that no container waits for another one's leftovers.
"""

from __future__ import annotations

import math

from ..spec import GATHER_SECONDS

RANGE_SECONDS = 0.050  # what a range is worth
SHARED_SECONDS = 0.010  # ... where several calls wait for their turns
SMALLEST_RANGE_SECONDS = 0.001  # below this, handing out costs more than imbalance
GROWTH = 8  # a range is at most this many times what has been measured so far
PREFETCH_LONGEST_SECONDS = 0.050  # inputs longer than this gain nothing from it
RANGES_AHEAD = 2  # queued behind the running one, at most
STRAGGLER_SECONDS = 0.002  # work that is not started and would take longer than this is worth taking back


def range_seconds(calls: int) -> float:
    """How much work to hand out at once, where so many calls wait."""
    return RANGE_SECONDS if calls <= 1 else SHARED_SECONDS


def range_size(waiting: int, calls: int, containers: int, service_seconds: float | None, finished: int) -> int:
    """How many inputs to hand out at once.

    `waiting` inputs of so many calls are to be shared by `containers` ready ones; an input takes `service_seconds`, as
    `finished` inputs have shown (`None`: none yet, so one input tells).
    """
    if service_seconds is None or waiting == 1:
        return 1
    service = max(service_seconds, 1e-9)
    fair = math.ceil(waiting / (2 * max(1, containers)))
    size = min(range_seconds(calls) / service, max(fair, SMALLEST_RANGE_SECONDS / service), GROWTH * finished)
    return max(1, int(size))


def may_prefetch(held_inputs: int, held_ranges: int, calls: int, service_seconds: float | None) -> bool:
    """Whether a busy container should get its next range before it has run what it has."""
    if service_seconds is None or service_seconds > PREFETCH_LONGEST_SECONDS:
        return False
    # The input that runs is half done on average.
    return held_ranges <= RANGES_AHEAD and (held_inputs - 0.5) * service_seconds < range_seconds(calls)


def is_straggler(silent_seconds: float, service_seconds: float | None) -> bool:
    """Whether the running input takes so much longer than expected that nothing should queue behind it."""
    return silent_seconds > GATHER_SECONDS + max(STRAGGLER_SECONDS, 4 * (service_seconds or 0.0))


def is_in_the_way(inputs: int, service_seconds: float | None) -> bool:
    """Whether so many inputs of others are too many to wait for, for a call that is new."""
    return inputs * (service_seconds or 0.0) > SHARED_SECONDS


def worth_taking_back(unstarted: int, silent_seconds: float, service_seconds: float | None) -> bool:
    """Whether inputs that wait behind a running one of another container should move to an idle container."""
    if silent_seconds > STRAGGLER_SECONDS:
        return True
    return unstarted * (service_seconds or 0.0) > STRAGGLER_SECONDS
