"""Every misuse there is: each is a program as a user writes it, and what it is told, with the way out.

What goes wrong only in a running app is in `tests/acceptance/test_misuse.py`.
"""

import pickle
import textwrap
from typing import Any

import pytest

import upswell
from upswell.exception import InvalidError


def declare(text: str) -> dict[str, Any]:
    """Run a program's declarations as a module's; returns its names."""
    names: dict[str, Any] = {
        "pickle": pickle,
        "upswell": upswell,
        "app": upswell.App("declared"),
        "__name__": "declared",
    }
    exec(textwrap.dedent(text), names)
    return names


def test_a_verb_that_was_not_called_says_so() -> None:
    function = declare("@app.function()\ndef f(): ...")["f"]
    assert repr(function.remote) == "<Function.remote: call it, or await its .aio(...)>"


# What is written, the kind of error, and words of its message.
REFUSED = [
    # -- apps
    ("upswell.App('two words')", InvalidError, ["app name", "'two words'", "letters"]),
    (f"upswell.App('{'x' * 65}')", InvalidError, ["app name", "64"]),
    ("upswell.App('')", InvalidError, ["app name", "''"]),
    ("upswell.App(nme='x')", TypeError, ["App", "'nme'"]),
    ("app.include(3)", TypeError, ["App.include", "3"]),
    (
        "other = upswell.App()\n@app.function()\ndef f(): ...\n@other.function()\ndef f(): ...\napp.include(other)",
        InvalidError,
        ["'f'", "another name"],
    ),
    ("upswell.App().deploy()", InvalidError, ["app.deploy", "no name", "upswell.App('census')"]),
    ("app.deploy(name='two words')", InvalidError, ["app name", "'two words'"]),
    ("app.deploy(strategy='slow')", InvalidError, ["app.deploy", "strategy", "'rolling' or 'recreate'", "'slow'"]),
    ("app.deploy(tag=3)", InvalidError, ["app.deploy", "tag", "3"]),
    ("app.deploy('other')", TypeError, ["App.deploy", "positional"]),
    ("app.stop()", InvalidError, ["App('declared'", "not deployed", "look it up"]),
    ("upswell.App.lookup('two words')", InvalidError, ["app name", "'two words'"]),
    ("upswell.Function.from_name('app', 'two words')", InvalidError, ["function name", "'two words'"]),
    ("upswell.Function.from_name('two words', 'f')", InvalidError, ["app name", "'two words'"]),
    ("upswell.Function.from_name('app', 'f', version=0)", InvalidError, ["function 'f'", "version", "0"]),
    (
        "upswell.Function.from_name('app', 'f', version=1 << 32)",
        InvalidError,
        ["version", "4294967296"],
    ),
    ("upswell.Cls.from_name('app', 'two words')", InvalidError, ["class name", "'two words'"]),
    ("upswell.FunctionCall.gather([1, 2])", TypeError, ["FunctionCall.gather(*calls)", "[1, 2]"]),
    # -- what Modal's SDK has besides
    ("upswell.asgi_app", AttributeError, ["'asgi_app'", "no web endpoints", "upswell.Function.from_name"]),
    ("upswell.gpu.A100(count=2)", AttributeError, ["'gpu'", "gpu='A10G'"]),
    ("upswell.Sandbox.create()", AttributeError, ["'Sandbox'", "a function of an app"]),
    (
        "from upswell import App, web_endpoint",
        ImportError,
        ["'web_endpoint'", "no web endpoints", "Function.from_name"],
    ),
    ("import upswell as modal\nhasattr(modal, 'Sandbox') or modal.Sandbox", AttributeError, ["'Sandbox'"]),
    ("from upswell import Ap", ImportError, ["cannot import name 'Ap'"]),
    ("upswell.Ap", AttributeError, ["has no attribute 'Ap'"]),
    ("upswell.build", AttributeError, ["no image builds", "upswell.enter()"]),
    # -- local entrypoints
    ("@app.local_entrypoint\ndef main(): ...", InvalidError, ["@app.local_entrypoint needs parentheses"]),
    ("@app.local_entrypoint()\nclass C: ...", TypeError, ["@app.local_entrypoint", "functions", "C"]),
    ("app.local_entrypoint()(3)", TypeError, ["@app.local_entrypoint", "functions", "3"]),
    (
        "for _ in range(2):\n @app.local_entrypoint()\n def main(): ...",
        InvalidError,
        ["@app.local_entrypoint", "'main'", "already"],
    ),
    (
        "@app.local_entrypoint()\n@app.function()\ndef f(): ...",
        InvalidError,
        ["@app.local_entrypoint", "f", "in containers", "another one"],
    ),
    (
        "@app.function()\n@app.local_entrypoint()\ndef f(): ...",
        InvalidError,
        ["@app.function", "f", "local entrypoint", "another one"],
    ),
    # -- functions
    ("@app.function\ndef f(): ...", InvalidError, ["@app.function needs parentheses", "@app.function()"]),
    ("app.function()(3)", TypeError, ["@app.function", "functions", "3"]),
    ("app.function(serialized=True)(lambda: 3)", InvalidError, ["@app.function", "lambda", "name='f'"]),
    ("@app.function(name='a b')\ndef f(): ...", InvalidError, ["function name", "'a b'", "letters"]),
    ("@app.function()\n@app.function()\ndef f(): ...", InvalidError, ["@app.function", "f", "already"]),
    ("@app.function(cpus=1)\ndef f(): ...", TypeError, ["@app.function", "'cpus'", "did you mean cpu?"]),
    ("@app.function(keep_warm=1)\ndef f(): ...", TypeError, ["@app.function", "'keep_warm'", "min_containers"]),
    ("@app.function(nonsense=1)\ndef f(): ...", TypeError, ["@app.function has no parameter 'nonsense'"]),
    (
        "def f():\n @app.function()\n def g(): ...\nf()",
        InvalidError,
        ["@app.function", "g", "top level", "serialized=True"],
    ),
    *(
        (f"@app.function({option})\ndef f(): ...", InvalidError, ["@app.function", *words])
        for option, words in [
            ("min_containers=-1", ["min_containers", "at least 0", "-1"]),
            ("min_containers='1'", ["min_containers", "whole number", "'1'"]),
            ("min_containers=3, max_containers=2", ["min_containers (3)", "max_containers (2)"]),
            ("max_containers=0", ["max_containers", "at least 1", "0"]),
            ("max_containers=10**30", ["max_containers", "at most"]),
            ("buffer_containers=-1", ["buffer_containers", "at least 0", "-1"]),
            ("scaledown_window=1", ["scaledown_window", "between 2 and 3600 seconds", "1"]),
            ("scaledown_window=3601", ["scaledown_window", "between 2 and 3600 seconds", "3601"]),
            ("scaledown_window=2.5", ["scaledown_window", "whole number", "2.5"]),
            ("timeout=None", ["timeout", "seconds", "None"]),
            ("timeout=0", ["timeout", "seconds", "0"]),
            ("timeout='3'", ["timeout", "seconds", "'3'"]),
            ("timeout=86401", ["timeout", "86400", "86401"]),
            ("startup_timeout=0", ["startup_timeout", "seconds", "0"]),
            ("retries='2'", ["retries", "upswell.Retries", "'2'"]),
            ("retries=1.5", ["retries", "upswell.Retries", "1.5"]),
            ("retries=-1", ["retries", "at least 0", "-1"]),
            ("cpu=-1", ["cpu", "cores", "-1"]),
            ("cpu='2'", ["cpu", "cores", "'2'"]),
            ("gpu='A10G:none'", ["gpu", "'A10G:2' for two", "'A10G:none'"]),
            ("gpu=2", ["gpu", "a kind such as 'A10G'", "2"]),
            ("memory='1g'", ["memory", "whole number", "'1g'"]),
            ("memory=(1, '2g')", ["memory", "whole number", "'2g'"]),
            ("cpu=(1, 2, 3)", ["cpu", "cores", "(1, 2, 3)"]),
            ("env=3", ["env", "dict of text to text", "int"]),
            ("env={'A': 3}", ["env", "text to text", "'A': 3"]),
            ("secrets=3", ["secrets", "list of upswell.Secret", "int"]),
            ("secrets=[3]", ["secrets", "list of upswell.Secret", "int"]),
            ("image='x'", ["image", "upswell.Image", "'x'"]),
            ("schedule='* * * * *'", ["schedule of f", "upswell.Cron", "'* * * * *'"]),
        ]
    ),
    ("@app.function(retries=1)\ndef f(): yield 1", InvalidError, ["@app.function", "f is a generator", "retries"]),
    (
        "@app.function(schedule=upswell.Period(hours=1))\ndef f(x, y=1): ...",
        InvalidError,
        ["@app.function", "schedule of f", "'x' has no default"],
    ),
    (
        "@app.function(schedule=upswell.Period(hours=1))\ndef f(): yield 1",
        InvalidError,
        ["@app.function", "schedule of f", "generator"],
    ),
    # -- schedules and retries
    ("upswell.Retries()", TypeError, ["max_retries"]),
    ("upswell.Retries(max_retries=-1)", InvalidError, ["Retries", "max_retries", "at least 0", "-1"]),
    ("upswell.Retries(max_retries='1')", InvalidError, ["Retries", "max_retries", "'1'"]),
    *(
        (f"upswell.Retries(max_retries=1, {option})", InvalidError, ["Retries", *words])
        for option, words in [
            ("max_delay=0", ["max_delay", "between 1 and 60 seconds", "0"]),
            ("max_delay=61", ["max_delay", "between 1 and 60 seconds", "61"]),
            ("initial_delay=-1", ["initial_delay", "between 0 and 60 seconds", "-1"]),
            ("initial_delay=61", ["initial_delay", "between 0 and 60 seconds", "61"]),
            ("initial_delay='1'", ["initial_delay", "between 0 and 60 seconds", "'1'"]),
            ("backoff_coefficient=0.9", ["backoff_coefficient", "between 1.0 and 10.0", "0.9"]),
            ("backoff_coefficient=11", ["backoff_coefficient", "between 1.0 and 10.0", "11"]),
        ]
    ),
    ("upswell.Cron('* * * *')", InvalidError, ["Cron('* * * *')", "five fields"]),
    ("upswell.Cron(5)", InvalidError, ["Cron(5)", "five fields"]),
    ("upswell.Cron('61 * * * *')", InvalidError, ["Cron('61 * * * *')", "minute"]),
    ("upswell.Cron('0 0 31 2 *')", InvalidError, ["Cron('0 0 31 2 *')"]),
    ("upswell.Cron('* * * * *', timezone='Mars')", InvalidError, ["Cron", "'Mars'", "'Europe/Berlin'"]),
    ("upswell.Period()", InvalidError, ["Period", "length", "Period(hours=1)"]),
    ("upswell.Period(days=-1)", InvalidError, ["Period", "days", "-1"]),
    ("upswell.Period(hours=0.5)", InvalidError, ["Period", "hours", "whole number", "0.5"]),
    ("upswell.Period(seconds=float('nan'))", InvalidError, ["Period", "seconds", "nan"]),
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
    ("upswell.batched(max_batch_size=2, wait_ms=-1)", InvalidError, ["@upswell.batched", "wait_ms", "-1"]),
    ("upswell.batched(max_batch_size=2, wait_ms=0.5)", InvalidError, ["@upswell.batched", "wait_ms", "0.5"]),
    ("upswell.batched(max_batch_size='2', wait_ms=1)", InvalidError, ["@upswell.batched", "max_batch_size", "'2'"]),
    ("@upswell.batched\ndef f(): ...", TypeError, ["batched", "max_batch_size"]),
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

    @app.function()
    def generator(x):
        yield x
"""

MISUSED = [
    # -- functions
    ("function(3)", TypeError, ["function.remote", "function.local", "function.map"]),
    ("list(map(function, [3]))", TypeError, ["function.remote", "function.local", "function.map"]),
    ("function.remote(3)", InvalidError, ["function", "not running", "app.run()", "upswell run"]),
    ("list(function.map([3]))", InvalidError, ["function", "not running", "app.run()"]),
    ("function.spawn(3)", InvalidError, ["function", "not running", "app.run()"]),
    ("function.get_current_stats()", InvalidError, ["function", "not running", "app.run()"]),
    ("function.remote_gen(3)", InvalidError, ["function", "no generator", "function.remote(...)", ".remote_gen"]),
    ("generator.remote(3)", InvalidError, ["generator.remote_gen(...)", "not .remote"]),
    ("generator.spawn(3)", InvalidError, ["generator.remote_gen(...)", "not .spawn"]),
    ("generator.map([3])", InvalidError, ["generator.remote_gen(...)", "not .map"]),
    ("generator.starmap([(3,)])", InvalidError, ["generator.remote_gen(...)", "not .starmap"]),
    ("generator.for_each([3])", InvalidError, ["generator.remote_gen(...)", "not .for_each"]),
    ("generator.spawn_map([3])", InvalidError, ["generator.remote_gen(...)", "not .spawn_map"]),
    ("function.map()", TypeError, ["function.map", "at least one iterable"]),
    ("function.starmap()", TypeError, ["function.starmap", "at least one iterable"]),
    ("function.for_each()", TypeError, ["function.for_each", "at least one iterable"]),
    ("function.map([3], y=4)", TypeError, ["function.map", "'y'", "kwargs={'y': ...}"]),
    ("function.map([3], return_exception=True)", TypeError, ["function.map", "did you mean return_exceptions?"]),
    ("function.starmap([(3,)], ordered=False)", TypeError, ["function.starmap", "'ordered'", "kwargs="]),
    ("function.spawn_map()", TypeError, ["function.spawn_map", "at least one iterable"]),
    ("function.map(3)", TypeError, ["function.map", "iterables", "3", ".remote"]),
    ("function.spawn_map(3)", TypeError, ["function.spawn_map", "iterables", "3"]),
    ("function.starmap([(1,)], [(2,)])", TypeError, ["function.starmap", "one iterable", "[(1, 2), (3, 4)]"]),
    ("pickle.dumps(function)", TypeError, ["function", "pickled", "import its module"]),
    # -- calls
    ("upswell.FunctionCall.from_id(3)", TypeError, ["FunctionCall.from_id", "object_id", "3"]),
    ("upswell.FunctionCall.from_id('')", InvalidError, ["''", "object_id"]),
    ("upswell.FunctionCall.from_id('fc-1\\n')", InvalidError, ["'fc-1\\n'", "object_id"]),
    ("upswell.FunctionCall.from_id('fc-' + 'x' * 300)", InvalidError, ["'fc-xxx", "object_id"]),
    ("app.deploy(tag='x' * 301)", InvalidError, ["app.deploy: tag", "300 characters", "301"]),
    ("app.deploy(tag='\\ud800')", InvalidError, ["'\\ud800' is no text"]),
    ("upswell.FunctionCall.from_id('fc-1').get(timout=1)", TypeError, ["FunctionCall.get()", "'timout'"]),
    ("upswell.FunctionCall.from_id('fc-1').get(index=-1)", InvalidError, ["-1"]),
    ("upswell.FunctionCall.from_id('fc-1').iter(start=-1)", InvalidError, ["-1"]),
    # -- settings
    ("function.update_autoscaler(min_containers=1)", InvalidError, ["function", "not running", "app.run()"]),
    *(
        (f"function.{verb}({option})", kind, [verb, *words])
        for verb in ("update_autoscaler", "autoscaler.update")
        for option, kind, words in [
            ("window=3", TypeError, ["'window'"]),
            ("min_containers=-1", InvalidError, ["function", "min_containers", "-1"]),
            ("min_containers='1'", InvalidError, ["function", "min_containers", "'1'"]),
            ("max_containers=0", InvalidError, ["function", "max_containers", "0"]),
            ("scaledown_window=1", InvalidError, ["function", "scaledown_window", "between 2 and 3600", "1"]),
            ("min_containers=3, max_containers=2", InvalidError, ["function", "(3)", "(2)"]),
        ]
    ),
    ("generator.with_options(retries=1)", InvalidError, ["generator.with_options", "generator", "retries"]),
    ("generator.with_batching(max_batch_size=2, wait_ms=1)", InvalidError, ["generator.with_batching", "list"]),
    ("function.with_options(cpus=1)", TypeError, ["function.with_options", "'cpus'"]),
    ("function.with_options(min_containers=1)", TypeError, ["function.with_options", "'min_containers'"]),
    # -- classes
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
