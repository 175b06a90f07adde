"""Programs of any name and shape, started in every way, with streams in any state."""

import sys

import pytest

from .processes import UPSWELL, Program

SHAPES = """
    import dataclasses, enum, sys
    import upswell

    app = upswell.App()

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int

    class Odd(Exception):
        pass

    @app.function()
    def move(point):
        if point is None:
            raise Odd("no point")
        return Point(point.x + 1), Colour.RED

    def go():
        point, colour = move.remote(Point(1))
        assert isinstance(point, Point) and colour is Colour.RED
        try:
            move.remote(None)
        except Odd as error:
            print(point.x, error)

    @app.local_entrypoint()
    def main():
        go()

    if __name__ == "__main__":
        with app.run():
            go()
"""
SAID = "2 no point\n"


@pytest.mark.parametrize("name", ["census", "my script.py", "v1.2-a.py", "naïve.py", "json.py"])
def test_a_script_of_any_name(program: Program, name: str) -> None:
    program.write(SHAPES, name)
    for command in ([*UPSWELL, "run", name], [sys.executable, name]):
        done = program.run(*command)
        assert (done.status, done.out, done.err) == (0, SAID, "")


def test_packages_and_folders(program: Program) -> None:
    program.write("", "package/__init__.py")
    program.write(SHAPES, "package/__main__.py")
    program.write(SHAPES, "package/sub/part.py")
    for command in (
        [sys.executable, "-m", "package"],
        [sys.executable, "package"],
        [sys.executable, "-m", "package.sub.part"],
        [*UPSWELL, "run", "-m", "package.__main__"],
    ):
        done = program.run(*command)
        assert (done.status, done.out, done.err) == (0, SAID, ""), command


def test_a_program_without_a_file(program: Program) -> None:
    """Its functions travel by value, as do its values."""
    text = program.write(SHAPES, "kept").read_text()
    for command, given in (([sys.executable, "-"], text), ([sys.executable, "-c", text], None)):
        done = program.run(*command, given=given)
        assert (done.status, done.out, done.err) == (0, SAID, "")


@pytest.mark.parametrize("words", [("app",), ("server", "token")])
def test_a_command_that_is_not_all_there_shows_what_there_is(program: Program, words: tuple[str, ...]) -> None:
    done = program.run(*UPSWELL, *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"Usage: upswell {' '.join(words)}") and "\n  list  " in done.err


def test_from_a_folder_that_was_deleted(program: Program) -> None:
    script = program.write(SHAPES)
    words = "the working directory was deleted: change to one that is there\n"
    for command, status in (
        ([*UPSWELL, "run", str(script)], 2),
        ([*UPSWELL, "deploy", str(script)], 2),
        ([*UPSWELL, "run", "-m", "package"], 2),
        ([sys.executable, str(script)], 1),
    ):
        done = program.run("sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"', *command)
        assert (done.status, done.out) == (status, "") and done.err.endswith(words), command
        if status == 2:
            assert done.err == f"upswell: {words}"


STREAMS = """
    import os, sys
    import upswell

    app = upswell.App()

    @app.function()
    def say(kind):
        if kind == "unicode":
            print("é 漢 a\\u2028b\\x0cc")
        if kind == "bytes":
            os.write(1, b"\\xff raw\\n")
        if kind == "shell":
            os.system("echo from a shell")
        if kind == "long":
            print("x" * 3_000_000)
        if kind == "many":
            for number in range(20_000):
                print("line", number)

    @app.local_entrypoint()
    def main(kinds: str):
        for kind in kinds.split(","):
            say.remote(kind)
        print("done")

    @app.local_entrypoint()
    def reading():
        print(len(sys.stdin.read()), say.remote(""))

    @app.local_entrypoint()
    def closing():
        sys.stdout.close()
        say.remote("unicode")
"""


def shell(program: Program, words: str) -> tuple[int, str, str]:
    done = program.run("sh", "-c", f"{' '.join(UPSWELL)} run {words}")
    return done.status, done.out, done.err


def test_streams(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.write(STREAMS.replace("\\\\", "\\"))
    status, out, err = shell(program, "program.py::main --kinds unicode,bytes,shell")
    lines = out.split("\n")
    lines.remove("done")  # what a container writes goes another way than its result, and may come after it
    assert (status, lines, err) == (0, ["é 漢 a\u2028b\x0cc", "\\xff raw", "from a shell", ""], "")
    status, out, err = shell(program, "program.py::main --kinds long,many")
    assert (status, len(out), err) == (0, 3_000_001 + sum(len(f"line {n}\n") for n in range(20_000)) + 5, "")
    assert shell(program, "program.py::reading < program.py") == (
        0, f"{(program.folder / 'program.py').stat().st_size - SIZE_OF_ACCENTS} None\n", ""
    )  # fmt: skip
    for closed in ("program.py::closing", "program.py::main --kinds unicode >&-", "program.py::main --kinds , <&-"):
        assert shell(program, closed) == (0, "done\n" if "<&-" in closed else "", "")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "\\xe9 \\u6f22 a" in shell(program, "program.py::main --kinds unicode")[1]


SIZE_OF_ACCENTS = len("é漢".encode()) - 2


def test_forks_and_runs_within_runs(program: Program) -> None:
    program.write("""
        import multiprocessing, os, threading, warnings
        import upswell

        warnings.filterwarnings("ignore", "This process .* is multi-threaded")  # of Python 3.12 and later, and true

        app, other = upswell.App("one"), upswell.App("two")

        @app.function()
        def same(x):
            return x

        @other.function()
        def double(x):
            return 2 * x

        def child():
            try:
                same.remote(3)
            except upswell.exception.NotFoundError:
                os._exit(5)

        if __name__ == "__main__":
            with app.run():
                with other.run():
                    print(same.remote(1), double.remote(1))
                try:
                    with app.run():
                        pass
                except upswell.exception.InvalidError as error:
                    print(error)
                process = multiprocessing.get_context("fork").Process(target=child)
                process.start()
                process.join()
                if os.fork() == 0:
                    raise SystemExit  # leaves the block in the child, too
                os.wait()
                print(process.exitcode, same.remote(2), list(same.map(range(3))))
            def in_a_thread():
                with app.run():
                    print(same.remote(4))
            thread = threading.Thread(target=in_a_thread)
            thread.start()
            thread.join()
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.status, done.err) == (0, "")
    assert done.lines == ["1 2", "App('one', 1 functions, running) is running already", "5 2 [0, 1, 2]", "4"]
