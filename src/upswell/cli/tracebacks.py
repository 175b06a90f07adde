"""Shows an exception of the user's code as if nothing stood between the shell and that code.

Frames of upswell and of the import machinery are left out, in the exception and in its causes. A defect of upswell
is shown whole.
"""

from __future__ import annotations

import os
import sys
import traceback
from itertools import dropwhile

from ..sdk.frames import OURS, shows_ours

LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
MACHINERY = ("<frozen ", LIBRARY + "importlib")
LOOP = LIBRARY + "asyncio"  # which runs asynchronous entrypoints


def show(error: BaseException) -> None:
    """Print the exception and the user's frames to standard error."""
    shown = traceback.TracebackException.from_exception(error)
    if not shows_ours(error, shown.stack[-1].filename if shown.stack else ""):
        _trim(shown)
    print("".join(shown.format()), end="", file=sys.stderr, flush=True)


def _trim(shown: traceback.TracebackException | None) -> None:
    """Drop what is not the user's; without any frame left there is no heading either."""
    if shown is None:
        return
    before_theirs = (OURS, *MACHINERY, LOOP) if shown.stack and shown.stack[0].filename.startswith(OURS) else ()
    theirs = dropwhile(lambda frame: frame.filename.startswith(before_theirs), shown.stack)
    kept = [frame for frame in theirs if not frame.filename.startswith((OURS, *MACHINERY))]
    shown.stack[:] = kept
    if not kept:
        shown.stack = None  # type: ignore[assignment]
    _trim(shown.__cause__)
    _trim(shown.__context__)
    for member in shown.exceptions or ():
        _trim(member)
