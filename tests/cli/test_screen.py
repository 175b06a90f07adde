"""The live lines: what is printed goes above them, whole, and nothing of them is left."""

import io
import re
import sys
import threading

import click
import pytest

from upswell.cli import screen as screens
from upswell.cli.screen import Screen

ERASE = re.compile(r"\x1b\[(\d+)A\r\x1b\[J")


class Terminal(io.StringIO):
    """Keeps what a terminal would show: text, less what was erased."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        lines = [""]
        for piece in re.split(r"(\x1b\[\d+A\r\x1b\[J)", self.getvalue()):
            if erase := ERASE.fullmatch(piece):
                assert lines[-1] == "", "erased from within a line"
                del lines[-1 - int(erase[1]) :]
                lines.append("")
            else:
                first, *rest = piece.split("\n")
                lines[-1] += first
                lines += rest
        return lines


class Frames:
    """Live lines that are drawn when the test says so."""

    def __init__(self) -> None:
        self.drawn = threading.Semaphore(0)
        self.lines = "live\n"

    def __call__(self) -> str:
        self.drawn.release()
        return self.lines

    def wait(self) -> None:
        """Wait until a frame that was asked for after this call began is on the terminal."""
        while self.drawn.acquire(blocking=False):
            pass
        self.drawn.acquire()
        self.drawn.acquire()  # asked for again: the one before is drawn


def make_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make both streams a terminal; in the test itself, since pytest sets them anew after the fixtures."""
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_text_goes_above_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    frames = Frames()
    screen = Screen(frames)
    frames.wait()
    assert terminal.shown() == ["live", ""]
    print("one")
    print("two", file=sys.stderr, flush=True)
    assert terminal.shown() == ["one", "two", "live", ""]
    frames.lines = "a\nb\n"
    frames.wait()
    assert terminal.shown() == ["one", "two", "a", "b", ""]
    print("three")
    screen.close()
    assert terminal.shown() == ["one", "two", "three", ""]
    assert sys.stdout is terminal and sys.stderr is terminal


def test_an_unfinished_line_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    frames = Frames()
    screen = Screen(frames)
    frames.wait()
    print("name? ", end="", flush=True)
    frames.wait()
    assert terminal.shown() == ["name? "]
    print("Ada", flush=True)
    assert terminal.shown() == ["name? Ada", "live", ""]
    screen.close()
    assert terminal.shown() == ["name? Ada", ""]


def test_a_line_stays_whole_whoever_else_prints_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    frames = Frames()
    screen = Screen(frames)
    print("one ", end="")
    other = threading.Thread(target=print, args=("another",))
    other.start()
    other.join()
    frames.wait()
    print("half")
    print("and an end without one", end="")
    screen.close()
    assert terminal.shown() == ["another", "one half", "and an end without one"]


def test_lines_are_put_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    frames = Frames()
    screen = Screen(frames)
    frames.wait()
    monkeypatch.setattr(screens, "REFRESH_SECONDS", 3600.0)  # however long the printing takes
    for number in range(10_000):
        print(number)
    screen.close()
    assert terminal.shown() == [*map(str, range(10_000)), ""]
    assert terminal.getvalue().count("\x1b") < 10


def test_who_kept_the_stream_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    screen = Screen(Frames())
    kept = sys.stderr
    assert kept.isatty()
    screen.close()
    kept.write("later\n")
    kept.flush()
    assert terminal.shown()[-2:] == ["later", ""]


def test_bytes_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by any stream of text: click looks so whether it is one."""
    terminal = make_terminal(monkeypatch)
    screen = Screen(Frames())
    with pytest.raises(TypeError, match="must be str, not bytes"):
        sys.stdout.write(b"")  # type: ignore[arg-type]
    click.echo("by click")
    screen.close()
    assert terminal.shown() == ["by click", ""]


def test_a_stream_that_is_no_terminal_is_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr(sys, "stderr", terminal)
    screen = Screen(Frames())
    print("result")
    assert pipe.getvalue() == "result\n"
    screen.close()
