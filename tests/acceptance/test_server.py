"""The server of a home: its life in the background and in the foreground, what it refuses, and a copy of its state."""

import json
import re
import resource
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import pytest

from upswell.wire import messages as m
from upswell.wire.codec import encode

from .homes import Home
from .processes import SECONDS_TO_RUN, UPSWELL, Program, until

EXIT_HOOK = """
    import time

    import upswell

    app = upswell.App("hooked")


    @app.cls(min_containers=1)
    class Hooked:
        @upswell.enter()
        def begin(self):
            open("kept.entered", "w").close()

        @upswell.exit()
        def end(self):
            open("kept.left", "w").close()

        @upswell.method()
        def hold(self, seconds):
            time.sleep(seconds)


    @app.local_entrypoint()
    def main():
        Hooked().hold.remote(60)
"""


def test_a_life_in_the_background(home: Home) -> None:
    first = home.upswell("server", "status")
    assert first.status == 3
    assert f"no server answers at unix:{home.path}/server.sock" in first.out and "upswell server start" in first.out
    assert json.loads(home.upswell("server", "status", "--json").out)["running"] is False
    started = home.upswell("server", "start")
    assert (started.status, started.err) == (0, "")
    status = home.status()
    assert started.out == f"the server runs: process {status['process']}, unix:{home.path}/server.sock\n"
    assert (status["running"], status["apps"], status["containers"]) == (True, 0, 0)
    assert status["kept_bytes"] > 0 and status["addresses"] == [f"unix:{home.path}/server.sock"]
    again = home.upswell("server", "start")
    assert (again.status, "runs already" in again.out, str(status["process"]) in again.out) == (0, True, True)
    other = home.upswell("server", "start", "--engine", "spawn")
    assert (other.out, other.err) == (
        again.out,
        "upswell: it runs as it was started: for other options, stop it first\n",
    )
    assert f"process {status['process']}" in home.upswell("server", "status").out
    assert f"process {status['process']} serves at" in home.upswell("server", "logs", "-n", "1").out
    assert home.upswell("server", "stop").out == f"the server, process {status['process']}, has ended\n"
    assert home.upswell("server", "stop").out == f"no server ran in {home.path}\n"
    assert home.upswell("server", "status").status == 3
    home.program.assert_all_gone()
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o077 for path in home.path.iterdir() if path.is_file()} == dict.fromkeys(
        ("lock", "server.log", "upswell.db"), 0
    )


def test_a_home_that_is_named_on_the_command_line(home: Home) -> None:
    other = home.path.parent / "elsewhere"
    started = json.loads(home.upswell("server", "start", "--home", str(other), "--json").out)
    assert (started["address"], started["fresh"]) == (f"unix:{other}/server.sock", True)
    assert home.upswell("server", "status").status == 3, "it is not that of UPSWELL_HOME"
    assert f"process {started['process']}" in home.upswell("server", "status", "--home", str(other)).out
    assert "serves at" in home.upswell("server", "logs", "--home", str(other)).out
    assert home.upswell("server", "token", "create", "--home", str(other)).out.startswith("tk-")
    assert home.upswell("server", "token", "list", "--home", str(other)).out.count("tk-") == 1
    assert home.upswell("server", "token", "list").out == ""
    stopped = [home.upswell("server", "stop", "--home", str(other), "--json") for _ in range(2)]
    assert [json.loads(one.out)["process"] for one in stopped] == [started["process"], None]


def test_many_start_it_at_once(home: Home) -> None:
    starts = [home.popen(*UPSWELL, "server", "start") for _ in range(4)]
    said = [one.communicate(timeout=SECONDS_TO_RUN) for one in starts]
    process = home.status()["process"]
    assert [one.returncode for one in starts] == [0] * 4, said
    assert sum("already" not in out for out, _ in said) == 1
    assert all(f"process {process}," in out for out, _ in said)
    home.upswell("server", "stop")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_life_in_the_foreground(home: Home, number: signal.Signals) -> None:
    before = signal.signal(number, lambda *_: None)  # what is started is not to ignore it, as under nohup it would
    try:
        server = home.popen(*UPSWELL, "serve")
    finally:
        signal.signal(number, before)
    assert until(lambda: home.upswell("server", "status").status == 0)
    assert home.status()["process"] == server.pid
    second = home.upswell("serve")
    assert second.status == 1
    assert second.err == (
        f"upswell: {home.path} is in use by another server, process {server.pid}: stop that one, or set UPSWELL_HOME\n"
    )
    server.send_signal(number)
    _, said = server.communicate(timeout=SECONDS_TO_RUN)
    assert server.returncode == 0
    assert f"process {server.pid} serves at unix:{home.path}/server.sock" in said
    home.program.assert_all_gone()


def test_nohup_is_heeded(home: Home) -> None:
    server = home.popen("nohup", *UPSWELL, "serve")
    assert until(lambda: home.upswell("server", "status").status == 0)
    server.send_signal(signal.SIGHUP)
    assert home.status()["process"] == server.pid
    assert home.upswell("server", "stop").status == 0
    server.communicate(timeout=SECONDS_TO_RUN)
    assert server.returncode == 0


def test_containers_clean_up_when_it_is_stopped(home: Home) -> None:
    home.program.write(EXIT_HOOK)
    with home.served() as status:
        run = home.popen(*UPSWELL, "run", "program.py", UPSWELL_SERVER=status["addresses"][0])
        assert until((home.program.folder / "kept.entered").exists)
        assert until(lambda: home.status()["containers"] == 1)
        assert not (home.program.folder / "kept.left").exists()
        home.upswell("server", "stop")
        assert (home.program.folder / "kept.left").exists()
        run.kill()
        run.communicate()
    home.program.assert_all_gone()


LARGE = """
    import upswell
    from upswell.exception import ResourceExhaustedError

    app = upswell.App("large")


    @app.function()
    def size(data):
        return len(data)


    if __name__ == "__main__":
        try:
            print(upswell.Function.from_name("large", "size").spawn(bytes(1 << 20)).get())
        except ResourceExhaustedError as error:
            print(error)
"""


def test_a_full_disk_is_told_by_its_status(home: Home) -> None:
    home.program.write(LARGE)
    with home.served() as status:
        home.upswell("deploy", "program.py")
        before = resource.prlimit(status["process"], resource.RLIMIT_FSIZE)
        resource.prlimit(status["process"], resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        refused = home.python("program.py").out
        assert "the disk of" in refused and "is full" in refused
        told = home.upswell("server", "status")
        assert told.status == 0 and f"the last that came was refused, or waits: {refused}" in told.out
        resource.prlimit(status["process"], resource.RLIMIT_FSIZE, before)
        assert home.python("program.py").out == f"{1 << 20}\n"
        assert home.status()["trouble"] == ""


BROKEN = """
    import upswell

    if not upswell.is_local():
        import {missing}

    app = upswell.App("mended")


    @app.function()
    def double(x):
        return 2 * x


    if __name__ == "__main__":
        print(upswell.Function.from_name("mended", "double").remote(21))
"""


def test_who_waits_for_what_can_not_start_is_told_and_served_once_it_can(home: Home) -> None:
    home.program.write(BROKEN.format(missing="nothing_of_that_name"))
    with home.served():
        home.upswell("deploy", "program.py")
        waits = home.popen(sys.executable, "program.py")
        assert waits.stderr is not None
        told = waits.stderr.readline()  # after the third start
        words = "ModuleNotFoundError: No module named 'nothing_of_that_name'"
        assert told == f"upswell: no container of double can start, and its calls wait: {words}\n"
        assert "/double: no container of double can start" in (home.path / "server.log").read_text()
        why = home.upswell("function", "autoscaler", "mended", "double", "--why").out
        pauses = "(4|8|16|32|60) s"  # with each that has failed by the time of the question they are longer
        assert re.search(rf"the last start failed \({words}\), and the next one comes after {pauses}", why), why
        home.program.write(BROKEN.format(missing="json"))
        home.upswell("deploy", "program.py")
        out, err = waits.communicate(timeout=SECONDS_TO_RUN)
        assert (waits.returncode, out, err) == (0, "42\n", "")


def test_the_log_is_followed(home: Home) -> None:
    with home.served() as status:
        follower = home.popen(*UPSWELL, "server", "logs", "-f", "-n", "1")
        assert follower.stdout is not None
        assert f"process {status['process']} serves" in follower.stdout.readline()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(f"{home.path}/server.sock")
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert "closed, a frame of" in follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=SECONDS_TO_RUN)
        assert follower.returncode == 130


def test_a_copy_while_it_runs_and_when_it_does_not(home: Home) -> None:
    nothing = home.upswell("server", "backup", "copy.db")
    assert nothing.status == 1 and "nothing was ever kept there" in nothing.err
    with home.served():
        made = home.upswell("server", "backup", "kept.copy.db")
        assert made.status == 0, made.err
        refused = home.upswell("server", "backup", "none/copy.db")
        assert refused.status == 1 and "none/copy.db" in refused.err
    assert home.upswell("server", "backup", "kept.later.db").status == 0
    for name in ("kept.copy.db", "kept.later.db"):
        path = home.program.folder / name
        with sqlite3.connect(path) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert copy.execute("SELECT count(*) FROM apps").fetchall() == [(0,)]
        copy.close()
    (home.path / "upswell.db").write_bytes((home.program.folder / "kept.copy.db").read_bytes())
    with home.served() as status:
        assert status["running"]


def test_a_damaged_file(home: Home) -> None:
    with home.served():
        pass
    path = home.path / "upswell.db"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192)
    for command in (("server", "start"), ("serve",)):
        refused = home.upswell(*command)
        assert refused.status == 1
        assert f"{path} is damaged" in refused.err and "upswell server backup" in refused.err
        assert "Traceback" not in refused.err
    home.program.assert_all_gone()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("serv = 1", "unknown field `serv`"),
        ("[serve]\nlimits = {pendin = 5}", "unknown field `pendin`"),
        ("[serve]\nlimits = {pending = 0}", "the limit pending must be at least 1"),
        ("server = ", "config.toml is not valid"),
        ('[serve]\nlisten = "0.0.0.0:7000"', "without TLS would show everything to the network"),
        ('[serve]\nlisten = "nowhere"', "is no HOST:PORT"),
        ('[serve]\nengine = "none"', "there is no engine 'none'"),
    ],
)
def test_a_configuration_that_is_wrong(home: Home, text: str, words: str) -> None:
    home.path.mkdir(0o700)
    (home.path / "config.toml").write_text(text)
    refused = home.upswell("server", "start")
    assert refused.status == 1 and words in refused.err, refused
    assert "Traceback" not in refused.err
    home.program.assert_all_gone()


def test_a_home_that_others_may_write(home: Home) -> None:
    home.path.mkdir(0o700)
    home.path.chmod(0o720)
    for command in (("server", "start"), ("serve",)):
        refused = home.upswell(*command)
        assert refused.status == 1 and f"run `chmod go-w {home.path}`" in refused.err


@pytest.mark.parametrize("name", ["lock", "server.log", "upswell.db"])
def test_a_home_with_something_that_is_not_the_servers(home: Home, name: str) -> None:
    (home.path / name).mkdir(parents=True)
    home.path.chmod(0o700)
    for command in (("server", "start"), ("serve",)):
        refused = home.upswell(*command)
        assert refused.status == 1 and refused.err.count("\n") == 1, refused.err
        assert f"{home.path / name} can't be used: Is a directory" in refused.err


def test_too_few_open_files(home: Home) -> None:
    for command in (("server", "start"), ("serve",)):
        refused = home.run("sh", "-c", 'ulimit -n 12 && exec "$@"', "sh", *UPSWELL, *command)
        assert refused.status == 1 and refused.err.count("\n") == 1, refused.err
        assert refused.err.endswith("a server needs at least 64 open files, and may have 12 here: raise `ulimit -Hn`\n")


def test_a_home_that_is_none(home: Home) -> None:
    home.path.write_text("")
    where = str(home.path)
    for command in (("start",), ("stop",), ("backup", "copy.db"), ("token", "list"), ("token", "create"), ("logs",)):
        refused = home.upswell("server", *command)
        assert refused.status == 1 and refused.err.startswith(f"upswell: {where}"), refused.err
        assert refused.err.count("\n") == 1, refused.err


def test_the_configured_server_is_used(home: Home) -> None:
    home.program.write(
        """
        import os

        import upswell

        app = upswell.App("where")


        @app.function()
        def server():
            return os.getppid()


        @app.local_entrypoint()
        def main():
            print(server.remote() > 0, upswell.sdk.clients.get_client()._private is None)
        """
    )
    with home.served() as status:
        private = home.upswell("run", "program.py")
        assert private.out.split() == ["True", "False"], private.err
        (home.path / "config.toml").write_text(f'server = "{status["addresses"][0]}"')
        chosen = home.upswell("run", "program.py")
        assert chosen.out.split() == ["True", "True"], chosen.err
        other = home.upswell("run", "program.py", UPSWELL_SERVER=f"unix:{home.path}/none.sock")
        assert other.status == 1 and f"no server answers at unix:{home.path}/none.sock" in other.err


def test_a_client_of_another_protocol(home: Home) -> None:
    home.program.write(
        """
        import upswell
        from upswell.wire import messages

        messages.PROTOCOL = 99
        app = upswell.App("future")


        @app.function()
        def f():
            pass


        try:
            with app.run():
                f.remote()
        except upswell.exception.ConnectionError as error:
            print(error)
        """
    )
    with home.served() as status:
        said = home.python("program.py", UPSWELL_SERVER=status["addresses"][0])
        assert f"you speak protocol 99, this server speaks {m.PROTOCOL}" in said.out, said.err
        assert "you speak protocol 99" in home.upswell("server", "logs").out


def test_a_frame_that_is_wrong_disturbs_nobody(home: Home) -> None:
    with home.served() as status:
        with socket.socket(socket.AF_UNIX) as honest, socket.socket(socket.AF_UNIX) as stranger:
            for one in (honest, stranger):
                one.connect(f"{home.path}/server.sock")
                one.sendall(encode(m.Hello(m.PROTOCOL, "client", "", 1)))
                assert one.recv(1 << 16)
            stranger.sendall(b"\xff" * 100)
            assert b"and the limit is" in stranger.recv(1 << 16)
            honest.sendall(encode(m.DescribeServer(1)))
            assert b"server.sock" in honest.recv(1 << 16)
        assert "and the limit is" in home.upswell("server", "logs").out
        assert home.status()["process"] == status["process"]


def test_the_log_has_a_limit(tmp_path: Path) -> None:
    """The process's own words go to the file of the moment, too."""
    home = tmp_path / "kept"
    home.mkdir()
    program = """
import logging, os, sys
from pathlib import Path
from upswell.server import log
log.MAX_LOG_BYTES = 2000
log.begin_log(Path(sys.argv[1]), in_background=True)
for number in range(200):
    logging.getLogger("upswell.server").info("line %d", number)
    os.write(2, b"a traceback\\n")
"""
    done = Home(Program(tmp_path), home).python("-c", program, str(home))
    assert (done.status, done.out, done.err) == (0, "", "")
    files = sorted(path.name for path in home.iterdir())
    assert files == ["server.log", "server.log.1", "server.log.2", "server.log.3"]
    assert all(path.stat().st_size < 4000 for path in home.iterdir())
    assert "line 199" in (home / "server.log").read_text() and "a traceback" in (home / "server.log").read_text()


def test_starting_the_server_from_a_program(home: Home) -> None:
    program = (
        "from upswell.sdk.home_server import ensure_background_server as ensure; print(ensure().address); ensure()"
    )
    started = home.python("-c", program)
    assert started.out == f"unix:{home.path}/server.sock\n"
    assert started.err.count("started a server in the background") == 1 and "upswell server stop" in started.err
    assert home.status()["running"]
    assert home.upswell("server", "stop").status == 0
