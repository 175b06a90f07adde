"""The server itself: what it is and has, a copy of what it keeps, and what it does not let everybody do."""

from .base import Message


class DescribeServer(Message, tag=26, frozen=True):
    """Ask what this server is; answered by `ServerDescribed`."""

    request: int


class ServerDescribed(Message, tag=27, frozen=True):
    """Answer to `DescribeServer`: counts of what there is now; `since` in seconds of the epoch."""

    request: int
    version: str
    process: int
    addresses: list[str]
    since: float
    apps: int
    functions: int
    containers: int
    kept_bytes: int  # in the files of the home; 0 where nothing is kept
    trouble: str = ""  # why the last that came could not be kept; "" where it was


class BackUp(Message, tag=28, frozen=True):
    """Write a consistent copy of what the server keeps to a path on its machine; answered by `Done`."""

    request: int
    path: str


class Denied(Message, tag=42, frozen=True):
    """Who sent this may not ask for it, whether it exists or not. `about` is the request, or else the call or app."""

    about: str
    reason: str
