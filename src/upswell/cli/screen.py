"""A terminal with a few live lines at its foot, above which everything else is printed.

While the screen is live, `sys.stdout` and `sys.stderr` are wrapped where they are a terminal: lines are held for at
most one refresh (or until flushed) and put out together with the live lines, so neither tears the other, and a program
that prints a lot is not slowed down. What is no whole line yet waits until it is one, or flushed: another thread may
print a line meanwhile. Knows nothing of what the lines say.
"""

from __future__ import annotations

import builtins
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO, cast

REFRESH_SECONDS = 0.1
MAX_HELD_CHARACTERS = 64 * 1024
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
CUTS_LINES = "XTERM_VERSION"  # in the environment of a terminal that cuts lines as it is narrowed, as few do


class Screen:
    """Draws what `frame` returns (whole lines, or "") until it is closed; then nothing of it is left.

    `frame` is called in a thread of the screen's own, every `REFRESH_SECONDS`.
    """

    def __init__(self, frame: Callable[[], str]) -> None:
        self._frame = frame
        self._terminal = sys.stderr
        self._lock = threading.RLock()  # re-entrant: a signal handler may print
        self._held: list[tuple[TextIO, str]] = []
        self._held_characters = 0
        self._unfinished: dict[tuple[int, TextIO], str] = {}  # by thread: the line that it has begun
        self._lines = ""  # as they are to be drawn
        self._drawn = ""  # those that stand on the terminal, just above the cursor
        self._at_line_start = True
        self._live = True
        self._asking = 0  # prompts that wait for an answer
        self._closed = threading.Event()
        self._wrapped = {name: getattr(sys, name) for name in ("stdout", "stderr") if getattr(sys, name).isatty()}
        for name, stream in self._wrapped.items():
            setattr(sys, name, cast(TextIO, _Above(self, stream)))
        self._input = builtins.input
        builtins.input = self._ask
        self._thread = threading.Thread(target=self._refresh, name="upswell-screen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Put out what is held, take the live lines away, and give the streams back."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            self._lines = ""
            self._finish(list(self._unfinished))
            self._put_out()
            self._live = False
        if builtins.input == self._ask:
            builtins.input = self._input
        for name, stream in self._wrapped.items():
            if isinstance(getattr(sys, name), _Above):
                setattr(sys, name, stream)

    def write(self, stream: TextIO, text: str) -> None:
        """Print above the live lines, soon."""
        with self._lock:
            if not self._live:
                stream.write(text)
                return
            here = (threading.get_ident(), stream)
            text = self._unfinished.pop(here, "") + text
            is_unbuffered = getattr(stream, "write_through", False)  # by PYTHONUNBUFFERED: nothing waits for its end
            end = len(text) if is_unbuffered or len(text) > MAX_HELD_CHARACTERS else text.rfind("\n") + 1
            if end < len(text):
                self._unfinished[here] = text[end:]
            if end:
                self._hold(stream, text[:end])

    def flush(self, stream: TextIO) -> None:
        """Print what is held now."""
        with self._lock:
            if self._live:
                self._finish([(threading.get_ident(), stream)])
                self._put_out()
            stream.flush()

    def _hold(self, stream: TextIO, text: str) -> None:
        self._held.append((stream, text))
        self._held_characters += len(text)
        if self._held_characters > MAX_HELD_CHARACTERS:
            self._put_out()

    def _finish(self, lines: list[tuple[int, TextIO]]) -> None:
        """No more of these lines is waited for."""
        for thread, stream in lines:
            if text := self._unfinished.pop((thread, stream), ""):
                self._hold(stream, text)

    def _ask(self, prompt: object = "", /) -> str:
        """`input`, which writes its prompt past `sys.stdout`: the lines are away until there is an answer."""
        with self._lock:
            self._asking += 1
            self._finish([here for here in self._unfinished if here[0] == threading.get_ident()])
            self._put_out()
        try:
            return self._input(prompt)
        finally:
            with self._lock:
                self._asking -= 1
                self._at_line_start = True

    def _refresh(self) -> None:
        while not self._closed.wait(REFRESH_SECONDS):
            lines = self._frame()
            with self._lock:
                if lines != self._lines or self._held:
                    self._lines = lines
                    self._put_out()

    def _put_out(self) -> None:
        if self._drawn:
            self._terminal.write(f"\x1b[{self._rows()}A\r\x1b[J")  # up to the first of them, and clear from there on
            self._terminal.flush()
            self._drawn = ""
        held, self._held, self._held_characters = self._held, [], 0
        for stream, text in held:
            stream.write(text)
            stream.flush()
            if text:
                self._at_line_start = text.endswith("\n")
        if self._lines and self._at_line_start and not self._asking:  # a prompt or an unfinished line is left alone
            self._terminal.write(self._lines)
            self._terminal.flush()
            self._drawn = self._lines

    def _rows(self) -> int:
        """How many rows of the terminal the live lines take up by now: one that was narrowed has broken them."""
        lines = [ESCAPES.sub("", line) for line in self._drawn.splitlines()]
        try:
            columns = os.get_terminal_size(self._terminal.fileno()).columns
        except (OSError, ValueError):  # it is gone, or closed
            columns = 0
        if not columns or CUTS_LINES in os.environ:
            return len(lines)
        return sum(max(1, -(-len(line) // columns)) for line in lines)


class _Above:
    """A stream whose text goes above the live lines; in everything else it is the stream."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen = screen
        self._stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # which click tries, to see what kind of stream this is
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._screen.write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        self._screen.flush(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
