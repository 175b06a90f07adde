"""Where this code runs: in the user's program or inside a container, and there for which input."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import msgspec

from ..wire.ids import call_of_input, input_id


class RunningInput(msgspec.Struct, eq=False):
    """The input that user code runs for, and how it lends its place while it waits for a nested call."""

    call: str
    position: Callable[[], int]
    suspend: Callable[[], None]
    resume: Callable[[], None]
    resume_on_loop: Callable[[], Awaitable[None]] | None = None  # as `resume`, without blocking the loop it runs on

    @property
    def input_id(self) -> str:
        return input_id(self.call, self.position())

    @property
    def call_id(self) -> str:
        return call_of_input(self.call, self.position())


class ImportEnds(BaseException):
    """A module that a container imports came to its `app.run()`: what follows is the program's, not the container's."""


running: ContextVar[RunningInput | None] = ContextVar("running", default=None)
importing = False  # a zygote is importing the user's module
# Inside a container: the server's address, the container's token, and the file of certificates to trust.
server: tuple[str, str, str] | None = None
server_keeps_apps = False  # inside a container: whether that server keeps deployed apps, as no private one does


def enter_container(address: str, token: str, authority: str = "") -> None:
    """From now on this process is a container of the server at `address`, whose certificate `authority` has signed."""
    global server
    server = (address, token, authority)


def is_local() -> bool:
    """Whether this code runs in the user's own program, not inside a container."""
    return server is None and not importing


def current_input_id() -> str | None:
    """The id of the input that this code runs for; `None` outside containers."""
    now = running.get()
    return now.input_id if now else None


def current_function_call_id() -> str | None:
    """The id of the call whose input this code runs for; `None` outside containers."""
    now = running.get()
    return now.call_id if now else None
