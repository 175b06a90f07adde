"""When what was decided is committed: in the next turn, with what is offered, or after it has lingered."""

from __future__ import annotations

from collections.abc import Callable

from tests.stores.desk import opened, outputs
from upswell import store as s
from upswell.errors import ConflictError, Error
from upswell.server.ledger import LINGER_SECONDS, Ledger
from upswell.stores.memory import MemoryStore


class Turns:
    """A ledger over a store in memory, and what it has asked to be called later."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.told: list[object] = []
        self.ledger = Ledger(self.store, lambda seconds, call: self.later.append((seconds, call)), lambda: 7.0)
        self.ledger.offer(opened("fc-1"), self.told.append)

    def decide(self, first: int, *, may_linger: bool) -> None:
        self.ledger.decided(outputs("fc-1", first, 1), lambda: self.told.append(first), may_linger=may_linger)

    def pass_on(self, seconds: float) -> None:
        """Call what is due within so many seconds."""
        due = [call for after, call in self.later if after <= seconds]
        self.later = [entry for entry in self.later if entry[0] > seconds]
        for call in due:
            call()

    def kept(self) -> list[int]:
        return [outcome.first for outcome in self.store.outcomes("fc-1")]


def test_what_somebody_waits_for_is_committed_in_the_next_turn() -> None:
    turns = Turns()
    turns.decide(0, may_linger=False)
    turns.decide(1, may_linger=True)
    assert (turns.kept(), turns.told) == ([], [None])
    turns.pass_on(0.0)
    assert (turns.kept(), turns.told) == ([0, 1], [None, 0, 1])
    turns.pass_on(LINGER_SECONDS)
    assert turns.told == [None, 0, 1]


def test_what_nobody_waits_for_lingers() -> None:
    turns = Turns()
    for first in range(3):
        turns.decide(first, may_linger=True)
    turns.pass_on(0.0)
    assert turns.kept() == [] and len(turns.later) == 1
    turns.pass_on(LINGER_SECONDS / 2)
    assert turns.kept() == []
    turns.pass_on(LINGER_SECONDS / 2)
    assert (turns.kept(), turns.told) == ([0, 1, 2], [None, 0, 1, 2])
    turns.decide(3, may_linger=True)
    for _ in range(2):
        turns.pass_on(LINGER_SECONDS / 2)
    assert turns.kept() == [0, 1, 2, 3]
    turns.pass_on(LINGER_SECONDS)
    assert not turns.later, "nothing lingers, so nothing is to be looked at"


def test_what_has_lingered_for_a_while_goes_with_what_is_offered() -> None:
    turns = Turns()
    turns.decide(0, may_linger=True)
    turns.ledger.offer(opened("fc-2"), turns.told.append)
    assert (turns.kept(), turns.told) == ([], [None, None])
    turns.pass_on(LINGER_SECONDS / 2)
    turns.decide(1, may_linger=True)
    turns.ledger.offer(opened("fc-3"), turns.told.append)
    assert (turns.kept(), turns.told) == ([0, 1], [None, None, 0, 1, None])
    turns.decide(2, may_linger=True)
    turns.ledger.offer(opened("fc-4"), turns.told.append)
    turns.pass_on(LINGER_SECONDS / 2)
    assert turns.kept() == [0, 1], "it has not lingered for long"
    turns.pass_on(LINGER_SECONDS / 2)
    assert turns.kept() == [0, 1, 2]


def test_it_is_kept_before_what_is_offered() -> None:
    turns = Turns()
    turns.decide(0, may_linger=False)

    def answer(error: Error | None) -> None:
        turns.told.append(type(error))
        assert turns.kept() == [0]

    turns.ledger.offer([s.OpenCall("fc-1", "f", "spawn", 0.0)], answer)
    assert turns.told == [None, 0, ConflictError]


def test_who_wants_to_hear_when_all_is_kept_does_not_wait_for_what_lingers() -> None:
    turns = Turns()
    turns.decide(0, may_linger=True)
    turns.ledger.in_turn(lambda: turns.told.append("kept"))
    turns.pass_on(0.0)
    assert (turns.kept(), turns.told) == ([0], [None, 0, "kept"])
