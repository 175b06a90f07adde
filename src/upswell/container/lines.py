"""What a container writes, cut into pieces that can be shown: whole lines where they come in time, never half a
character, and no piece without bound. Pure: bytes in, text out.
"""

from __future__ import annotations

from collections.abc import Iterator

LONGEST_LINE_BYTES = 64 << 10  # an unfinished line is let go in pieces of this size
PIECE_CHARACTERS = 16 << 10


class Lines:
    """One stream of a container."""

    def __init__(self) -> None:
        self._rest = b""  # of a line that is not finished
        self._begun = False  # whether a part of that line was let go

    @property
    def is_unfinished(self) -> bool:
        return bool(self._rest)

    def feed(self, data: bytes) -> Iterator[str]:
        """Take what was written; yield what can be shown of it now."""
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if newline:
            self._begun = False
            yield from _pieces(whole + newline)
        if len(self._rest) > LONGEST_LINE_BYTES:
            yield from self.let_go()

    def let_go(self) -> Iterator[str]:
        """Yield the unfinished line as far as it has come, less a character of which the end is missing."""
        cut = len(self._rest) - _half_a_character(self._rest)
        now, self._rest = self._rest[:cut], self._rest[cut:]
        self._begun = self._begun or bool(now)
        yield from _pieces(now)

    def end(self) -> Iterator[str]:
        """Nothing more comes: yield the rest, and the end of the line."""
        if self._rest or self._begun:
            rest, self._rest, self._begun = self._rest + b"\n", b"", False
            yield from _pieces(rest)


def _pieces(data: bytes) -> Iterator[str]:
    text = data.decode("utf-8", "backslashreplace")
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]


def _half_a_character(data: bytes) -> int:
    """How many bytes at the end begin a character of UTF-8 and do not finish it."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < needed else 0
        if byte < 0x80:
            return 0
    return 0
