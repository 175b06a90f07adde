"""What containers write appears here: whole lines, labelled once more than one container speaks."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ..wire.messages import Log

Speaker = tuple[str, str]  # function and container

quiet = False  # what upswell itself has to say is not shown
_writing = threading.Lock()
_speakers: set[Speaker] = set()
_unfinished: dict[int, Speaker] = {}  # stream → whose line there has no end yet


def show(log: Log) -> None:
    """Write a container's lines to this program's own streams, or what the server itself has to say of a function."""
    if log.stream == 0:
        say(log.text.rstrip("\n"))
        return
    stream: TextIO | None = sys.stdout if log.stream == 1 else sys.stderr
    if stream is None:
        return  # it was closed before Python began
    speaker = (log.function, log.container)
    lines = re.findall(r"[^\n]*\n|[^\n]+", log.text)  # a line ends at a newline, and not at a form feed or the like
    with _writing:
        _speakers.add(speaker)
        label = f"[{log.function} {log.container}".rstrip() + "] " if len(_speakers) > 1 else ""
        before = _unfinished.pop(log.stream, None)
        text = label.join(lines) if before == speaker else "\n" * (before is not None) + label + label.join(lines)
        if not log.text.endswith("\n"):
            _unfinished[log.stream] = speaker
        try:
            stream.write(_encodable(text, stream))
            stream.flush()
        except (OSError, ValueError):
            pass  # the program has closed its output


def say(text: str) -> None:
    """Tell the user one line of ours, unless nothing but the program's own is to be shown."""
    if not quiet and sys.stderr is not None:
        with _writing:
            begun = _unfinished.pop(2, None) is not None
            try:
                print("\n" * begun + f"upswell: {text}", file=sys.stderr, flush=True)
            except (OSError, ValueError):
                pass  # the program has closed its output


def _encodable(text: str, stream: TextIO) -> str:
    """The text, with escapes in place of what the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def enable_output() -> Iterator[None]:
    """Show what containers print, which upswell does anyway; here so that programs for Modal's SDK run."""
    yield
