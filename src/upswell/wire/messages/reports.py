"""What people look at: how functions do, what containers write, which input made which call."""

from typing import Literal

import msgspec

from ...spec import AutoscalerSettings, SettingsUpdate
from .base import ErrorRecord, Message

InputState = Literal["pending", "succeeded", "failed", "failed to start", "terminated", "timed out"]


class Inquire(Message, tag=17, frozen=True):
    """Ask for a function's statistics, or with `update` set change its settings; answered by `Statistics`."""

    request: int
    function: str
    update: SettingsUpdate | None = None


class Statistics(Message, tag=40, frozen=True):
    """Answer to `Inquire`; `error` says why it was refused."""

    request: int
    backlog: int
    containers: int
    running: int
    headroom: int
    settings: AutoscalerSettings
    decision: str = ""  # the autoscaler's last decision, in words
    error: ErrorRecord | None = None


class Watch(Message, tag=18, frozen=True):
    """Send `Progress` of the app's functions to this connection a few times a second while anything changes."""

    app: str


class FunctionProgress(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Counts of one function's inputs and containers."""

    name: str
    pending: int
    running: int
    succeeded: int
    failed: int
    starting: int
    ready: int


class Progress(Message, tag=39, frozen=True):
    """The state of an app's functions, for people."""

    app: str
    functions: list[FunctionProgress]


class Log(Message, tag=38, frozen=True):
    """Whole lines that a container wrote: stream 1 or 2; `container` is a short label. Of stream 0, a server's own."""

    app: str
    function: str
    container: str
    stream: int
    text: str


class DescribeGraph(Message, tag=25, frozen=True):
    """Ask for the inputs of a spawned call, or for the one at `position`, and of the calls they made; answered by
    `CallGraph`.
    """

    request: str
    call: str
    position: int = -1


class GraphInput(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One input in a call graph. `parent` is the input that made its call."""

    input: str
    call: str
    parent: str
    container: str
    state: InputState
    function: str
    module: str


class CallGraph(Message, tag=45, frozen=True):
    """Answer to `DescribeGraph`: parents before their children; `missing` where there is no such call."""

    request: str
    inputs: list[GraphInput]
    missing: bool = False
