"""Options from signatures: what each type takes, what is refused, and that Python's own defaults are used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import click
import pytest

from upswell.cli.options import bind

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


def call(raw: Callable[..., Any], *arguments: str) -> Any:
    bound = bind(raw, arguments, "program")
    return raw(*bound.args, **bound.kwargs)


def refused(raw: Callable[..., Any], *arguments: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        bind(raw, arguments, "program")
    return caught.value.format_message()


def plain(
    text: str, count: int, ratio: float = 0.5, loud: bool = False, when: datetime | None = None
) -> tuple[Any, ...]:
    return text, count, ratio, loud, when


def test_each_plain_type() -> None:
    assert call(plain, "--text", "a b", "--count=-3") == ("a b", -3, 0.5, False, None)
    given = call(plain, "--text=", "--count", "1", "--ratio", "2", "--loud", "--when", "2024-05-06T07:08:09")
    assert given == ("", 1, 2.0, True, datetime(2024, 5, 6, 7, 8, 9))
    assert type(given[2]) is float
    assert call(plain, "--text", "x", "--count", "1", "--when", "2024-05-06")[4] == datetime(2024, 5, 6)


def test_a_flag_has_two_faces() -> None:
    def main(cold_start: bool = True) -> bool:
        return cold_start

    def required(flag: bool) -> bool:
        return flag

    assert call(main) is True
    assert call(main, "--no-cold-start") is False
    assert call(main, "--cold-start") is True
    assert call(required, "--no-flag") is False
    assert "--flag" in refused(required)


def test_optional_and_literal() -> None:
    def main(
        size: Optional[int] = None,  # noqa: UP045 - the older spelling is in many programs
        mode: Literal["fast", "exact"] = "fast",
        level: Literal[1, 2] | None = None,
        note: Annotated[str, "shown"] = "",
    ) -> tuple[object, ...]:
        return size, mode, level, note

    assert call(main) == (None, "fast", None, "")
    assert call(main, "--size", "3", "--mode", "exact", "--level", "2", "--note", "n") == (3, "exact", 2, "n")
    assert "'fast', 'exact'" in refused(main, "--mode", "slow")


def test_without_annotations_the_default_tells() -> None:
    def main(name, times=2, at=None, share=0.1):  # type: ignore[no-untyped-def]
        return name, times, at, share

    assert call(main, "--name", "7", "--times", "3", "--at", "x") == ("7", 3, "x", 0.1)
    assert "'x' is not a valid integer" in refused(main, "--name", "a", "--times", "x")


def test_raw_arguments() -> None:
    def main(*words: str) -> tuple[str, ...]:
        return words

    def mixed(first: str, *words: str) -> None: ...

    assert call(main, "--flag", "a", "--", "-x") == ("--flag", "a", "--", "-x")
    assert call(main) == ()
    assert "only parameter" in refused(mixed, "--first", "a")


def test_every_kind_of_parameter_receives_its_value() -> None:
    def main(first: int = 1, /, second: int = 2, *, third: int = 3, **rest: object) -> tuple[int, int, int]:
        assert not rest
        return first, second, third

    assert call(main, "--second", "5") == (1, 5, 3)
    assert call(main, "--third", "6", "--first", "4") == (4, 2, 6)


def test_a_type_that_no_option_can_give() -> None:
    def needed(rows: list[int]) -> None: ...

    def defaulted(rows: list[int] | None = None, unknown: Unknown | None = None) -> tuple[object, object]:
        return rows, unknown

    assert "parameter 'rows'" in refused(needed)
    assert call(defaulted) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", "a"], "--count"),
        (["--text", "a", "--count", "many"], "not a valid integer"),
        (["--text", "a", "--count", "1", "--loudd"], "--loudd"),
        (["--text", "a", "--count", "1", "stray"], "stray"),
        (["--text"], "--text"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], words: str) -> None:
    assert words in refused(plain, *arguments)


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    def main(input_path: str, top: int = 10) -> None:
        """Rank the modules."""

    with pytest.raises(click.exceptions.Exit) as caught:
        bind(main, ["--help"], "upswell run census.py")
    assert caught.value.exit_code == 0
    shown = capsys.readouterr().out
    for words in ("upswell run census.py", "Rank the modules.", "--input-path TEXT", "[required]", "default 10"):
        assert words in shown


def test_a_default_is_pythons_own() -> None:
    marker = object()

    def main(name: str = marker) -> object:  # type: ignore[assignment]
        return name

    assert call(main) is marker
    assert inspect.signature(main).parameters["name"].default is marker
