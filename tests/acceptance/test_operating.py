"""The commands that look at a server and operate what is on it, against a real one with a home."""

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import UPSWELL, Done, Program, until
from .tmux import Tmux

KITCHEN = """
    import os, sys, time
    import upswell

    app = upswell.App("kitchen")

    @app.function(min_containers=1, max_containers=2)
    def simmer(x):
        print("simmers", x)
        if x == 13:
            raise ValueError("thirteen")
        return [x, x * x]

    @app.function(max_containers=1)
    def wait(x):
        while not os.path.exists("go"):
            time.sleep(0.01)
        return x

    @app.function()
    def flood(megabytes):
        for _ in range(megabytes):
            sys.stdout.write((99 * "x" + "\\n") * 10_000)
        return megabytes
"""
DEPLOY = """
    from program import app
    from upswell.sdk.client import get_client, new_request
    from upswell.sdk.dual import run_sync
    from upswell.sdk.environment import declare_source
    from upswell.sdk.pool import Home
    from upswell.wire import messages as m

    declare_source("program", "module", "program")
    client, request = get_client(), new_request()
    inbox = client.open_inbox(str(request))
    records = tuple(pool.record(Home("ap-kitchen", "kitchen")) for pool in app.pools)
    client.send(m.Deploy(request, "ap-kitchen", "kitchen", records, ()))
    print(run_sync(inbox.receive())[0][0].error)
"""
CALL = """
    import sys
    from program import app, {function}

    app.bind("ap-kitchen")
    print({function}.spawn_map({inputs}).object_id)
"""


class Kitchen:
    """A server with a home, an app that is deployed on it, and a folder for programs."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.program = program
        self.home = folder / "home"
        self._owner = Program(folder)
        self._server = self._owner.start([sys.executable, "-P", "-m", "upswell.server", "--home", str(self.home)])
        assert until((self.home / "server.sock").exists, 20)
        program.write(KITCHEN)
        program.write(DEPLOY, "deploy.py")
        self.deploy()

    def deploy(self) -> None:
        done = self.python("deploy.py")
        assert done.out == "None\n", done

    def python(self, name: str) -> Done:
        """Run a program of the folder with this server, whatever else runs there."""
        beside = Program(self.program.folder)
        return beside.run("env", f"UPSWELL_SERVER=unix:{self.home}/server.sock", sys.executable, name)

    def upswell(self, *words: str, status: int = 0) -> Done:
        done = self.program.upswell(*words)
        assert done.status == status, done
        return done

    def table(self, *words: str) -> list[list[str]]:
        return [line.split() for line in self.upswell(*words).lines[1:]]

    def records(self, *words: str) -> list[dict[str, object]]:
        return json.loads(self.upswell(*words, "--json").out)  # type: ignore[no-any-return]

    def spawn(self, function: str, inputs: str) -> str:
        self.program.write(CALL.format(function=function, inputs=inputs), "call.py")
        return self.python("call.py").out.strip()

    def close(self) -> None:
        self._server.terminate()
        self._server.communicate(timeout=20)
        self._owner.assert_all_gone()


@pytest.fixture
def kitchen(
    program: Program, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kitchen]:
    made = Kitchen(tmp_path_factory.mktemp("s"), program)
    monkeypatch.setenv("UPSWELL_HOME", str(made.home))
    yield made
    made.close()


def test_without_a_server(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSWELL_HOME", str(program.folder / "none"))
    for words in (["app", "list"], ["function", "list"], ["container", "list"], ["call", "list"], ["top"]):
        done = program.upswell(*words)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
        assert "no server runs" in done.err and "upswell serve" in done.err


def test_what_runs_is_listed(kitchen: Kitchen) -> None:
    assert kitchen.table("app", "list")[0][:4] == ["kitchen", "ap-kitchen", "deployed", "1"]
    assert [row[1] for row in kitchen.table("function", "list", "kitchen")] == ["simmer", "wait", "flood"]
    assert until(lambda: kitchen.table("container", "list")[0][2:4] == ["simmer", "ready"], 10)
    (container,) = kitchen.records("container", "list", "ap-kitchen")
    assert (container["app_name"], container["function"], container["version"]) == ("kitchen", "simmer", 1)
    stats = kitchen.upswell("function", "stats", "kitchen", "simmer")
    assert [line.split() for line in stats.lines] == [
        ["backlog", "0"], ["num_total_runners", "1"], ["num_running_inputs", "0"], ["input_headroom", "1"]
    ]  # fmt: skip
    frame = kitchen.upswell("top").lines
    assert frame[0].startswith("1 containers, 0 inputs run") and frame[3].split()[:2] == ["kitchen", "simmer"]
    assert kitchen.upswell("call", "list").err == "upswell: no call is here: make one with FUNCTION.spawn(...)\n"
    assert kitchen.records("call", "list") == []


def test_names_that_are_not_there(kitchen: Kitchen) -> None:
    for words, said in [
        (["app", "stop", "kitchn"], "there is no app 'kitchn': did you mean 'kitchen'?"),
        (["app", "logs", "zzz"], "there is no app 'zzz'; there are: kitchen"),
        (["function", "stats", "kitchen", "simer"], "there is no function of kitchen 'simer': did you mean 'simmer'?"),
        (["call", "get", "fc-none"], "there is no call fc-none: `upswell call list` shows those that are kept"),
        (["call", "cancel", "fc-none"], "there is no call fc-none: `upswell call list` shows those that are kept"),
        (["container", "stop", "7"], "there is no container co-7: it has ended, or it never was"),
    ]:
        assert kitchen.upswell(*words, status=1).err == f"upswell: {said}\n"
    for words in (["app", "logs"], ["app", "explode"], ["app", "logs", "kitchen", "-n", "many"], ["app", "stop"]):
        assert kitchen.upswell(*words, status=2).err.count("\n") == 1


def test_two_apps_of_one_name(kitchen: Kitchen) -> None:
    """Neither is guessed."""
    kitchen.program.write("""
        import subprocess, sys
        import upswell

        one, two = upswell.App("twin"), upswell.App("twin")
        with one.run(), two.run():
            done = subprocess.run([*sys.argv[1:], "function", "list", "twin"], capture_output=True, text=True)
            print(done.returncode, done.stderr, end="")
            done = subprocess.run([*sys.argv[1:], "function", "list", one.app_id], capture_output=True, text=True)
            print(done.returncode, done.stderr, end="")
    """, "twins.py")  # fmt: skip
    server = f"UPSWELL_SERVER=unix:{kitchen.home}/server.sock"
    first, second = kitchen.program.run("env", server, sys.executable, "twins.py", *UPSWELL).lines
    assert first.startswith("1 upswell: 2 apps are named 'twin': say which by its id: ap-")
    assert first.count("(running)") == 2
    assert second == "0 upswell: twin has no function: deploy one with `upswell deploy FILE`" or second.startswith("0 ")


def test_settings_are_changed_and_explained(kitchen: Kitchen) -> None:
    words = ("function", "autoscaler", "kitchen", "simmer")
    assert kitchen.upswell(*words).lines == [
        "min_containers     1", "max_containers     2", "buffer_containers  0", "scaledown_window   60",
    ]  # fmt: skip
    changed = kitchen.upswell(*words, "--max", "3", "--window", "5", "--json")
    assert json.loads(changed.out) == {
        "min_containers": 1, "max_containers": 3, "buffer_containers": 0, "scaledown_window": 5,
    }  # fmt: skip
    assert kitchen.upswell(*words, "--max", "default").lines[1] == "max_containers     no limit"
    assert "must not exceed" in kitchen.upswell(*words, "--min", "9", "--max", "3", status=1).err
    assert kitchen.upswell(*words, "--min", "few", status=2)
    why = kitchen.upswell(*words, "--why").lines
    assert "rule               idle" in why
    assert why[-1].split(maxsplit=1) == ["reason", "no input waits or runs; min_containers is 1"]
    kitchen.deploy()
    assert kitchen.upswell(*words).lines[1] == "max_containers     2"


def test_results_are_fetched(kitchen: Kitchen) -> None:
    call = kitchen.spawn("simmer", "range(3)")
    assert kitchen.upswell("call", "get", call).out == "[0, 0]\n[1, 1]\n[2, 4]\n"
    assert kitchen.upswell("call", "get", call, "--index", "2", "--json").out == "[2, 4]\n"
    (row,) = kitchen.records("call", "list", "kitchen")
    assert (row["id"], row["function"], row["state"], row["inputs"], row["done"], row["failed"]) == (
        call, "simmer", "finished", 3, 3, 0,
    )  # fmt: skip
    failing = kitchen.spawn("simmer", "[13]")
    done = kitchen.upswell("call", "get", failing, status=1)
    assert done.err.splitlines()[-1] == "ValueError: thirteen" and 'raise ValueError("thirteen")' in done.err
    assert [row[:6:5] for row in kitchen.table("call", "list", "-n", "1")] == [[failing, "1/1"]]


def test_a_call_is_cancelled(kitchen: Kitchen) -> None:
    call = kitchen.spawn("wait", "range(5)")
    late = kitchen.upswell("call", "get", call, "--timeout", "0", "--index", "3", status=1)
    assert late.err == f"upswell: {call} has no result yet\n"
    assert kitchen.upswell("call", "cancel", call).out == f"cancelled {call}\n"
    assert until(lambda: kitchen.table("call", "list")[0][4:6] == ["cancelled", "5/5"], 10)
    assert kitchen.upswell("call", "cancel", call).out == f"{call} has ended already\n"


def test_a_container_is_stopped(kitchen: Kitchen) -> None:
    call = kitchen.spawn("wait", "[8]")
    assert until(lambda: len(kitchen.records("container", "list")) == 2, 10)
    (first,) = [str(row["id"]) for row in kitchen.records("container", "list") if row["function"] == "wait"]
    assert kitchen.upswell("container", "stop", first).out == f"stopped {first}\n"
    (kitchen.program.folder / "kept").mkdir()
    (kitchen.program.folder / "go").touch()
    assert kitchen.upswell("call", "get", call).out == "8\n"
    assert kitchen.upswell("container", "logs", first).lines[-1].endswith("was killed: it was stopped")
    (kitchen.program.folder / "go").unlink()


def test_versions(kitchen: Kitchen) -> None:
    kitchen.program.write(KITCHEN.replace("max_containers=2", "max_containers=7"))
    kitchen.deploy()
    assert [row[0] for row in kitchen.table("app", "history", "kitchen")] == ["2", "1"]
    assert kitchen.upswell("app", "rollback", "kitchen").out == "kitchen is at version 3 now\n"
    assert "none 9" in kitchen.upswell("app", "rollback", "kitchen", "9", status=1).err
    assert [(row["version"], row["is_served"]) for row in kitchen.records("app", "history", "kitchen")] == [
        (3, True), (2, False), (1, False),
    ]  # fmt: skip
    assert kitchen.upswell("app", "stop", "kitchen").out == "stopped kitchen (ap-kitchen)\n"
    assert until(lambda: kitchen.table("app", "list")[0][2] == "stopped", 10)
    assert "version 3" in kitchen.upswell("app", "logs", "kitchen", "-n", "1000").out


def test_logs(kitchen: Kitchen) -> None:
    call = kitchen.spawn("simmer", "range(4)")
    kitchen.upswell("call", "get", call)
    assert until(lambda: "simmers 3" in kitchen.upswell("app", "logs", "kitchen").out, 10)
    lines = kitchen.upswell("app", "logs", "kitchen", "--function", "simmer", "-n", "2").lines
    assert len(lines) == 2 and all(" simmer co-" in line and "simmers" in line for line in lines)
    record = json.loads(kitchen.upswell("app", "logs", "kitchen", "-n", "1", "--json").lines[0])
    assert (record["function"], record["stream"]) == ("simmer", "stdout")
    assert kitchen.upswell("container", "logs", record["container"], "-n", "9").out.count("simmers") >= 1


def test_a_log_is_followed(kitchen: Kitchen) -> None:
    following = kitchen.program.start([*UPSWELL, "app", "logs", "kitchen", "-f", "-n", "1"])
    assert following.stdout is not None
    assert following.stdout.readline().endswith("version 1 is served from now on, rolling\n")
    kitchen.program.write(CALL.format(function="simmer", inputs="range(50)"), "call.py")
    again = kitchen.program.start(["env", f"UPSWELL_SERVER=unix:{kitchen.home}/server.sock", sys.executable, "call.py"])
    came = {following.stdout.readline().rpartition(" ")[2] for _ in range(50)}
    assert came == {f"{x}\n" for x in range(50)}
    again.communicate(timeout=20)
    following.send_signal(signal.SIGINT)
    assert following.wait(10) == 130
    assert following.communicate() == ("", "")
    kitchen.program.assert_all_gone()


def test_a_flood_holds_nobody_up(kitchen: Kitchen) -> None:
    """100 MB come as fast as they can be written; meanwhile others are served, and what is kept is bounded."""
    kitchen.program.write("""
        import time
        from program import app, flood, simmer

        app.bind("ap-kitchen")
        simmer.remote(0)
        call = flood.spawn(100)
        waits = []
        while True:
            began = time.perf_counter()
            simmer.remote(1)
            waits.append(time.perf_counter() - began)
            try:
                call.get(timeout=0)
                break
            except TimeoutError:
                time.sleep(0.001)
        waits.sort()
        print(len(waits) > 20, waits[len(waits) * 9 // 10] < 0.25)
    """, "beside.py")  # fmt: skip
    assert kitchen.python("beside.py").out == "True True\n"
    kept = [path.stat().st_size for path in (kitchen.home / "logs" / "ap-kitchen").iterdir()]
    assert sum(kept) < 50 << 20


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize("key", ["q", "C-c"])
def test_top_at_a_terminal(kitchen: Kitchen, terminal: Tmux, key: str) -> None:
    terminal.type(*UPSWELL, "top")
    assert until(lambda: any("kitchen" in line and "simmer" in line for line in terminal.screen()), 20)
    kitchen_line = next(line for line in terminal.screen() if "simmer" in line)
    assert "····" in kitchen_line and "/s" in kitchen_line
    call = kitchen.spawn("wait", "range(30)")
    assert until(lambda: any("29" in line and "wait" in line for line in terminal.screen()), 20), terminal.screen()
    terminal.press(key)
    assert until(lambda: "status=0" in terminal.screen(), 10), terminal.screen()
    assert [line for line in terminal.screen() if line not in ("", "^C")] == ["status=0"], "the screen is as it was"
    assert call
