"""However a program ends, nothing of it stays behind, and upswell adds nothing to what is said."""

import os
import signal
import sys
from subprocess import Popen

import psutil
import pytest

from upswell.container import groups

from .processes import SECONDS_TO_RUN, UPSWELL, Program, until

WAITING = """
    import asyncio, subprocess, sys, time, upswell

    app = upswell.App("waiting")

    @app.function()
    def wait(x):
        subprocess.Popen(["sleep", "100"])
        print("started", flush=True)
        time.sleep(100)

    @app.local_entrypoint()
    def main():
        list(wait.map(range(3)))

    @app.local_entrypoint()
    async def asynchronous():
        await asyncio.gather(*(wait.remote.aio(x) for x in range(3)))

    @app.local_entrypoint()
    def spawned():
        wait.spawn(1).get()

    if __name__ == "__main__":
        with app.run():
            list(wait.map(range(3)))
"""


def started(program: Program, *command: str) -> Popen[str]:
    """Start the command and wait until a container of it runs user code."""
    process = program.start(command)
    assert process.stdout is not None
    assert "started" in process.stdout.readline(), process.communicate(timeout=SECONDS_TO_RUN)[1]
    return process


@pytest.mark.parametrize("name", ["main", "asynchronous", "spawned"])
def test_ctrl_c(program: Program, name: str) -> None:
    program.write(WAITING)
    process = started(program, *UPSWELL, "run", f"program.py::{name}")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS_TO_RUN)
    assert (process.returncode, err) == (130, "")
    program.assert_all_gone()
    assert program.files() == {program.folder / "program.py", program.folder / "temporary"}


def test_ctrl_c_in_a_script_is_pythons_own(program: Program) -> None:
    program.write(WAITING)
    process = started(program, sys.executable, "program.py")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS_TO_RUN)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt") and "Exception ignored" not in err
    program.assert_all_gone()


def test_ctrl_c_while_it_starts(program: Program) -> None:
    program.write("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n" + "import time\ntime.sleep(9)\n")
    done = program.upswell("run", "program.py")
    assert (done.status, done.err) == (130, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_client_that_is_killed(program: Program, number: signal.Signals) -> None:
    program.write(WAITING)
    process = started(program, *UPSWELL, "run", "program.py::main")
    assert len(program.processes()) > 3, "the client, its server, containers and what those started"
    os.kill(process.pid, number)
    process.wait(timeout=SECONDS_TO_RUN)
    program.assert_all_gone()
    process.communicate(timeout=SECONDS_TO_RUN)


def test_a_server_that_is_killed(program: Program) -> None:
    program.write(WAITING)
    process = started(program, *UPSWELL, "run", "program.py::main")
    server = [one for one in psutil.Process(process.pid).children() if "upswell.server" in one.cmdline()]
    server[0].kill()
    _, err = process.communicate(timeout=SECONDS_TO_RUN)
    assert process.returncode == 1
    assert "server" in err.splitlines()[-1]
    program.assert_all_gone()


DAEMONS = """
    import os, subprocess, sys, time, upswell

    app = upswell.App("daemons")

    @app.function(memory=500)
    def start(x):
        subprocess.Popen(["sleep", "100"], start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "100"])
            os._exit(0)
        os.wait()
        print("started", flush=True)
        time.sleep(100)

    @app.local_entrypoint()
    def main():
        list(start.map(range(3)))
"""


@pytest.mark.parametrize("group", [False, True])
def test_daemons_of_containers_end_with_a_server_that_is_killed(program: Program, group: bool) -> None:
    program.write(DAEMONS)
    process = started(program, *UPSWELL, "run", "program.py::main")
    server = [one for one in psutil.Process(process.pid).children() if "upswell.server" in one.cmdline()]
    ours = {str(one.pid) for one in program.processes()}
    (os.killpg if group else os.kill)(server[0].pid, signal.SIGKILL)
    process.communicate(timeout=SECONDS_TO_RUN)
    program.assert_all_gone()
    if place := groups.where_groups_go():
        owners = {name.split("-")[1] for name in os.listdir(place.folder) if name.startswith(groups.PREFIX)}
        assert not owners & ours, "a group was left behind"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_while_a_zygote_imports(program: Program, number: signal.Signals) -> None:
    program.write("""
        import os, subprocess, time, upswell

        app = upswell.App()
        if not upswell.is_local():
            subprocess.Popen(["sleep", "100"], start_new_session=True)
            os.mkdir("kept")
            time.sleep(100)

        @app.function()
        def work(x):
            return x

        @app.local_entrypoint()
        def main():
            print("started", flush=True)
            work.remote(1)
    """)
    process = started(program, *UPSWELL, "run", "program.py")
    assert until(lambda: (program.folder / "kept").exists())
    os.kill(process.pid, number)
    process.communicate(timeout=SECONDS_TO_RUN)
    program.assert_all_gone()


def test_containers_that_are_fresh_interpreters(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSWELL_ENGINE", "spawn")
    program.write("""
        import threading, time, upswell

        print("imported", upswell.is_local())
        app = upswell.App()
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()

        @app.function()
        def square(x):
            return x * x

        @app.local_entrypoint()
        def main():
            print(list(square.map(range(5))), square.remote(7))
    """)
    done = program.upswell("run", "program.py")
    assert (done.status, done.lines, done.err) == (0, ["imported True", "[0, 1, 4, 9, 16] 49"], "")


def test_an_exception_ends_what_still_runs(program: Program) -> None:
    program.write("""
        import time, upswell

        app = upswell.App()

        @app.function()
        def work(x):
            if x == 0:
                raise ValueError("first")
            time.sleep(100)

        @app.local_entrypoint()
        def main():
            list(work.map(range(4)))
    """)
    done = program.upswell("run", "program.py")
    assert done.status == 1
    assert done.err.endswith("ValueError: first\n")


def test_leaving_early_is_silent(program: Program) -> None:
    program.write("""
        import itertools, time, upswell

        app = upswell.App()

        @app.function()
        def work(x):
            time.sleep(0 if x < 3 else 100)
            return x

        @app.local_entrypoint()
        def main():
            for x in work.map(itertools.count()):
                if x == 2:
                    break
            print(work.remote(1))
    """)
    done = program.upswell("run", "program.py")
    assert (done.status, done.out, done.err) == (0, "1\n", "")


def test_children_of_containers_end_with_the_run(program: Program) -> None:
    program.write("""
        import subprocess, upswell

        app = upswell.App()

        @app.function()
        def start():
            subprocess.Popen(["sleep", "100"])
    """)
    assert program.upswell("run", "program.py").status == 0


def test_idle_containers_scale_down(program: Program) -> None:
    program.write("""
        import os, time, upswell

        app = upswell.App()

        @app.function(scaledown_window=2)
        def wait(x):
            while not os.path.exists("kept"):
                time.sleep(0.01)

        @app.local_entrypoint()
        def main():
            call = wait.spawn_map(range(20))
            while not wait.get_current_stats().num_running_inputs:
                time.sleep(0.01)
            print(wait.get_current_stats().num_total_runners > 0)
            os.mkdir("kept")
            list(call.iter())
            while wait.get_current_stats().num_total_runners:
                time.sleep(0.1)
            print("none")
    """)
    assert program.upswell("run", "program.py").lines == ["True", "none"]
