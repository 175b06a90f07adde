"""Batches: the inputs of several ranges as one call of a function that takes lists and returns a list.

Every parameter becomes a list with the value of each input. An input whose arguments can't be read, or do not fit the
function, fails alone; what the call raises, or returns in another shape, fails all the others alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidError
from ..wire.messages import ErrorRecord
from .outbox import Outbox, as_failure
from .work import Work

if TYPE_CHECKING:
    from inspect import Signature


class Gathering:
    """Batches whose ranges have not all come yet."""

    def __init__(self) -> None:
        self._batches: dict[int, list[Work]] = {}

    def add(self, work: Work, left: int) -> Work | None:
        """Take a range of a batch, of which `left` inputs are still to come; the leading range when it is complete."""
        mates = self._batches.setdefault(work.batch, [])
        mates.append(work)
        work.mates = mates
        if left:
            return None
        return self._batches.pop(work.batch)[0]

    def give_up(self) -> list[Work]:
        """Nothing more comes for them: their ranges."""
        works = [work for mates in self._batches.values() for work in mates]
        self._batches.clear()
        return works


class Batch:
    """One call for the inputs of some ranges."""

    def __init__(self, lead: Work, name: str, outbox: Outbox) -> None:
        assert lead.bound is not None
        self._callable: Callable[..., Any] = lead.bound.callable
        self._works = [work for work in lead.mates if not work.ended]  # the others were cancelled before this
        self._name = name
        self._outbox = outbox
        self._odd: dict[tuple[int, int], BaseException] = {}  # range and position of inputs that are not in the call
        self._inputs: list[tuple[Sequence[Any], dict[str, Any]]] = []
        from inspect import signature  # by few programs

        parameters = signature(self._callable)
        for work in self._works:
            for position in range(work.start, work.stop):
                try:
                    self._inputs.append(self._bind(parameters, work, position))
                except Exception as error:
                    self._odd[work.range, position] = error

    def _bind(self, parameters: Signature, work: Work, position: int) -> tuple[Sequence[Any], dict[str, Any]]:
        args, kwargs = work.inputs.arguments(position - work.base)
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._inputs:
            args_before, kwargs_before = self._inputs[0]
            if len(bound.args) != len(args_before) or bound.kwargs.keys() != kwargs_before.keys():
                raise InvalidError(f"{self._name} is batched, and other inputs of this batch have other arguments")
        return bound.args, bound.kwargs

    @property
    def is_empty(self) -> bool:
        """Whether no input can be called at all."""
        return not self._inputs

    def call(self) -> Any:
        """What the function returns for the lists: a coroutine where it is asynchronous."""
        args = [list(values) for values in zip(*(args for args, _ in self._inputs), strict=True)]
        kwargs = {name: [kwargs[name] for _, kwargs in self._inputs] for name in self._inputs[0][1]}
        return self._callable(*args, **kwargs)

    def returned(self, outputs: Any) -> None:
        """Send to each input its output."""
        expected = len(self._inputs)
        if isinstance(outputs, list | tuple) and len(outputs) == expected:
            self._settle(outputs, None)
            return
        got = f"one of {len(outputs)}" if isinstance(outputs, list | tuple) else f"{type(outputs).__name__}"
        reason = (
            f"{self._name} is batched: called with {expected} inputs it must return a list of {expected}, one output "
            f"for each, and it returned {got}"
        )
        self.failed(InvalidError(reason))

    def failed(self, error: BaseException) -> None:
        """Fail every input of the call."""
        self._settle((), as_failure(error))

    def ended(self, verdict: ErrorRecord) -> None:
        """Fail every input of the call with the verdict that ended it."""
        self._settle((), (verdict, b""))

    def _settle(self, outputs: Sequence[Any], failure: tuple[ErrorRecord, bytes] | None) -> None:
        """Send what became of each input; a range that ended meanwhile was cancelled, and its outputs are dropped."""
        taken = 0
        for work in self._works:
            with work.lock:
                for position in range(work.start, work.stop):
                    odd = self._odd.get((work.range, position))
                    taken += odd is None
                    if work.ended:
                        continue
                    if odd is not None:
                        self._outbox.send_failure(work, *as_failure(odd))
                    elif failure is not None:
                        self._outbox.send_failure(work, *failure)
                    else:
                        work.outputs.append(outputs[taken - 1])
                if not work.ended:
                    self._outbox.send_outputs(work)
                    self._outbox.end(work)
