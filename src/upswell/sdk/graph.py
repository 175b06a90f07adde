"""The call graph: the inputs of a call, and below each the inputs of the calls it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from ..wire.messages import GraphInput, InputState


class InputStatus(IntEnum):
    """How an input ended, or that it has not."""

    PENDING = 0
    SUCCESS = 1
    FAILURE = 2
    TERMINATED = 3
    TIMEOUT = 4
    INIT_FAILURE = 5


@dataclass
class InputInfo:
    """One input: its container (`task_id`, empty before there is one), how it ended, and what it called."""

    input_id: str
    function_call_id: str
    task_id: str
    status: InputStatus
    function_name: str
    module_name: str
    children: list[InputInfo] = field(default_factory=list)


STATUSES: dict[InputState, InputStatus] = {
    "pending": InputStatus.PENDING,
    "succeeded": InputStatus.SUCCESS,
    "failed": InputStatus.FAILURE,
    "failed to start": InputStatus.INIT_FAILURE,
    "terminated": InputStatus.TERMINATED,
    "timed out": InputStatus.TIMEOUT,
}


def tree(inputs: Sequence[GraphInput]) -> list[InputInfo]:
    """The inputs as trees; each comes after the one that called it."""
    roots: list[InputInfo] = []
    by_id: dict[str, InputInfo] = {}
    for one in inputs:
        status = STATUSES[one.state]
        info = InputInfo(one.input, one.call, one.container, status, one.function, one.module)
        by_id[info.input_id] = info
        (by_id[one.parent].children if one.parent in by_id else roots).append(info)
    return roots
