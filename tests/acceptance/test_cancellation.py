"""Calls that are cancelled: what never starts, what is told to stop, and who else goes on."""

from .processes import Program

CANCELLATION = """
    import asyncio, os, pathlib, sys, threading, time
    import upswell
    from upswell.exception import InputCancellation, RemoteError

    app = upswell.App("cancellation")

    def note(folder, word):
        pathlib.Path(folder, word).touch()

    @app.function(max_containers=1)
    def plain(x, folder):
        note(folder, f"started-{x}")
        try:
            time.sleep(100)
        except Exception:
            note(folder, "caught by except Exception")
        except InputCancellation:
            note(folder, f"cancelled-{x}")
            raise
        finally:
            note(folder, f"left-{x}")

    @app.function(max_containers=1)
    async def asynchronous(x, folder):
        note(folder, f"started-{x}")
        if x < 0:
            return os.getpid()
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            note(folder, f"cancelled-{x}")
            raise

    @app.function(max_containers=1)
    def stubborn(folder):
        note(folder, "started")
        while True:
            try:
                time.sleep(100)
            except InputCancellation:
                pass

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=4)
    def shared(x, folder):
        is_first = not any(name.startswith(f"{x}-") for name in os.listdir(folder))
        note(folder, f"{x}-{os.getpid()}")
        while is_first:
            time.sleep(0.01)
        return x

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=4)
    async def tasks(x, folder):
        note(folder, f"{x}-{os.getpid()}")
        while x == 0 or not os.path.exists(folder + "/../go"):
            await asyncio.sleep(0.01)
        return x

    @app.function(max_containers=1)
    def outer(folder):
        return plain.remote(7, folder)

    @app.function(retries=upswell.Retries(max_retries=3, initial_delay=0.2, backoff_coefficient=2.0))
    def often(folder):
        tries = len(os.listdir(folder))
        note(folder, f"{tries} {time.monotonic()}")
        raise LookupError(f"try {tries}")

    def until(condition):
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        return bool(condition())

    def outcome(call):
        try:
            return call.get(timeout=60)
        except RemoteError as error:
            return f"{type(error).__name__}: {error}"

    @app.local_entrypoint()
    def one(folder: str):
        for function in (plain, asynchronous):
            place = os.path.join(folder, function.name)
            os.makedirs(place)
            running, waiting = function.spawn(1, place), function.spawn(2, place)
            assert until(lambda: "started-1" in os.listdir(place))
            waiting.cancel()
            running.cancel()
            print(outcome(running), "|", outcome(waiting))
            until(lambda: len(os.listdir(place)) >= (3 if function is plain else 2))
            print(sorted(os.listdir(place)))

    @app.local_entrypoint()
    def alone(folder: str):
        os.makedirs(folder)
        pid = asynchronous.remote(-1, folder)
        call = asynchronous.spawn(1, folder)
        assert until(lambda: "started-1" in os.listdir(folder))
        call.cancel()
        print(outcome(call), asynchronous.remote(-1, folder) == pid)

    @app.local_entrypoint()
    def ignored(folder: str):
        os.makedirs(folder)
        call = stubborn.spawn(folder)
        assert until(lambda: os.listdir(folder))
        call.cancel()
        print(outcome(call))

    @app.local_entrypoint()
    def neighbours(folder: str):
        for function in (shared, tasks):
            place = os.path.join(folder, function.name)
            os.makedirs(place)
            calls = [function.spawn(x, place) for x in range(4)]
            assert until(lambda: len(os.listdir(place)) == 4)
            calls[0].cancel()
            cancelled = outcome(calls[0])
            note(folder, "go")
            print([cancelled, *(outcome(call) for call in calls[1:])])
            print(len(os.listdir(place)))

    @app.local_entrypoint()
    def terminated(folder: str):
        os.makedirs(folder)
        call = plain.spawn(1, folder)
        assert until(lambda: "started-1" in os.listdir(folder))
        call.cancel(terminate_containers=True)
        print(outcome(call), sorted(os.listdir(folder)))

    @app.local_entrypoint()
    def leaving(folder: str):
        os.makedirs(folder)
        for result in quick.map(range(2000), kwargs={"folder": folder}):
            break
        note(folder, "-2")
        quick.remote(-1, folder)  # by now nothing else runs
        started = os.listdir(folder)
        quick.remote(-1, folder)
        print(max(map(int, started)) < 900, os.listdir(folder) == started)

    @app.function(max_containers=1)
    def quick(x, folder):
        \"\"\"The only container gets not far before the map is left, and has long to go then.\"\"\"
        note(folder, str(x))
        if x >= 50:
            until(lambda: os.path.exists(folder + "/-2"))
            time.sleep(0.01)

    @app.local_entrypoint()
    def inner(folder: str):
        os.makedirs(folder)
        call = outer.spawn(folder)
        assert until(lambda: "started-7" in os.listdir(folder))
        call.cancel()
        print(outcome(call), until(lambda: "cancelled-7" in os.listdir(folder)))

    @app.local_entrypoint()
    def retried(folder: str):
        os.makedirs(folder)
        try:
            often.remote(folder)
        except LookupError as error:
            print(error)
        moments = [float(name.split()[1]) for name in sorted(os.listdir(folder))]
        waits = [after - before for before, after in zip(moments, moments[1:])]
        print([wait >= expected for expected, wait in zip((0.2, 0.4, 0.8), waits)])
"""


def out(program: Program, name: str, *arguments: str) -> list[str]:
    program.write(CANCELLATION)
    done = program.upswell("run", f"program.py::{name}", *arguments)
    assert (done.status, done.err) == (0, "")
    return done.lines


CANCELLED = "RemoteError: the call was cancelled"


def test_what_runs_is_told_and_what_waits_never_starts(program: Program) -> None:
    assert out(program, "one", "--folder", "kept") == [
        f"{CANCELLED} | {CANCELLED}",
        "['cancelled-1', 'left-1', 'started-1']",
        f"{CANCELLED} | {CANCELLED}",
        "['cancelled-1', 'started-1']",
    ]


def test_a_task_is_cancelled_without_its_container(program: Program) -> None:
    assert out(program, "alone", "--folder", "kept") == [f"{CANCELLED} True"]


def test_code_that_does_not_listen_ends_with_its_container(program: Program) -> None:
    assert out(program, "ignored", "--folder", "kept") == [CANCELLED]


def test_neighbours_of_a_cancelled_thread_are_tried_again_and_those_of_a_task_go_on(program: Program) -> None:
    threads, attempts, tasks, once = out(program, "neighbours", "--folder", "kept")
    assert threads == tasks == f"['{CANCELLED}', 1, 2, 3]"
    assert (attempts, once) == ("7", "4")


def test_terminating_containers(program: Program) -> None:
    assert out(program, "terminated", "--folder", "kept") == [f"{CANCELLED} ['started-1']"]


def test_leaving_a_map_cancels_what_has_not_started(program: Program) -> None:
    assert out(program, "leaving", "--folder", "kept") == ["True True"]


def test_calls_made_by_a_cancelled_input_are_cancelled_too(program: Program) -> None:
    assert out(program, "inner", "--folder", "kept") == [f"{CANCELLED} True"]


def test_retries_back_off(program: Program) -> None:
    assert out(program, "retried", "--folder", "kept") == ["try 3", "[True, True, True]"]
