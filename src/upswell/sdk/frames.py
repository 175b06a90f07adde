"""Whose frames a traceback has: those of upswell tell the user nothing, and are left out of what goes up to user code.

They stay where they are all there is to find a defect of upswell by, and where `UPSWELL_TRACEBACKS` is "full".
"""

from __future__ import annotations

import os

from ..errors import InternalFailure
from ..home import PACKAGE

OURS = PACKAGE + os.sep


def shows_ours(error: BaseException, raised_in: str) -> bool:
    """Whether frames of upswell are of use: `raised_in` is the file whose code has raised the exception here."""
    if os.environ.get("UPSWELL_TRACEBACKS") == "full":
        return True
    if not raised_in.startswith(OURS) or not isinstance(error, InternalFailure | AssertionError):
        return False
    from ..wire.payload import RemoteTraceback

    return not isinstance(error.__cause__, RemoteTraceback)  # else it is an assertion of a function in a container


class _TheirFrames:
    """A block that exceptions leave with the frames of user code alone."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            _leave_out_ours(error)


def _leave_out_ours(error: BaseException) -> None:
    """Take the frames of upswell out of the exception's traceback."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    if not frames or shows_ours(error, frames[-1].tb_frame.f_code.co_filename):
        return
    for frame in reversed(frames):
        if not frame.tb_frame.f_code.co_filename.startswith(OURS):
            frame.tb_next = trace
            trace = frame
    error.__traceback__ = trace


their_frames = _TheirFrames()
