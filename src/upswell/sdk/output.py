"""What containers write appears here: whole lines, labelled once more than one container speaks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..wire.messages import Log

_writing = threading.Lock()
_speakers: set[tuple[str, str]] = set()


def show(log: Log) -> None:
    """Write a container's lines to this program's own streams."""
    stream = sys.stdout if log.stream == 1 else sys.stderr
    text = log.text
    with _writing:
        _speakers.add((log.function, log.container))
        if len(_speakers) > 1:
            label = f"[{log.function} {log.container}] "
            text = "".join(label + line for line in text.splitlines(keepends=True))
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            pass  # the program has closed its output


@contextmanager
def enable_output() -> Iterator[None]:
    """Show what containers print, which upswell does anyway; here so that programs for Modal's SDK run."""
    yield
