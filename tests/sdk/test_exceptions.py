"""Exceptions of user code arrive as what they were, whatever their classes do."""

import errno
import threading

import pytest

from upswell.errors import RemoteError
from upswell.wire.payload import pack_exception, unpack_exception


class Broken(Exception):
    def __init__(self, part: str, *, severity: int) -> None:
        super().__init__(f"{part} is broken")
        self.part = part
        self.severity = severity


class Slotted(Exception):
    __slots__ = ("part",)

    def __init__(self, part: str) -> None:
        super().__init__("slotted")
        self.part = part


class Connected(Exception):
    def __init__(self) -> None:
        super().__init__("lost the connection")
        self.lock = threading.Lock()
        self.attempts = 3


class Missing(FileNotFoundError):
    def __init__(self, path: str, why: str) -> None:
        super().__init__(errno.ENOENT, "not there", path)
        self.why = why


class Group(ExceptionGroup[ValueError]):
    pass


class Reduced(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__("by its own means")
        self.left, self.right = left, right

    def __reduce__(self) -> tuple[object, ...]:
        return Reduced, (self.left, self.right)


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Stop(BaseException):
    pass


def arrived(error: BaseException) -> BaseException:
    return unpack_exception(*pack_exception(error))


@pytest.mark.parametrize(
    "error",
    [
        Broken("wheel", severity=3),
        Slotted("wheel"),
        Missing("/there", "moved"),
        Stop("at once"),
        SystemExit(7),
        StopIteration(5),
        KeyError("absent"),
        OSError(errno.EACCES, "no", "/there"),
        ImportError("no such", name="that", path="/there"),
        SyntaxError("wrong", ("file.py", 3, 1, "a b", 3, 4)),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ExceptionGroup("some", [ValueError(1), KeyError(2)]),
        Group("some", [ValueError(1)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_it_is_the_same(error: BaseException) -> None:
    error.add_note("with a note")
    there = arrived(error)
    assert type(there) is type(error)
    assert (str(there), repr(there)) == (str(error), repr(error))
    attributes = "part severity why left right code value errno filename name path lineno object reason __notes__"
    for name in attributes.split():
        assert getattr(there, name, None) == getattr(error, name, None), name
    if isinstance(error, BaseExceptionGroup):
        assert isinstance(there, BaseExceptionGroup)
        assert list(map(repr, there.exceptions)) == list(map(repr, error.exceptions))


def test_what_it_carries_and_cannot_travel_is_left_behind() -> None:
    there = arrived(Connected())
    assert isinstance(there, Connected)
    assert (str(there), there.attempts, hasattr(there, "lock")) == ("lost the connection", 3, False)


def test_one_that_says_how_it_is_pickled() -> None:
    there = arrived(Reduced(1, 2))
    assert isinstance(there, Reduced)
    assert (there.left, there.right) == (1, 2)


def test_one_without_words_keeps_its_class() -> None:
    assert type(arrived(Untellable(1))) is Untellable


def test_one_whose_arguments_cannot_travel_is_told() -> None:
    there = arrived(ValueError(threading.Lock()))
    assert isinstance(there, RemoteError)
    assert "ValueError" in str(there) and "lock" in str(there)
