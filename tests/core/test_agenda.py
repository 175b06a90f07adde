"""The agenda: one moment a key, and no growth with how often moments change."""

import sys

from upswell.core.agenda import NEVER, Agenda


def drain(agenda: Agenda[str]) -> list[tuple[float, str]]:
    found = []
    while (moment := agenda.next_at()) < NEVER:
        assert agenda.pop_due(moment - 1) is None
        found.append((moment, agenda.pop_due(moment) or ""))
    return found


def test_the_last_word_counts() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.put("a", 3.0)
    agenda.put("b", 2.0)
    agenda.put("a", 1.0)
    agenda.put("b", 4.0)
    agenda.put("c", 1.0)
    agenda.put("d", 5.0)
    agenda.put("d", NEVER)
    assert drain(agenda) == [(1.0, "a"), (1.0, "c"), (4.0, "b")]


def test_equal_moments_come_in_the_order_in_which_they_were_put() -> None:
    """However often they were put before, and whether or not anybody has looked meanwhile."""
    agenda: Agenda[str] = Agenda()
    agenda.put("early", 1.0)
    agenda.put("a", 3.0)
    agenda.put("a", NEVER)
    agenda.put("b", 3.0)
    agenda.put("a", 3.0)
    assert drain(agenda) == [(1.0, "early"), (3.0, "b"), (3.0, "a")]


def test_it_grows_with_its_keys_alone() -> None:
    agenda: Agenda[str] = Agenda()
    sizes = []
    for moment in range(20_000):
        agenda.put("changes", 1000.0 + moment)
        agenda.put("toggles", 500.0 + moment % 2)
        agenda.put(f"one of many {moment}", 2000.0)
        agenda.put(f"one of many {moment}", NEVER)
        sizes.append(sys.getsizeof(agenda._heap))
    assert max(sizes) == max(sizes[:1000])
    assert drain(agenda) == [(501.0, "toggles"), (20_999.0, "changes")]
