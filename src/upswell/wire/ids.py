"""The ids by which calls and inputs are known.

The call "fc-5f3a" has the inputs "in-5f3a-0", "in-5f3a-1" … Calls of one input each that are made at once travel
as one, a group "fg-5f3a"; whoever made them knows its input 17 as the call "fc-5f3a-17".
"""

from __future__ import annotations

CALL, GROUP, INPUT, SPOOL = "fc-", "fg-", "in-", "sp-"
MAX_DIGITS = 9  # of a position in a group
MAX_ID_CHARACTERS = 300


def is_id(text: str) -> bool:
    """Whether the text can be the id of anything."""
    return 0 < len(text) <= MAX_ID_CHARACTERS and text.isprintable()


def input_id(call: str, position: int) -> str:
    """The id of an input."""
    return f"{INPUT}{call.removeprefix(CALL).removeprefix(GROUP)}-{position}"


def call_of_input(call: str, position: int) -> str:
    """The id of the call that the input was made with: of a group's, a call of its own."""
    return f"{CALL}{call.removeprefix(GROUP)}-{position}" if call.startswith(GROUP) else call


def place_of(call: str) -> tuple[str, int]:
    """What travels for the call of that id, and which input of that it is; -1 where it is all of it."""
    name, _, position = call.removeprefix(CALL).rpartition("-")
    if call.startswith(CALL) and name and position.isdecimal() and len(position) <= MAX_DIGITS:
        return GROUP + name, int(position)
    return call, -1
