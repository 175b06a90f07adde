"""Which input called what: spawned calls, and all calls made for their inputs, with how each input ended.

A record for people, not a part of any decision. Only the last `MAX_CALLS` are remembered, and of those only as many as
have `MAX_REMEMBERED` inputs together; of a call that has more by itself, the first.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice

import msgspec

from ..spec import FunctionRecord
from ..wire.ids import call_of_input, input_id
from ..wire.messages import ErrorKind, GraphInput, InputState

MAX_CALLS = 10_000
MAX_REMEMBERED = 1_000_000  # five bytes each
MAX_INPUTS = 10_000  # in one answer
STATES: tuple[InputState, ...] = ("pending", "succeeded", "failed", "failed to start", "terminated", "timed out")
BY_KIND: dict[ErrorKind, InputState] = {
    "start": "failed to start",
    "timeout": "timed out",
    "cancelled": "terminated",
    "lost": "terminated",
    "memory": "terminated",
}


class Node(msgspec.Struct, eq=False):
    """One call."""

    name: str
    module: str
    parent: str  # the input that made it
    states: bytearray = bytearray()  # an index into STATES for every input
    holders: array[int] = msgspec.field(default_factory=lambda: array("I"))  # ... and the number of its container
    containers: dict[str, int] = {}  # that were granted some, with a number from 1 on


class CallGraph:
    """The calls that are remembered."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._made_by: dict[str, list[str]] = {}  # input → the calls it made
        self._inputs = 0  # of all nodes

    def begun(self, call: str, record: FunctionRecord, method: str, parent: str) -> None:
        """A call that is to be remembered."""
        name = f"{record.name}.{method}" if method else record.name
        self._nodes[call] = Node(name, record.environment.module, parent)
        if parent:
            self._made_by.setdefault(parent, []).append(call)
        self._forget_the_first()

    def submitted(self, call: str, first: int, count: int) -> None:
        """Inputs of a call were taken."""
        if node := self._nodes.get(call):
            more = max(0, min(first + count, MAX_REMEMBERED) - len(node.states))
            node.states.extend(bytes(more))
            node.holders.extend(array("I", (0,)) * more)
            self._inputs += more
            self._forget_the_first()

    def granted(self, call: str, start: int, stop: int, container: str) -> None:
        """A container was given these inputs."""
        if node := self._nodes.get(call):
            number = node.containers.setdefault(container, len(node.containers) + 1)
            known = min(stop, len(node.holders)) - start
            node.holders[start : start + known] = array("I", (number,)) * known

    def settled(self, call: str, first: int, count: int, kind: ErrorKind | None) -> None:
        """Inputs have ended, with `kind` as failures."""
        if node := self._nodes.get(call):
            state: InputState = "succeeded" if kind is None else BY_KIND.get(kind, "failed")
            known = min(first + count, len(node.states)) - first
            node.states[first : first + known] = bytes([STATES.index(state)]) * known

    def inputs(self, call: str, position: int = -1) -> list[GraphInput] | None:
        """The inputs of the call, or the one at `position`, and all below them; `None` for a call that is not known."""
        if call not in self._nodes:
            return None
        found: list[GraphInput] = []
        calls = [call]
        for one in calls:  # grows as it goes: parents come before their children
            rows = self._inputs_of(one)
            for row in rows if one != call or position < 0 else islice(rows, position, position + 1):
                if len(found) == MAX_INPUTS:
                    return found
                found.append(row)
                calls += self._made_by.get(row.input, ())
        return found

    def _inputs_of(self, call: str) -> Iterator[GraphInput]:
        node = self._nodes[call]
        containers = ["", *node.containers]
        for position, (state, holder) in enumerate(zip(node.states, node.holders, strict=True)):
            name, known_as = input_id(call, position), call_of_input(call, position)
            yield GraphInput(name, known_as, node.parent, containers[holder], STATES[state], node.name, node.module)

    def _forget_the_first(self) -> None:
        while len(self._nodes) > MAX_CALLS or self._inputs > MAX_REMEMBERED:
            self._forget(next(iter(self._nodes)))

    def _forget(self, call: str) -> None:
        node = self._nodes.pop(call)
        self._inputs -= len(node.states)
        made = self._made_by.get(node.parent)
        if made is not None:
            made.remove(call)
            if not made:
                del self._made_by[node.parent]
