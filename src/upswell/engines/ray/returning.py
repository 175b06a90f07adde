"""Leases that an earlier engine of this home has left: which of them go on with this one, and which are given back.

Ray says which there are, and their own call that they live; a lease needs both, and what is in it is told once. It
decides, and does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from .messages import Found, Opened


class Returning:
    """Those that are waited for while the engine begins. Afterwards nobody is let in any more."""

    def __init__(self, found: Sequence[Found], *, may_return: bool) -> None:
        """Of the leases that Ray has, those return that had a node: others never began, and hold nothing."""
        waited_for = {one.lease for one in found if one.has_begun and may_return}
        self._silent = dict.fromkeys(one.lease for one in found if one.lease in waited_for)
        self.unwanted = [one.lease for one in found if one.lease not in waited_for]  # to be given back at once

    @property
    def is_complete(self) -> bool:
        """Whether nobody is waited for any more."""
        return not self._silent

    def lets_in(self, hello: Opened, containers_dial: str) -> bool:
        """Whether a lease that calls may go on. Its containers must reach this server where they reached the last."""
        return hello.lease in self._silent and hello.containers_dial == containers_dial

    def counted(self, lease: str) -> bool:
        """It has told what it holds; whether that is to be believed, which it is once."""
        return self._silent.pop(lease, self) is None

    def gone(self, lease: str) -> None:
        """Ray has it no more."""
        self._silent.pop(lease, None)

    def end(self) -> list[str]:
        """The time is over: those that did not come, to be given back."""
        late, self._silent = list(self._silent), {}
        return late
