"""Output of containers: nothing lost, whole lines that come in time, whole characters always, no endless piece."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upswell.container.lines import LONGEST_LINE_BYTES, PIECE_CHARACTERS, Lines


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.text(alphabet="aé€𝄞\n\r\0", max_size=60), st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_text_arrives_whatever_the_pieces(text: str, cuts: list[int], hurried: bool) -> None:
    lines = Lines()
    shown: list[str] = []
    for data in cut(text.encode(), cuts):
        shown += lines.feed(data)
        assert hurried or all(one.endswith("\n") for one in shown)
        if hurried:
            shown += lines.let_go()
    shown += lines.end()
    assert "".join(shown) == text + ("\n" if text and not text.endswith("\n") else "")
    assert not list(lines.end()) and not lines.is_unfinished


@given(st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=6))
def test_bytes_that_are_no_text_are_shown_as_such(data: bytes, cuts: list[int]) -> None:
    lines = Lines()
    shown = [text for piece in cut(data, cuts) for text in lines.feed(piece)] + list(lines.end())
    whole = data.decode("utf-8", "backslashreplace")
    assert "".join(shown).removesuffix("\n") == whole.removesuffix("\n")


@pytest.mark.parametrize("size", [1, LONGEST_LINE_BYTES, 10 << 20])
def test_no_piece_is_endless(size: int) -> None:
    lines = Lines()
    shown = [text for piece in cut(b"x" * size, list(range(0, size, 4096))) for text in lines.feed(piece)]
    assert size - LONGEST_LINE_BYTES - 4096 <= len("".join(shown)) <= size
    shown += lines.end()
    assert "".join(shown) == "x" * size + "\n"
    assert max(map(len, shown)) <= PIECE_CHARACTERS


def test_half_a_character_waits() -> None:
    lines = Lines()
    assert list(lines.feed("50 €".encode()[:-1])) == []
    assert list(lines.let_go()) == ["50 "]
    assert list(lines.let_go()) == []
    assert list(lines.feed("€\n".encode()[2:])) == ["€\n"]
