"""When user code, a container or an input goes wrong: who is told, what exactly, and that everything else goes on."""

import re

import pytest

from upswell.container import groups

from .processes import Program

FAILURES = """
    import os, pathlib, signal, sys, time, traceback
    import upswell
    from upswell.exception import FunctionTimeoutError, RemoteError

    app = upswell.App("failures")

    class Broken(Exception):
        def __init__(self, part):
            super().__init__(f"{part} is broken")
            self.part = part

    @app.function()
    def check(x):
        if x == 3:
            inspect_part(x)
        return x

    def inspect_part(x):
        raise Broken(x)

    @app.function()
    def run_out(x):
        return next(iter(range(x)))

    @app.function(max_containers=2)
    def exit_once(x, folder):
        first = pathlib.Path(folder, f"{x}")
        if x % 20 == 5 and not first.exists():
            first.touch()
            if x == 5:
                os._exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    @app.function(max_containers=2)
    def poison(x):
        if x == 7:
            os._exit(9)
        return x

    @app.function(timeout=3)
    def sleepy(x):
        time.sleep(x)
        return x

    @app.function(memory=200, max_containers=1)
    def hungry(mebibytes):
        return len(bytearray(mebibytes << 20))

    @app.function(retries=upswell.Retries(max_retries=2, initial_delay=0.0))
    def flaky(folder):
        tries = len(os.listdir(folder))
        pathlib.Path(folder, f"try{tries}").touch()
        if tries < 2:
            raise OSError("again")
        return tries

    @app.local_entrypoint()
    def raises():
        results = []
        try:
            for result in check.map(range(10)):
                results.append(result)
        except Broken as error:
            shown = traceback.format_exc()
            print(results, error, error.part, "in inspect_part" in shown, shown.count("in check\\n"))
        mixed = list(check.map(range(5), return_exceptions=True))
        print([type(one).__name__ for one in mixed])
        wrapped = list(check.map([3], return_exceptions=True, wrap_returned_exceptions=True))[0]
        print(type(wrapped).__name__, type(wrapped.exc).__name__)

    def described(act):
        try:
            return repr(act())
        except Exception as error:
            return f"{error!r} from {error.__cause__!r}"

    @app.local_entrypoint()
    def stops():
        print(described(lambda: run_out.remote(0)))
        print(described(lambda: run_out.spawn(0).get()))
        print(described(lambda: list(run_out.map([1, 0, 1]))))
        print(described(lambda: list(run_out.map([1, 0, 1], return_exceptions=True))))

    @app.local_entrypoint()
    def unhandled():
        print(list(check.map(range(5))))

    @app.local_entrypoint()
    def dies(folder: str):
        os.makedirs(folder)
        print(list(exit_once.map(range(60), kwargs={"folder": folder})) == list(range(60)))

    @app.local_entrypoint()
    def poisoned():
        results = list(poison.map(range(20), return_exceptions=True))
        errors = [one for one in results if isinstance(one, Exception)]
        print(len(results) - len(errors), type(results[7]).__name__)
        print(results[7])

    @app.local_entrypoint()
    def late():
        results = list(sleepy.map([0, 30, 0], return_exceptions=True))
        print([one if isinstance(one, int) else type(one).__name__ for one in results])

    @app.local_entrypoint()
    def memory():
        for mebibytes in (10, 1000, 10):
            try:
                print(hungry.remote(mebibytes) >> 20)
            except RemoteError as error:
                print(error)

    @app.local_entrypoint()
    def retried(folder: str):
        os.makedirs(folder)
        print(flaky.remote(folder))
"""


def out(program: Program, name: str, *arguments: str, told: str = "") -> list[str]:
    program.write(FAILURES)
    done = program.upswell("run", f"program.py::{name}", *arguments)
    assert done.status == 0 and re.fullmatch(told, done.err), done.err
    return done.lines


def test_the_users_own_exception_with_its_remote_traceback(program: Program) -> None:
    assert out(program, "raises") == [
        "[0, 1, 2] 3 is broken 3 True 1",
        "['int', 'int', 'int', 'Broken', 'int']",
        "UserCodeException Broken",
    ]


def test_what_would_end_a_loop_in_silence_is_told_aloud(program: Program) -> None:
    words = "RuntimeError('the function raised StopIteration(), which would only end a loop here') from StopIteration()"
    assert out(program, "stops") == [words, words, words, "[0, StopIteration(), 0]"]


def test_an_unhandled_one_shows_both_sides_and_only_the_users_frames(program: Program) -> None:
    program.write(FAILURES)
    done = program.upswell("run", "program.py::unhandled")
    assert (done.status, done.out) == (1, "")
    assert "in inspect_part" in done.err and "in unhandled" in done.err
    assert done.err.endswith("Broken: 3 is broken\n")
    files = {line.split('"')[1].rpartition("/")[2] for line in done.err.splitlines() if line.startswith("  File")}
    assert files == {"program.py"}, done.err


def test_a_container_that_dies_gives_its_inputs_back(program: Program) -> None:
    told = r"upswell: a container of exit_once died, and what it ran is tried again: .*(status 3|SIGKILL).*\n"
    assert out(program, "dies", "--folder", "kept", told=told) == ["True"]


KILLED_AS_IT_DELIVERS = """
    import os, signal
    import upswell
    from upswell.wire import shortcut

    app = upswell.App("killed")
    deliver, deliveries = shortcut.deliver, []

    def deliver_and_die(frame, writing):
        done = deliver(frame, writing)
        deliveries.append(done)
        if done and len(deliveries) == 3 and not os.path.exists("kept"):
            os.mkdir("kept")
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    shortcut.deliver = deliver_and_die

    @app.function(max_containers=1)
    def same(x):
        return x

    @app.local_entrypoint()
    def main(ordered: bool):
        print(sorted(same.map(range(300), order_outputs=ordered)) == list(range(300)), os.path.exists("kept"))
"""


@pytest.mark.parametrize("ordered", ["--ordered", "--no-ordered"])
def test_a_container_that_dies_between_client_and_server_has_each_output_come_once(
    program: Program, ordered: str
) -> None:
    program.write(KILLED_AS_IT_DELIVERS)
    done = program.upswell("run", "program.py", ordered)
    assert (done.status, done.lines) == (0, ["True True"]), done.err


def test_an_input_that_kills_three_containers_fails_alone(program: Program) -> None:
    told = r"upswell: a container of poison died, and what it ran is tried again: .*status 9.*\n"
    counts, message = out(program, "poisoned", told=told)
    assert counts == "19 RemoteError"
    assert "3" in message and "status 9" in message


def test_an_input_that_takes_too_long(program: Program) -> None:
    assert out(program, "late") == ["[0, 'FunctionTimeoutError', 0]"]


def test_a_container_over_its_memory_limit(program: Program) -> None:
    first, message, last = out(program, "memory")
    assert (first, last) == ("10", "10")
    assert re.search(r"out of memory: with \d+ MiB in use an allocation .* the limit of 200 MiB", message), message


@pytest.mark.skipif(groups.where_groups_go() is None, reason="no control group for memory can be made here")
def test_a_container_whose_child_is_over_its_memory_limit(program: Program) -> None:
    program.write("""
        import subprocess, sys, upswell
        from upswell.exception import RemoteError

        app = upswell.App()

        @app.function(memory=200, max_containers=1)
        def convert(mebibytes):
            command = [sys.executable, "-c", f"print(len(bytearray(b'x') * ({mebibytes} << 20)) >> 20)"]
            return subprocess.run(command, stdout=subprocess.PIPE).stdout.decode().strip()

        @app.local_entrypoint()
        def main():
            for mebibytes in (10, 400, 10):
                try:
                    print(convert.remote(mebibytes))
                except RemoteError as error:
                    print(error)
    """)
    done = program.upswell("run", "program.py")
    first, message, last = done.lines
    assert (done.status, first, last) == (0, "10", "10")
    assert re.search(r"out of memory: .* (200|1\d\d) MiB in use .* limit is 200 MiB", message), message


def test_retries(program: Program) -> None:
    assert out(program, "retried", "--folder", "kept") == ["2"]


def test_an_error_at_start_up_arrives_at_once(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App()

        def connect():
            raise LookupError("no database")

        if not upswell.is_local():
            with open("kept", "a") as starts:
                starts.write("start\\n")
            connect()

        @app.function()
        def work(x):
            return x

        @app.local_entrypoint()
        def main():
            list(work.map(range(10)))
    """)
    done = program.upswell("run", "program.py")
    assert done.status == 1
    assert (program.folder / "kept").read_text() == "start\n", "no other start was tried first"
    assert "in connect" in done.err and "LookupError: no database" in done.err
    assert "start" in done.err, "it says that it happened at start-up"
    assert "importlib" not in done.err, "nor does it show how the program was imported"


def test_what_cannot_be_pickled_is_named(program: Program) -> None:
    program.write("""
        import threading, upswell

        app = upswell.App()

        @app.function()
        def same(x):
            return threading.Lock() if x == 2 else x

        @app.local_entrypoint()
        def inputs():
            print(list(same.map([0, 1, threading.Lock(), 3])))

        @app.local_entrypoint()
        def outputs():
            print(same.remote(2))
    """)
    done = program.upswell("run", "program.py::inputs")
    assert done.status == 1
    last = done.err.splitlines()[-1]
    assert "SerializationError" in last and "2" in last and "lock" in last
    done = program.upswell("run", "program.py::outputs")
    assert done.status == 1
    assert "SerializationError" in done.err and "lock" in done.err
