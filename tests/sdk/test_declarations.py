"""Declarations that can't be: each is a program as a user writes it, and what it is told, with the way out."""

import textwrap
import warnings
from typing import Any

import pytest

import upswell
from upswell.exception import InvalidError


def declare(text: str) -> dict[str, Any]:
    """Run a program's declarations as a module's; returns its names."""
    names: dict[str, Any] = {"upswell": upswell, "app": upswell.App("declared"), "__name__": "declared"}
    exec(textwrap.dedent(text), names)
    return names


# What is written, the kind of error, and words of its message.
REFUSED = [
    # -- classes
    ("@app.cls\nclass C: ...", InvalidError, ["@app.cls needs parentheses", "@app.cls()"]),
    ("@app.cls()\ndef f(): ...", TypeError, ["@app.cls", "f", "@app.function"]),
    ("@app.function()\nclass C: ...", TypeError, ["@app.function", "C", "@app.cls"]),
    ("@app.cls(name='x')\nclass C: ...", TypeError, ["@app.cls", "'name'"]),
    ("@app.cls(min_containers=3, max_containers=2)\nclass C: ...", InvalidError, ["@app.cls", "(3)", "(2)"]),
    ("def f():\n @app.cls()\n class C: ...\nf()", InvalidError, ["@app.cls", "top level", "serialized=True"]),
    (
        "@app.cls()\nclass C:\n def __init__(self): ...",
        InvalidError,
        ["C", "__init__", "upswell.parameter()", "@upswell.enter()"],
    ),
    ("@app.cls()\n@app.cls()\nclass C: ...", InvalidError, ["C", "already"]),
    ("@app.cls()\nclass C:\n __slots__ = ()", InvalidError, ["C", "__slots__"]),
    ("@app.cls()\nclass C:\n @app.function()\n def f(self): ...", InvalidError, ["@app.function", "top level"]),
    (
        "@app.cls(retries=2)\nclass C:\n @upswell.method()\n def f(self): yield 1",
        InvalidError,
        ["@app.cls: C", "f is a generator", "retries"],
    ),
    # -- parameters
    ("@app.cls()\nclass C:\n x = upswell.parameter()", InvalidError, ["C.x", "no annotation", "str, int, bytes, bool"]),
    ("@app.cls()\nclass C:\n x: float = upswell.parameter()", InvalidError, ["C.x", "float", "str, int, bytes, bool"]),
    ("@app.cls()\nclass C:\n x: 'list[int]' = upswell.parameter()", InvalidError, ["C.x", "list[int]"]),
    ("@app.cls()\nclass C:\n x: int = upswell.parameter(default='3')", TypeError, ["C", "'x'", "int", "'3'"]),
    ("@app.cls()\nclass C:\n x: int = upswell.parameter(default=True)", TypeError, ["C", "'x'", "int", "True"]),
    # -- methods and hooks
    ("class C:\n @upswell.method\n def f(self): ...", InvalidError, ["@upswell.method needs parentheses"]),
    ("class C:\n @upswell.enter\n def f(self): ...", InvalidError, ["@upswell.enter needs parentheses"]),
    ("class C:\n @upswell.exit\n def f(self): ...", InvalidError, ["@upswell.exit needs parentheses"]),
    ("class C:\n f = upswell.method()(3)", TypeError, ["@upswell.method", "functions", "3"]),
    ("class C:\n f = upswell.enter()(3)", TypeError, ["@upswell.enter", "functions", "3"]),
    ("@upswell.method()\n@app.function()\ndef f(): ...", InvalidError, ["@upswell.method", "f"]),
    ("@app.function()\n@upswell.method()\ndef f(): ...", InvalidError, ["@app.function", "f", "@upswell.method()"]),
    ("class C:\n @upswell.enter()\n @upswell.method()\n def f(self): ...", InvalidError, ["@upswell.enter", "f"]),
    # -- concurrency
    (
        "@upswell.concurrent(max_inputs=2)\n@app.function()\ndef f(): ...",
        InvalidError,
        ["@upswell.concurrent", "f", "below @app.function()"],
    ),
    (
        "@upswell.concurrent(max_inputs=2)\n@app.cls()\nclass C: ...",
        InvalidError,
        ["@upswell.concurrent", "C", "between @app.cls() and the class"],
    ),
    (
        "class C:\n @upswell.concurrent(max_inputs=2)\n @upswell.method()\n def f(self): ...",
        InvalidError,
        ["@upswell.concurrent", "C.f", "on the class C"],
    ),
    (
        "class C:\n @upswell.method()\n @upswell.concurrent(max_inputs=2)\n def f(self): ...",
        InvalidError,
        ["@upswell.concurrent", "C.f", "on the class C"],
    ),
    (
        "@app.cls()\nclass C:\n @upswell.concurrent(max_inputs=2)\n def f(self): ...",
        InvalidError,
        ["@upswell.concurrent", "C.f", "on the class C"],
    ),
    ("upswell.concurrent(max_inputs=2, target_inputs=3)", InvalidError, ["@upswell.concurrent", "(3)", "(2)"]),
    ("upswell.concurrent(max_inputs=0)", InvalidError, ["@upswell.concurrent", "max_inputs", "0"]),
    ("upswell.concurrent(max_inputs='2')", InvalidError, ["@upswell.concurrent", "max_inputs", "'2'"]),
    ("@upswell.concurrent\ndef f(): ...", TypeError, ["max_inputs"]),
    # -- batches
    (
        "@upswell.batched(max_batch_size=2, wait_ms=1)\n@app.function()\ndef f(): ...",
        InvalidError,
        ["@upswell.batched", "f", "below @app.function()"],
    ),
    ("@upswell.batched(max_batch_size=2, wait_ms=1)\nclass C: ...", InvalidError, ["@upswell.batched", "C", "method"]),
    (
        "@upswell.batched(max_batch_size=2, wait_ms=1)\ndef f(xs): yield 1",
        InvalidError,
        ["@upswell.batched", "f", "generator"],
    ),
    (
        "@app.cls()\nclass C:\n @upswell.batched(max_batch_size=2, wait_ms=1)\n def f(self, xs): ...\n"
        " @upswell.method()\n def g(self): ...",
        InvalidError,
        ["C", "@upswell.batched", "only method"],
    ),
    ("upswell.batched(max_batch_size=0, wait_ms=1)", InvalidError, ["max_batch_size", "1"]),
    ("upswell.batched(max_batch_size=1001, wait_ms=1)", InvalidError, ["max_batch_size", "1000"]),
    ("upswell.batched(max_batch_size=2, wait_ms=600_001)", InvalidError, ["wait_ms", "600000"]),
    ("upswell.batched(max_batch_size=2, wait_ms=0.5)", InvalidError, ["wait_ms", "0.5"]),
]


@pytest.mark.parametrize(("text", "kind", "words"), REFUSED, ids=[text for text, _, _ in REFUSED])
def test_what_can_not_be_declared(text: str, kind: type[Exception], words: list[str]) -> None:
    with pytest.raises(kind) as caught:
        declare(text)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


CLASSES = """
    @app.cls()
    class Plain:
        @upswell.method()
        def f(self, x: int) -> int:
            return x

    @app.cls()
    class Sized:
        size: int = upswell.parameter()
        name: str = upswell.parameter(default="x")
        kept: object = upswell.parameter(init=False)

        @upswell.method()
        def f(self) -> int:
            return self.size

        @upswell.method()
        def g(self):
            yield self.size

    class Undeclared(Plain):
        pass

    @app.function()
    def function(x):
        return x
"""

MISUSED = [
    ("Sized()", TypeError, ["Sized", "'size'", "missing"]),
    ("Sized()", InvalidError, ["Sized", "'size'", "missing"]),
    ("Sized(size=1, length=2)", InvalidError, ["Sized", "'length'", "size, name"]),
    ("Plain(size=1)", TypeError, ["Plain", "'size'", "none"]),
    ("Sized(size='1')", TypeError, ["Sized", "'size'", "int", "'1'"]),
    ("Sized(size=True)", TypeError, ["Sized", "'size'", "int", "True"]),
    ("Sized(size=1, kept=3)", TypeError, ["Sized", "'kept'"]),
    ("Sized(3)", TypeError, ["Sized", "by name", "size=..."]),
    ("Sized(size=1).kept", AttributeError, ["Sized.kept"]),
    ("Plain.f.remote(3)", AttributeError, ["Plain.f", "object", "Plain(...).f.remote(...)"]),
    ("Plain.f.map([3])", AttributeError, ["Plain(...).f.map(...)"]),
    ("Plain.f(3)", TypeError, ["Plain.f", ".remote"]),
    ("Plain().f(3)", TypeError, ["Plain.f.remote", "Plain.f.local"]),
    ("Plain().f.remote(3)", InvalidError, ["Plain", "not running", "app.run()"]),
    ("Sized(size=1).g.remote()", InvalidError, ["Sized.g", "generator", "remote_gen"]),
    ("Undeclared()", InvalidError, ["Undeclared", "@app.cls()"]),
    ("Plain().f.update_autoscaler(min_containers=1)", InvalidError, ["Plain.f.update_autoscaler", "Plain(...)"]),
    ("Plain().f.autoscaler.settings()", InvalidError, ["Plain.f.autoscaler", "Plain(...)"]),
    ("Plain().f.with_options(cpu=1)", InvalidError, ["Plain.f.with_options", "class"]),
    ("Plain.with_options(cpus=1)", TypeError, ["Plain.with_options", "'cpus'"]),
    ("Plain.with_options(min_containers=1)", TypeError, ["Plain.with_options", "'min_containers'"]),
    ("Plain.with_options(cpu='a')", InvalidError, ["Plain.with_options", "cpu", "'a'"]),
    ("Plain.with_concurrency(max_inputs=0)", InvalidError, ["Plain.with_concurrency", "max_inputs"]),
    ("Sized.with_batching(max_batch_size=2, wait_ms=1)", InvalidError, ["Sized.with_batching", "one method"]),
    ("function.with_options(retries='x')", InvalidError, ["function.with_options", "retries", "'x'"]),
    ("function.with_options(timeout=0)", InvalidError, ["function.with_options", "timeout"]),
    ("function.with_concurrency(max_inputs=1, target_inputs=2)", InvalidError, ["function.with_concurrency", "(2)"]),
    ("function.with_batching(max_batch_size=0, wait_ms=0)", InvalidError, ["function.with_batching", "max_batch_size"]),
    ("function.autoscaler.update(min_containers=-1)", InvalidError, ["min_containers", "-1"]),
    ("upswell.Cls.from_name('a', 'b')", InvalidError, ["'a'", "'b'"]),
]


@pytest.mark.parametrize(("text", "kind", "words"), MISUSED, ids=[text for text, _, _ in MISUSED])
def test_what_can_not_be_done_with_what_is_declared(text: str, kind: type[Exception], words: list[str]) -> None:
    names = declare(CLASSES)
    with pytest.raises(kind) as caught:
        eval(text, names)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


def test_one_name_is_one_pool() -> None:
    text = "@app.function()\ndef C(): ...\n@app.cls()\nclass C: ...\n"
    with pytest.warns(UserWarning, match="C is declared twice in this app, and the later one wins"):
        names = declare(text)
    assert not names["app"].functions and list(names["app"].classes) == ["C"]


def test_the_class_stays_what_it_was() -> None:
    with warnings.catch_warnings():
        names = declare(CLASSES + "\n    @app.cls()\n    class Child(Sized):\n        LEVEL = 3\n")
    Sized, Child = names["Sized"], names["Child"]
    child = Child(size=4)
    assert (
        isinstance(child, Sized) and issubclass(Child, Sized) and (child.size, child.name, child.LEVEL) == (4, "x", 3)
    )
    assert child.f.local() == 4 and list(child.g.local()) == [4]
    assert isinstance(Sized.with_options(cpu=1)(size=3), Sized)
