"""The commands that look at a server and operate what is on it, against a real one that an app is deployed on.

Most are called in this process: what they print and the status they return is what a shell would see.
"""

import asyncio
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from upswell import Function, FunctionCall
from upswell.cli import main
from upswell.sdk.clients import close_keeper

from .processes import SECONDS_TO_RUN, UPSWELL, Done, Program, until
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
        if x == 14:
            raise TimeoutError("fourteen")
        return [x, x * x]

    @app.function(max_containers=1)
    def wait(path):
        while not os.path.exists(path):
            time.sleep(0.01)
        return path

    @app.function()
    def flood(megabytes, path):
        \"\"\"So many at least.\"\"\"
        written = 0
        while written < megabytes or not os.path.exists(path):
            sys.stdout.write((99 * "x" + "\\n") * 10_000)
            written += 1
        return written
"""


class Kitchen:
    """The app on its server, and who looks at it."""

    def __init__(self, program: Program, capsys: pytest.CaptureFixture[str]) -> None:
        self.program = program
        self.go = program.home / "go"  # what `wait` waits for
        self._capsys = capsys
        program.write(KITCHEN)
        self.deploy()
        self.id = str(self.records("app", "list")[0]["id"])

    def deploy(self) -> None:
        assert self.program.upswell("deploy", "program.py").status == 0

    def command(self, *words: str, status: int = 0) -> Done:
        self._capsys.readouterr()
        ended = main(words)
        done = Done(ended, *self._capsys.readouterr())
        assert ended == status, done
        return done

    def table(self, *words: str) -> list[list[str]]:
        return [line.split() for line in self.command(*words).lines[1:]]

    def records(self, *words: str) -> list[dict[str, Any]]:
        return json.loads(self.command(*words, "--json").out)  # type: ignore[no-any-return]

    def function(self, name: str) -> Function[..., Any]:
        return Function.from_name("kitchen", name)


@pytest.fixture
def kitchen(
    program: Program, keeper: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Kitchen]:
    monkeypatch.setenv("UPSWELL_HOME", str(program.home))
    yield Kitchen(program, capsys)
    close_keeper()


def test_without_a_server(program: Program) -> None:
    for words in (["app", "list"], ["call", "get", "fc-1"], ["top"]):
        done = program.upswell(*words)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
        assert "no server runs" in done.err and "`upswell server start`" in done.err


def test_what_runs_is_listed(kitchen: Kitchen) -> None:
    assert kitchen.table("app", "list")[0][:4] == ["kitchen", kitchen.id, "deployed", "1"]
    assert [row[1] for row in kitchen.table("function", "list", "kitchen")] == ["simmer", "wait", "flood"]
    assert until(lambda: [row[2:4] for row in kitchen.table("container", "list")] == [["simmer", "ready"]])
    (container,) = kitchen.records("container", "list", kitchen.id)
    assert (container["app_name"], container["function"], container["version"]) == ("kitchen", "simmer", 1)
    assert 1 << 20 < container["memory_bytes"] < 1 << 30 and abs(container["started_at"] - time.time()) < 60
    stats = kitchen.command("function", "stats", "kitchen", "simmer")
    assert [line.split() for line in stats.lines] == [
        ["backlog", "0"], ["num_total_runners", "1"], ["num_running_inputs", "0"], ["input_headroom", "1"]
    ]  # fmt: skip
    frame = kitchen.command("top").lines
    assert frame[0].startswith("1 container, 0 inputs run") and frame[3].split()[:2] == ["kitchen", "simmer"]
    assert kitchen.command("call", "list").err == "upswell: no call is here: make one with FUNCTION.spawn(...)\n"
    assert kitchen.records("call", "list") == []


def test_names_that_are_not_there(kitchen: Kitchen) -> None:
    for words, said in [
        (["app", "stop", "kitchn"], "there is no app 'kitchn': did you mean 'kitchen'?"),
        (["app", "logs", "zzz"], "there is no app 'zzz'; there are: kitchen"),
        (["function", "stats", "kitchen", "simer"], "there is no function 'simer' in kitchen: did you mean 'simmer'?"),
        (["call", "get", "fc-none"], "there is no call fc-none: `upswell call list` shows those that are kept"),
        (["call", "cancel", "fc-none"], "there is no call fc-none: `upswell call list` shows those that are kept"),
        (["container", "stop", "7"], "there is no container co-7: it has ended, or it never was"),
    ]:
        assert kitchen.command(*words, status=1).err == f"upswell: {said}\n"
    for words in (["app", "logs"], ["app", "explode"], ["app", "logs", "kitchen", "-n", "many"], ["app", "stop"]):
        assert kitchen.command(*words, status=2).err.count("\n") == 1


def test_two_apps_of_one_name(kitchen: Kitchen) -> None:
    """Neither is guessed."""
    kitchen.program.write("""
        import subprocess, sys
        import upswell

        one, two = upswell.App("twin"), upswell.App("twin")

        @one.function()
        def only(): ...

        with one.run(), two.run():
            for name in ("twin", one.app_id):
                done = subprocess.run([*sys.argv[1:], "function", "list", name], capture_output=True, text=True)
                print(done.returncode, done.stderr, done.stdout.split()[-12:])
    """, "twins.py")  # fmt: skip
    server = f"UPSWELL_SERVER=unix:{kitchen.program.home}/server.sock"
    lines = kitchen.program.run("env", server, sys.executable, "twins.py", *UPSWELL).lines
    assert lines[0].startswith("1 upswell: 2 apps are named 'twin': say which by its id: ap-")
    assert lines[0].count("(running)") == 2
    assert lines[-1].startswith("0 ") and "'only'" in lines[-1]


def test_settings_are_changed_and_explained(kitchen: Kitchen) -> None:
    words = ("function", "autoscaler", "kitchen", "simmer")
    assert kitchen.command(*words).lines == [
        "min_containers     1", "max_containers     2", "buffer_containers  0", "scaledown_window   60",
    ]  # fmt: skip
    changed = kitchen.command(*words, "--max", "3", "--window", "5", "--json")
    assert json.loads(changed.out) == {
        "min_containers": 1, "max_containers": 3, "buffer_containers": 0, "scaledown_window": 5,
    }  # fmt: skip
    assert kitchen.command(*words, "--max", "default").lines[1] == "max_containers     no limit"
    assert "must not exceed" in kitchen.command(*words, "--min", "9", "--max", "3", status=1).err
    assert "'few'" in kitchen.command(*words, "--min", "few", status=2).err
    why = kitchen.command(*words, "--why").lines
    assert "rule               idle" in why
    assert why[-1].split(maxsplit=1) == ["reason", "no input waits or runs; min_containers is 1"]
    kitchen.deploy()
    assert kitchen.command(*words).lines[1] == "max_containers     2"


def test_results_are_fetched(kitchen: Kitchen) -> None:
    call = kitchen.function("simmer").spawn_map(range(3)).object_id
    assert kitchen.command("call", "get", call).out == "[0, 0]\n[1, 1]\n[2, 4]\n"
    assert kitchen.command("call", "get", call, "--index", "2", "--json").out == "[2, 4]\n"
    (row,) = kitchen.records("call", "list", "kitchen")
    assert (row["id"], row["function"], row["state"], row["inputs"], row["done"], row["failed"]) == (
        call, "simmer", "finished", 3, 3, 0,
    )  # fmt: skip
    failing = kitchen.function("simmer").spawn(13).object_id
    done = kitchen.program.upswell("call", "get", failing)
    assert done.status == 1 and 'raise ValueError("thirteen")' in done.err
    assert done.err.splitlines()[-1] == "ValueError: thirteen" and "sdk" not in done.err
    assert [row[:6:5] for row in kitchen.table("call", "list", "-n", "1")] == [[failing, "1/1"]]
    done = kitchen.program.upswell("call", "get", kitchen.function("simmer").spawn(14).object_id, "--timeout", "60")
    assert done.status == 1 and 'raise TimeoutError("fourteen")' in done.err


def test_a_call_without_inputs(kitchen: Kitchen) -> None:
    call = kitchen.function("simmer").spawn_map([]).object_id
    assert kitchen.command("call", "get", call).out == ""
    missing = kitchen.command("call", "get", call, "--index", "0", status=1)
    assert missing.err == f"upswell: {call} has 0 inputs, counted from 0, and none at 0\n"
    assert [row[4:6] for row in kitchen.table("call", "list")] == [["finished", "0/0"]]
    assert kitchen.command("call", "cancel", call).out == f"{call} has ended already\n"
    again = FunctionCall.from_id(call)
    assert (again.num_inputs(), list(again.iter()), again.get_call_graph()) == (0, [], [])


def test_results_of_a_call_are_printed_while_more_inputs_come_and_waited_for_no_longer(kitchen: Kitchen) -> None:
    go_on = threading.Event()

    def inputs() -> Iterator[int]:
        yield from range(20, 2020)  # of which the first segment leaves
        go_on.wait(SECONDS_TO_RUN)

    with ThreadPoolExecutor(1) as pool:
        spawning = pool.submit(lambda: kitchen.function("simmer").spawn_map(inputs()))
        assert until(lambda: [row["done"] for row in kitchen.records("call", "list")] == [1000])
        (row,) = kitchen.records("call", "list")
        late = kitchen.program.upswell("call", "get", str(row["id"]), "--timeout", "3")
        assert (late.status, len(late.lines), late.err) == (1, 1000, f"upswell: {row['id']} has no result yet\n")
        go_on.set()
        assert len(list(spawning.result().iter(timeout=SECONDS_TO_RUN))) == 2000


def test_a_call_is_cancelled(kitchen: Kitchen) -> None:
    call = kitchen.function("wait").spawn_map([str(kitchen.go)] * 5).object_id
    late = kitchen.command("call", "get", call, "--timeout", "0", "--index", "3", status=1)
    assert late.err == f"upswell: {call} has no result yet\n"
    assert kitchen.command("call", "cancel", call).out == f"cancelled {call}\n"
    assert until(lambda: kitchen.table("call", "list")[0][4:6] == ["cancelled", "5/5"])
    assert kitchen.command("call", "cancel", call).out == f"{call} has ended already\n"
    ended = json.loads(kitchen.command("call", "cancel", call, "--json").out)
    assert (ended["id"], ended["state"]) == (call, "cancelled")


def test_one_of_many_that_were_spawned_at_once(kitchen: Kitchen) -> None:
    wait = kitchen.function("wait").hydrate()

    async def spawned() -> list[str]:
        return [call.object_id for call in await asyncio.gather(*(wait.spawn.aio(str(kitchen.go)) for _ in range(6)))]

    together = asyncio.run(spawned())
    group = together[0].replace("fc-", "fg-").removesuffix("-0")
    listed = {row["id"]: row["inputs"] for row in kitchen.records("call", "list", "kitchen")}
    assert listed == {group: 6}
    assert kitchen.command("call", "cancel", together[3]).out == f"cancelled {together[3]}\n"
    assert until(lambda: kitchen.command("call", "cancel", together[3]).out.endswith("has ended already\n"))
    kept = json.loads(kitchen.command("call", "cancel", together[3], "--json").out)
    assert (kept["id"], kept["state"], kept["done"], kept["failed"]) == (together[3], "cancelled", 1, 1)
    assert kitchen.command("call", "get", together[4], "--timeout", "0", status=1).err.endswith("has no result yet\n")
    kitchen.go.touch()
    assert kitchen.command("call", "get", together[4]).out == f"{str(kitchen.go)!r}\n"
    done = kitchen.program.upswell("call", "get", together[3])
    assert done.status == 1 and "the call was cancelled" in done.err
    assert kitchen.command("call", "cancel", together[4]).out == f"{together[4]} has ended already\n"
    assert until(lambda: kitchen.table("call", "list")[0][4:7] == ["finished", "6/6", "1"])


def test_a_container_is_stopped(kitchen: Kitchen) -> None:
    call = kitchen.function("wait").spawn(str(kitchen.go))

    def waiting() -> list[str]:
        there = kitchen.records("container", "list")
        return [row["id"] for row in there if (row["function"], row["running"]) == ("wait", 1)]

    assert until(waiting)
    (first,) = waiting()
    assert kitchen.command("container", "stop", first.removeprefix("co-")).out == f"stopped {first}\n"
    assert until(lambda: waiting() not in ([], [first]))
    kitchen.go.touch()
    assert call.get(SECONDS_TO_RUN) == str(kitchen.go)
    assert kitchen.command("container", "logs", first).lines[-1].endswith("was killed: it was stopped")


def test_a_container_ends_with_an_input_that_was_cancelled(kitchen: Kitchen) -> None:
    call = kitchen.function("wait").spawn(str(kitchen.go))
    assert until(lambda: [row["running"] for row in kitchen.records("function", "list")][1] == 1)
    call.cancel()
    assert until(lambda: "(server)" in kitchen.command("app", "logs", "kitchen", "--function", "wait").out)
    (said,) = kitchen.command("app", "logs", "kitchen", "--function", "wait").lines
    assert said.endswith("(server)  ends with its input: the call was cancelled")


def test_versions(kitchen: Kitchen) -> None:
    kitchen.program.write(KITCHEN.replace("max_containers=2", "max_containers=7"))
    kitchen.deploy()
    assert [row[0] for row in kitchen.table("app", "history", "kitchen")] == ["2", "1"]
    assert kitchen.command("app", "rollback", "kitchen").out == "kitchen is at version 3 now\n"
    assert kitchen.command("app", "rollback", "kitchen", "1").out == "kitchen is at version 3 already\n"
    assert "has no version 9: its latest is 3" in kitchen.command("app", "rollback", "kitchen", "9", status=1).err
    assert [(row["version"], row["is_served"]) for row in kitchen.records("app", "history", "kitchen")] == [
        (3, True), (2, False), (1, False),
    ]  # fmt: skip
    assert kitchen.command("app", "stop", "kitchen").out == f"stopped kitchen ({kitchen.id})\n"
    assert until(lambda: kitchen.table("app", "list")[0][2] == "stopped")
    assert kitchen.command("app", "stop", "kitchen", status=1).err == "upswell: kitchen is stopped already\n"
    assert "version 3" in kitchen.command("app", "logs", "kitchen", "-n", "1000").out
    stopped = kitchen.command("app", "rollback", "kitchen", status=1).err
    assert stopped == "upswell: kitchen is stopped: name the version to serve, from 1 to 3\n"
    assert kitchen.command("app", "rollback", "kitchen", "3").out == "kitchen is at version 4 now\n"
    assert json.loads(kitchen.command("app", "stop", "kitchen", "--json").out)["state"] in ("stopping", "stopped")


def test_logs(kitchen: Kitchen) -> None:
    assert len(list(kitchen.function("simmer").map(range(4)))) == 4
    assert until(lambda: kitchen.command("app", "logs", "kitchen").out.count("simmers") == 4)
    lines = kitchen.command("app", "logs", "kitchen", "--function", "simmer", "-n", "2").lines
    assert len(lines) == 2 and all(" simmer co-" in line and "simmers" in line for line in lines)
    record = json.loads(kitchen.command("app", "logs", "kitchen", "-n", "1", "--json").lines[0])
    assert (record["function"], record["stream"]) == ("simmer", "stdout")
    assert "simmers" in kitchen.command("container", "logs", record["container"], "-n", "9").out
    for words in (["app", "logs", "kitchen", "--function", "flood"], ["container", "logs", "co-none"]):
        none = kitchen.command(*words)
        assert none.out == "" and none.err.startswith("upswell: nothing is kept of that")


def test_a_log_is_followed(kitchen: Kitchen) -> None:
    following = kitchen.program.start([*UPSWELL, "app", "logs", "kitchen", "-f", "-n", "1"])
    assert following.stdout is not None
    assert following.stdout.readline().endswith("version 1 is served from now on, rolling\n")
    assert len(list(kitchen.function("simmer").map(range(20, 70)))) == 50
    assert {following.stdout.readline().rpartition(" ")[2] for _ in range(50)} == {f"{x}\n" for x in range(20, 70)}
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=SECONDS_TO_RUN) == ("", "")
    assert following.returncode == 130


def test_a_flood_holds_nobody_up(kitchen: Kitchen) -> None:
    """100 MB come as fast as they can be written; meanwhile others are served, and what is kept is bounded."""
    simmer = kitchen.function("simmer")
    simmer.remote(0)
    call = kitchen.function("flood").spawn(100, str(kitchen.go))
    assert until(lambda: kitchen.command("app", "logs", "kitchen", "--function", "flood", "-n", "1").out)
    for x in range(10):
        assert simmer.remote(x) == [x, x * x]
        assert kitchen.records("call", "list", "-n", "1")[0]["state"] == "running"
    kitchen.go.touch()
    assert call.get() >= 100
    kept = 0
    for path in (kitchen.program.home / "logs" / kitchen.id).iterdir():
        with suppress(FileNotFoundError):  # what is still on its way takes the oldest one's place
            kept += path.stat().st_size
    assert 0 < kept < 50 << 20


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize("key", ["q", "C-c"])
def test_top_at_a_terminal(kitchen: Kitchen, terminal: Tmux, key: str) -> None:
    terminal.type(*UPSWELL, "top")

    def shown(name: str) -> str:
        return next((line for line in terminal.screen() if f" {name} " in line), "")

    assert until(lambda: "····" in shown("simmer")), terminal.screen()
    kitchen.function("wait").spawn_map([str(kitchen.go)] * 30)
    assert until(lambda: shown("wait").split()[2:5] == ["█" * 20, "1", "29"]), terminal.screen()
    totals = "2 containers, 1 input runs, 29 wait"
    assert until(lambda: any(line.startswith(totals) for line in terminal.screen())), terminal.screen()
    terminal.press(key)
    assert until(lambda: "status=0" in terminal.screen()), terminal.screen()
    assert [line for line in terminal.screen() if line not in ("", "^C")] == ["status=0"], "the screen is as it was"
