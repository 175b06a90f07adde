"""The store of a private server: it lives as long as the process."""

from __future__ import annotations

from collections.abc import Iterator

from ..store import Kept, Outcome


class MemoryStore:
    """Keeps everything in dictionaries."""

    def __init__(self) -> None:
        self._inputs: dict[tuple[str, int], Kept] = {}
        self._outcomes: dict[str, list[Outcome]] = {}

    def put_inputs(self, call: str, first: int, kept: Kept) -> None:
        self.drop_inputs(call, first)
        self._inputs[call, first] = kept

    def inputs(self, call: str, first: int) -> Kept:
        return self._inputs[call, first]

    def drop_inputs(self, call: str, first: int) -> None:
        if kept := self._inputs.pop((call, first), None):
            kept.close()

    def put_outcome(self, call: str, outcome: Outcome) -> None:
        self._outcomes.setdefault(call, []).append(outcome)

    def outcomes(self, call: str) -> Iterator[Outcome]:
        return iter(self._outcomes.get(call, ()))

    def drop_call(self, call: str) -> None:
        for outcome in self._outcomes.pop(call, ()):
            outcome.kept.close()
        for key in [key for key in self._inputs if key[0] == call]:
            self.drop_inputs(*key)

    def close(self) -> None:
        for call in list(self._outcomes):
            self.drop_call(call)
        for key in list(self._inputs):
            self.drop_inputs(*key)
