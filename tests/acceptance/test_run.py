"""`upswell run`: what can be named, what is picked, which options a program has, and what a wrong one is told."""

import sys

import pytest

from .processes import SECONDS_TO_RUN, UPSWELL, Program

CENSUS = """
    import upswell as modal

    app = modal.App("census")

    @app.function()
    def evaluate_model(x):
        return x ** 2

    @app.local_entrypoint()
    def main():
        for result in evaluate_model.map(range(100)):
            print(result)
"""
SQUARES = "".join(f"{x * x}\n" for x in range(100))

TOOLBOX = """
    from __future__ import annotations

    from datetime import datetime
    from typing import Literal, Optional

    import upswell

    app = upswell.App("toolbox")

    @app.function()
    def square(x: int) -> int:
        return x * x

    @app.function()
    def shout(text: str, times: int = 2) -> None:
        print(text.upper() * times)

    @app.local_entrypoint()
    def every(name: str, top_count: int = 3, ratio: float = 0.5, loud: bool = False, when: Optional[datetime] = None,
              mode: Literal["fast", "exact"] = "fast"):
        print(name, top_count, ratio, loud, when, mode)

    @app.local_entrypoint()
    def raw(*words):
        print(words)

    @app.local_entrypoint()
    async def asynchronous(x: int = 3):
        print(await square.remote.aio(x), [y async for y in square.map.aio(range(x))])
"""


def test_the_census(program: Program) -> None:
    program.write(CENSUS)
    done = program.upswell("run", "program.py")
    assert (done.status, done.out, done.err) == (0, SQUARES, "")


def test_from_standard_input(program: Program) -> None:
    done = program.upswell("run", "-", given=program.write(CENSUS, "kept").read_text())
    assert (done.status, done.out, done.err) == (0, SQUARES, "")


@pytest.mark.parametrize("name", ["my-census.py", "2024.py", "calendar.py"])
def test_a_file_may_have_any_name(program: Program, name: str) -> None:
    program.write(CENSUS, name)
    assert program.upswell("run", name).out == SQUARES


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["every", "--name", "a b"], "a b 3 0.5 False None fast\n"),
        (
            ["every", "--name=x", "--top-count", "7", "--ratio=2", "--loud", "--when=2024-05-06", "--mode", "exact"],
            "x 7 2.0 True 2024-05-06 00:00:00 exact\n",
        ),
        (["raw", "--any", "thing", "1"], "('--any', 'thing', '1')\n"),
        (["asynchronous", "--x", "4"], "16 [0, 1, 4, 9]\n"),
        (["square", "--x", "12"], "144\n"),
        (["shout", "--text", "ha"], "HAHA\n"),
    ],
)
def test_entrypoints_and_functions(program: Program, arguments: list[str], out: str) -> None:
    program.write(TOOLBOX)
    done = program.upswell("run", f"program.py::{arguments[0]}", *arguments[1:])
    assert (done.status, done.out, done.err) == (0, out, "")


def test_the_only_function_is_picked(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App()

        @app.function()
        def square(x: int):
            return x * x
    """)
    assert program.upswell("run", "-q", "program.py", "--x", "5").out == "25\n"


def test_a_module_with_relative_imports(program: Program) -> None:
    program.write("", "package/__init__.py")
    program.write("FACTOR = 3\n\ndef scale(x):\n    return x * FACTOR\n", "package/scaling.py")
    program.write(
        """
        import upswell
        from .scaling import scale

        app = upswell.App("scaling")

        @app.function()
        def scaled(x):
            from . import scaling
            return scale(x) + scaling.FACTOR

        @app.local_entrypoint()
        def main():
            print(list(scaled.map([1, 2])))
        """,
        "package/job.py",
    )
    assert program.upswell("run", "-m", "package.job").out == "[6, 9]\n"
    assert program.upswell("run", "-m", "package.job::main").out == "[6, 9]\n"
    done = program.upswell("run", "package/job.py")
    assert done.status == 1
    assert "upswell run -m package.module" in done.err


def test_modules_beside_the_script(program: Program) -> None:
    program.write("def double(x):\n    return 2 * x\n", "doubling.py")
    program.write(
        """
        import upswell
        from doubling import double

        app = upswell.App()

        @app.function()
        def doubled(x: int):
            import doubling
            assert doubling.double is double
            return double(x)
        """,
        "scripts/../program.py",
    )
    assert program.upswell("run", "program.py", "--x", "4").out == "8\n"


MODAL_PROGRAM = """
    import modal
    from modal.call_graph import InputStatus
    from modal.exception import InvalidError

    app = modal.App("ported")

    @app.function()
    def square(x: int):
        import upswell
        assert modal is upswell and issubclass(InvalidError, upswell.exception.Error)
        assert InputStatus is upswell.call_graph.InputStatus
        return x * x
"""


def test_a_program_that_imports_modal(program: Program) -> None:
    program.write(MODAL_PROGRAM)
    done = program.upswell("run", "program.py", "--x", "3")
    assert (done.status, done.out) == (0, "9\n")
    assert done.err == "upswell: in program.py, modal is upswell\n"


def test_as_modal_goes_before_an_installed_one(program: Program) -> None:
    program.write(MODAL_PROGRAM)
    program.write("raise RuntimeError('the other one')\n", "modal.py")
    done = program.upswell("run", "-q", "--as-modal", "program.py", "--x", "3")
    assert (done.status, done.out, done.err) == (0, "9\n", "")
    assert "the other one" in program.upswell("run", "program.py", "--x", "3").err


TWO_APPS = "import upswell\none = upswell.App('first')\ntwo = upswell.App('second')\n"
NO_FUNCTION = "import upswell\napp = upswell.App()\n"


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        (CENSUS, ["missing.py"], "there is no file missing.py"),
        (CENSUS, ["."], "is a directory"),
        (CENSUS, ["-m", "no.such.module"], "there is no module no.such.module"),
        (CENSUS, ["-m", "program.py"], "there is no module program.py"),
        (CENSUS, ["program.py::"], "FILE::NAME"),
        (CENSUS, ["program.py::mian"], "nothing named 'mian'; there are: main, evaluate_model"),
        (CENSUS, ["program.py", "--colour", "red"], "--colour"),
        (CENSUS, ["program.py", "stray"], "stray"),
        (CENSUS, ["program.py::evaluate_model"], "--x"),
        (CENSUS, ["--loud", "program.py"], "--loud"),
        (CENSUS, [], "FILE"),
        (TOOLBOX, ["program.py"], "3 local entrypoints (every, raw, asynchronous)"),
        (TOOLBOX, ["program.py::square", "--x", "many"], "'many' is not a valid integer"),
        ("x = 1\n", ["program.py"], "program.py has no app"),
        (TWO_APPS, ["program.py"], "2 apps ('first', 'second')"),
        (NO_FUNCTION, ["program.py"], "no function and no local entrypoint"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(
    program: Program, text: str, arguments: list[str], words: str
) -> None:
    program.write(text)
    done = program.upswell("run", *arguments)
    assert done.status == 2
    assert done.out == ""
    assert words in done.err
    assert done.err.startswith("upswell: ") and done.err.count("\n") == 1, done.err


@pytest.mark.parametrize("engine", ["spwn", "ray"])
def test_an_engine_that_there_is_not(program: Program, engine: str) -> None:
    program.variables["UPSWELL_ENGINE"] = engine
    program.write("print('ran')\nimport upswell\napp = upswell.App()\nwith app.run(): pass\n")
    done = program.upswell("run", "program.py")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"upswell: there is no engine '{engine}'") and done.err.count("\n") == 1
    assert "UPSWELL_ENGINE is local or spawn" in done.err
    script = program.run(sys.executable, "program.py")
    assert (script.status, script.out) == (1, "ran\n")
    assert f"InvalidError: there is no engine '{engine}'" in script.err.splitlines()[-1], script.err


def test_an_unknown_command(program: Program) -> None:
    done = program.upswell("rnu")
    assert done.status == 2
    assert "rnu" in done.err and done.err.count("\n") == 1


def test_help_and_version(program: Program) -> None:
    program.write(TOOLBOX)
    assert program.upswell("--version").out.startswith("upswell ")
    assert "run" in program.upswell().out
    for words in ("FILE[::NAME]", "--as-modal", "Exit status"):
        assert words in program.upswell("run", "--help").out
    shown = program.upswell("run", "program.py::every", "--help")
    assert shown.status == 0
    assert "--top-count INTEGER" in shown.out and "--loud / --no-loud" in shown.out


def test_a_syntax_error_is_shown_where_it_is(program: Program) -> None:
    program.write("import upswell\napp = upswell.App(\n")
    done = program.upswell("run", "program.py")
    assert (done.status, done.out) == (1, "")
    assert 'program.py", line 2' in done.err and "SyntaxError: '(' was never closed" in done.err
    assert "Traceback" not in done.err


def test_names_that_python_can_not_read_are_refused_with_what_helps(program: Program) -> None:
    """Paths and arguments travel as text, which a Python that is kept from UTF-8 does not make of them."""
    program.write("import upswell\napp = upswell.App()\n@app.function()\ndef f(): ...\n", "größe/program.py")
    program.variables.update(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    refused = program.run("sh", "-c", 'cd gr* && exec "$@"', "sh", *UPSWELL, "run", "program.py::f")
    assert (refused.status, refused.out) == (1, "")
    assert "is no text in ascii: rename it, or have Python use UTF-8 (PYTHONUTF8=1)" in refused.err
    assert "Traceback" not in refused.err
    program.variables["UPSWELL_HOME"] = "größe"
    refused = program.upswell("server", "start")
    assert (refused.status, refused.out) == (1, "")
    assert "is no text in ascii: rename it, or have Python use UTF-8 (PYTHONUTF8=1)" in refused.err


@pytest.mark.parametrize("where", ["import", "entrypoint", "loop"])
def test_the_users_exception_with_the_users_frames(program: Program, where: str) -> None:
    calls = {"import": "fail()", "entrypoint": "@app.local_entrypoint()\ndef main():\n    fail()"}
    calls["loop"] = calls["entrypoint"].replace("def", "async def")
    program.write(f"import upswell\napp = upswell.App()\ndef fail():\n    {{}}['absent']\n{calls[where]}\n")
    done = program.upswell("run", "program.py")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Traceback (most recent call last):\n") and done.err.endswith("KeyError: 'absent'\n")
    files = {line.split('"')[1].rpartition("/")[2] for line in done.err.splitlines() if line.startswith("  File")}
    assert files == {"program.py"}


def test_an_assertion_of_a_function_is_no_defect_of_ours(program: Program) -> None:
    entrypoint = "@app.local_entrypoint()\ndef main():\n    check.remote(0)\n"
    program.write(f"import upswell\napp = upswell.App()\n@app.function()\ndef check(x):\n    assert x\n{entrypoint}")
    done = program.upswell("run", "program.py")
    assert (done.status, done.out) == (1, "")
    files = [line.split('"')[1].rpartition("/")[2] for line in done.err.splitlines() if line.startswith("  File")]
    assert files == ["program.py", "program.py"], done.err


def test_a_declaration_that_is_refused(program: Program) -> None:
    program.write("import upswell\napp = upswell.App()\n@app.function(scaledown_window=1)\ndef f(): ...\n")
    done = program.upswell("run", "program.py")
    assert done.status == 1
    assert "scaledown_window must be between 2 and 3600 seconds, not 1" in done.err


def test_the_programs_own_exit_status(program: Program) -> None:
    program.write("""
        import sys, upswell

        app = upswell.App()

        @app.local_entrypoint()
        def main(status: int):
            sys.exit(status)
    """)
    assert program.upswell("run", "program.py", "--status", "7").status == 7


def test_a_reader_that_leaves(program: Program) -> None:
    program.write(CENSUS)
    command = f"{' '.join(UPSWELL)} run program.py | head -n 1"
    done = program.run("bash", "-o", "pipefail", "-c", command)
    assert (done.out, done.err) == ("0\n", "")
    assert done.status in (0, 141), "all was written before the reader left, or not"


def test_large_output_to_a_reader_that_leaves(program: Program) -> None:
    program.write(CENSUS.replace("print(result)", "print(str(result) * 10_000)"))
    done = program.run("bash", "-o", "pipefail", "-c", f"{' '.join(UPSWELL)} run program.py | head -c 1")
    assert (done.status, done.out, done.err) == (141, "0", "")


def test_output_is_not_held_back(program: Program) -> None:
    program.write("""
        import time, upswell

        app = upswell.App()

        @app.function()
        def wait(x):
            time.sleep(x)
            return x

        @app.local_entrypoint()
        def main():
            for x in wait.map([0, 60]):
                print(x, flush=True)
    """)
    process = program.start([*UPSWELL, "run", "program.py"])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
    finally:
        process.kill()
        process.communicate(timeout=SECONDS_TO_RUN)
    program.assert_all_gone()
