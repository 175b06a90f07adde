"""Programs that spawn one by one, each into a spool of its own: what was returned is there once, whatever happens."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .homes import Home
from .processes import SECONDS_TO_RUN, Program, until

APP = """
    import os, time
    import upswell

    app = upswell.App("spooled")

    @app.function(max_containers=1)
    def note(folder, x, ballast=b""):
        with open(f"{folder}/notes", "a") as file:
            file.write(f"{x}\\n")
        return x

    @app.function(max_containers=1)
    def wait(folder, x):
        while not os.path.exists(f"{folder}/go"):
            time.sleep(0.005)
        return note.local(folder, x)

    @app.function()
    def follow(folder, count):
        \"\"\"Fetch what is spawned meanwhile, as soon as it is known how it is called.\"\"\"
        outputs = []
        for x in range(count):
            while not os.path.exists(f"{folder}/call-{x}"):
                pass
            with open(f"{folder}/call-{x}") as file:
                outputs.append(upswell.FunctionCall.from_id(file.read()).get(timeout=60))
        return outputs
"""

ALONE = """
    import os, sys, time
    from pathlib import Path

    import upswell
    from upswell import Function, FunctionCall
    from upswell.wire.spool import SpoolReader

    HOME, HERE = Path(os.environ["UPSWELL_HOME"]), sys.argv[1]
    note, wait = Function.from_name("spooled", "note"), Function.from_name("spooled", "wait")
    EARLIER = set((HOME / "spools").glob("*"))

    def records():
        \"\"\"How many spawns have come by each of the spools that are new since this program began.\"\"\"
        counts = {}
        for path in set((HOME / "spools").glob("*")) - EARLIER:
            reader = SpoolReader(str(path))
            counts[path] = max([number for number, _ in reader.take()], default=reader.kept)
            reader.close()
        return counts

    def begin(function=note):
        \"\"\"Spawn one by one until there is a spool with some of it.\"\"\"
        calls = [function.spawn(HERE, -x) for x in range(1, 21)]
        assert any(records().values()), "it has no spool"
        return calls

    def await_file(name):
        while not os.path.exists(f"{HERE}/{name}"):
            time.sleep(0.005)
"""
AWAY = "upswell: the connection to the server is lost", "upswell: the server is back"  # what a program may say of that


class Scene:
    """A home with a deployed app, servers of it in turn, and programs of its user."""

    def __init__(self, folder: Path) -> None:
        self.program = Program(folder)
        self.home = self.program.home
        self.spools = self.home / "spools"
        self.commands = Home(self.program, self.home)
        self.here = folder  # what the present test has to itself
        self.server: subprocess.Popen[bytes] | None = None
        self.program.write(APP, "app.py")
        self.program.write(ALONE, "alone.py")
        self.home.mkdir(0o700)
        self.start()
        deployed = self.program.upswell("deploy", "app.py")
        assert deployed.status == 0, deployed.err

    def start(self) -> None:
        (self.home / "server.sock").unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "upswell.server", "--home", str(self.home)]
        with (self.home / "server.log").open("ab") as log:
            server = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        assert until(lambda: (self.home / "server.sock").exists() or server.poll() is not None)
        assert server.poll() is None, self.log()
        self.server = server

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.server is not None:
            self.server.send_signal(number)
            self.server.wait(SECONDS_TO_RUN)
            self.server = None

    def log(self) -> str:
        return (self.home / "server.log").read_text()

    def client(self, text: str) -> subprocess.Popen[str]:
        """Start a program that begins with `ALONE`."""
        path = self.program.write("from alone import *\n" + textwrap.dedent(text), f"{self.here.name}.py")
        return self.program.start([sys.executable, str(path), str(self.here)])

    def run(self, text: str) -> list[str]:
        """What such a program prints until its end."""
        return lines_of(self.client(text))

    def command(self, text: str) -> list[str]:
        """What a program prints that knows nothing of that, which may run beside others."""
        done = self.commands.python("-c", textwrap.dedent(text))
        assert (done.status, done.err) == (0, ""), done.err
        return done.lines

    def notes(self) -> list[int]:
        """The numbers for which the app has run, in that order, but for those that only began a spool."""
        path = self.here / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [number for number in map(int, lines) if number >= 0]

    def kept(self, copy: str) -> set[str]:
        """The calls that are in a copy of the home."""
        with closing(sqlite3.connect(self.program.folder / copy)) as database:
            return {call for (call,) in database.execute("SELECT id FROM calls")}


def lines_of(process: subprocess.Popen[str], *told: str) -> list[str]:
    """What it prints from now on, until its end, which must be a good one; all that it says of trouble begins so."""
    out, err = process.communicate(timeout=SECONDS_TO_RUN)
    assert process.returncode == 0 and all(line.startswith(told) for line in err.splitlines()), err
    return out.splitlines()


def has_grown(path: Path, least: int) -> bool:
    """Wait until there are more bytes than that in the file."""
    return until(lambda: path.exists() and path.stat().st_size > least)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    one = Scene(tmp_path_factory.mktemp("spools"))
    yield one
    one.end()
    one.program.clear()


@pytest.fixture
def scene(home: Scene, request: pytest.FixtureRequest) -> Scene:
    """With a folder for the test, and a server."""
    home.here = home.program.folder / request.node.name.replace("[", "-").rstrip("]")
    home.here.mkdir()
    if home.server is None:
        home.start()
    return home


def test_every_result_comes(scene: Scene) -> None:
    """In the order of the spawns, also with calls between them that are waited for; and no spool is left."""
    told = scene.run("""
        begin()
        calls = []
        for x in range(100):
            calls.append(note.spawn(HERE, x))
            if x % 30 == 29:
                assert note.remote(HERE, 1000 + x) == 1000 + x
        print(sum(records().values()) > 90)
        assert [call.get(timeout=60) for call in calls] == list(range(100))
        assert [FunctionCall.from_id(call.object_id).get(timeout=60) for call in calls] == list(range(100))
    """)
    assert told == ["True"]
    noted = [number for number in scene.notes() if number < 1000]
    assert noted == list(range(100))
    for x in (29, 59, 89):
        assert scene.notes().index(1000 + x) == scene.notes().index(x) + 1
    assert until(lambda: not list(scene.spools.iterdir()))


def test_rubbish_among_the_spools(scene: Scene) -> None:
    scene.end()
    (scene.spools / "sp-folder").mkdir()
    (scene.spools / "sp-link").symlink_to(scene.here / "elsewhere")
    os.mkfifo(scene.spools / "sp-pipe")
    (scene.spools / "sp-empty").touch()
    (scene.spools / "sp-short").write_bytes(b"abc")
    (scene.spools / "sp-noise").write_bytes(os.urandom(300_000))
    (scene.spools / "sp-ones").write_bytes(b"\xff" * 300_000)
    scene.start()
    for name, words in (("folder", "Is a directory"), ("link", "Too many levels"), ("pipe", "it is no file")):
        assert f"the spool sp-{name} can't be read: {words}" in scene.log()
    scene.run("""
        begin()
        print(note.spawn(HERE, 0).get(timeout=60))
    """)
    assert not (scene.here / "elsewhere").exists()
    (scene.spools / "sp-folder").rmdir()
    (scene.spools / "sp-link").unlink()
    (scene.spools / "sp-pipe").unlink()
    assert until(lambda: not list(scene.spools.iterdir()))


def test_no_place_for_spools(scene: Scene) -> None:
    scene.end()
    scene.spools.rmdir()
    scene.spools.touch()
    scene.start()
    assert f"no program can have a spool in {scene.spools}: File exists" in scene.log()
    told = scene.run("""
        calls = [note.spawn(HERE, x) for x in range(50)]
        print([call.get(timeout=60) for call in calls] == list(range(50)))
    """)
    assert told == ["True"]
    scene.end()
    scene.spools.unlink()


def test_ctrl_c_at_any_moment(scene: Scene) -> None:
    """In a program that goes on: what was returned is there once, and what comes later goes by a spool again."""
    told = scene.run("""
        import random, signal, threading, time

        def interrupt():
            chance = random.Random(1)
            while len(calls) < 150:
                time.sleep(0.004 * chance.random())
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        def ctrl_c(number, frame):
            global interrupted
            while frame is not None and frame.f_code is not spawn_on.__code__:
                frame = frame.f_back
            if frame is not None:  # else it would end the program between two tries
                interrupted += 1
                raise KeyboardInterrupt

        def spawn_on():
            global tried
            while len(calls) < 150:
                tried += 1
                calls[tried] = note.spawn(HERE, tried)

        begin()
        calls, tried, interrupted = {}, 0, 0
        signal.signal(signal.SIGINT, ctrl_c)
        hands = threading.Thread(target=interrupt)
        hands.start()
        while hands.is_alive():
            try:
                spawn_on()
                hands.join(0.01)
            except KeyboardInterrupt:
                pass
        written = records()
        begin()
        print(interrupted > 20, any(count > written.get(path, 0) for path, count in records().items()))
        assert {x: call.get(timeout=60) for x, call in calls.items()} == {x: x for x in calls}
        print(*calls)
    """)
    assert told[0] == "True True"
    returned, noted = list(map(int, told[1].split())), scene.notes()
    assert len(set(noted)) == len(noted) and set(noted) >= set(returned)
    assert until(lambda: not list(scene.spools.iterdir()))


def test_a_signal_handler_that_spawns(scene: Scene) -> None:
    told = scene.run("""
        import signal, threading, time
        from upswell.exception import ExecutionError

        def handle(number, frame):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            try:
                calls.append(note.spawn(HERE, 10_000 + len(calls)))
            except ExecutionError:
                refused.append(number)
            signal.signal(signal.SIGUSR1, handle)

        signal.signal(signal.SIGUSR1, handle)
        begin()
        calls, refused, others, stop = [], [], [], threading.Event()

        def interrupt():
            while not stop.wait(0.001):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        hands = threading.Thread(target=interrupt)
        hands.start()
        for x in range(300):
            others.append(note.spawn(HERE, x))
        stop.set()
        hands.join()
        assert [call.get(timeout=60) for call in others] == list(range(300))
        assert [call.get(timeout=60) for call in calls] == [10_000 + x for x in range(len(calls))]
        print(len(calls) > 20, len(calls))
    """)
    count = int(told[0].split()[1])
    assert told == [f"True {count}"]
    noted = scene.notes()
    assert [x for x in noted if x < 10_000] == list(range(300))
    assert sorted(x for x in noted if x >= 10_000) == [10_000 + x for x in range(count)]


def test_it_is_seen_at_once(scene: Scene) -> None:
    """By another program, in the list of calls, in a copy of the home; and is cancelled by either."""
    client = scene.client("""
        begin(wait)
        ours, theirs = wait.spawn(HERE, 1), wait.spawn(HERE, 2)
        wait.spawn(HERE, 3).cancel()
        print(ours.object_id, theirs.object_id, flush=True)
        for x in range(4, 7):
            await_file(f"spawn-{x}")
            print(wait.spawn(HERE, x).object_id, flush=True)
        await_file("go")
        print(ours.get(timeout=60))
        for _ in range(7):
            note.spawn(HERE, -1)
    """)
    assert client.stdout is not None
    ours, theirs = client.stdout.readline().split()
    found = scene.command(
        f"from upswell import FunctionCall; FunctionCall.from_id({theirs!r}).cancel(); print('right')"
    )
    assert found == ["right"]
    (scene.here / "spawn-4").touch()
    fourth = client.stdout.readline().strip()
    listed = json.loads(scene.commands.upswell("call", "list", "--json").out)
    assert listed[0]["id"] == fourth and {ours, theirs} <= {one["id"] for one in listed}
    (scene.here / "spawn-5").touch()
    fifth = client.stdout.readline().strip()
    assert scene.commands.upswell("server", "backup", "kept.running.db").status == 0
    (scene.here / "spawn-6").touch()
    sixth = client.stdout.readline().strip()
    scene.end(signal.SIGKILL)
    assert scene.commands.upswell("server", "backup", "kept.killed.db").status == 0
    assert sixth not in scene.kept("kept.running.db") >= {ours, theirs, fourth, fifth}
    assert scene.kept("kept.killed.db") >= {ours, theirs, fourth, fifth, sixth}
    scene.start()
    (scene.here / "go").touch()
    assert lines_of(client, *AWAY) == ["1"]
    assert until(lambda: len(scene.notes()) == 4) and sorted(scene.notes()) == [1, 4, 5, 6]


def test_a_container_finds_it_at_once(scene: Scene) -> None:
    told = scene.run("""
        follow = Function.from_name("spooled", "follow").spawn(HERE, 50)
        begin()
        for x in range(50):
            Path(HERE, f"new-{x}").write_text(note.spawn(HERE, x).object_id)
            Path(HERE, f"new-{x}").rename(f"{HERE}/call-{x}")
        print(follow.get(timeout=60) == list(range(50)))
    """)
    assert told == ["True"]


def test_a_write_that_fails(scene: Scene) -> None:
    """The record may be there all the same: it is one call, however it came."""
    told = scene.run("""
        import errno, itertools
        begin()
        sync, count = os.fdatasync, itertools.count(1)
        def fails(descriptor):
            if next(count) % 5 == 0:
                raise OSError(errno.EIO, "the disk is gone")
            sync(descriptor)
        os.fdatasync = fails
        calls = [note.spawn(HERE, x) for x in range(60)]
        print(next(count) > 10, [call.get(timeout=60) for call in calls] == list(range(60)))
    """)
    assert told == ["True True"]
    assert scene.notes() == list(range(60))


@pytest.mark.parametrize("with_client", [False, True], ids=["server", "both"])
def test_killed_while_it_spawns(scene: Scene, with_client: bool) -> None:
    client = scene.client("""
        begin()
        with open(f"{HERE}/returned", "a", buffering=1) as returned:
            x = 0
            while not os.path.exists(f"{HERE}/enough"):
                returned.write(f"{note.spawn(HERE, x).object_id} {x}\\n")
                x += 1
    """)
    returned = scene.here / "returned"
    for least in (4000,) if with_client else (4000, 8000):
        assert has_grown(returned, least)
        if with_client:
            client.kill()
        scene.end(signal.SIGKILL)
        scene.start()
    if with_client:
        client.communicate(timeout=SECONDS_TO_RUN)
    else:
        (scene.here / "enough").touch()
        assert lines_of(client, *AWAY) == []
    told = scene.command(f"""
        from upswell import FunctionCall
        calls = [line.split() for line in open({str(returned)!r})]
        assert len({{call for call, _ in calls}}) == len(calls)
        print([FunctionCall.from_id(call).get(timeout=60) for call, _ in calls] == [int(x) for _, x in calls])
    """)
    assert told == ["True"]
    assert until(lambda: not list(scene.spools.iterdir()))


def test_a_server_is_stopped_and_another_started(scene: Scene) -> None:
    client = scene.client("""
        begin()
        print("begun", flush=True)
        calls = []
        while not os.path.exists(f"{HERE}/enough"):
            calls.append(note.spawn(HERE, len(calls)))
        assert [call.get(timeout=60) for call in calls] == list(range(len(calls)))
        begin()
        print(len(calls))
    """)
    assert client.stdout is not None and client.stdout.readline() == "begun\n"
    for least in (200, 500):
        assert has_grown(scene.here / "notes", least)
        scene.end()
        scene.start()
    (scene.here / "enough").touch()
    (count,) = lines_of(client, *AWAY)
    assert scene.notes() == list(range(int(count)))


def test_who_spawns_beside_it(scene: Scene) -> None:
    """Children of a fork and of `multiprocessing`, and threads: each call is there once."""
    told = scene.run("""
        import multiprocessing, threading

        def spawned(first, count):
            return [(note.spawn(HERE, x).object_id, x) for x in range(first, first + count)]

        def in_child(first):
            calls = spawned(first, 40)
            Path(HERE, f"child-{first}").write_text(repr(calls))

        begin()
        calls = spawned(0, 10)
        if (child := os.fork()) == 0:
            in_child(1000)
            os._exit(0)
        calls += spawned(10, 40)
        assert os.waitpid(child, 0)[1] == 0
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=in_child, args=(first,)) for first in (2000, 3000)]
        for process in children:
            process.start()
        calls += spawned(50, 40)
        for process in children:
            process.join()
            assert process.exitcode == 0
        for first in (1000, 2000, 3000):
            calls += eval(Path(HERE, f"child-{first}").read_text())
        threads = [threading.Thread(target=lambda x=x: calls.extend(spawned(4000 + 10 * x, 3))) for x in range(100)]
        for thread in threads:
            thread.start()
        calls += spawned(90, 40)
        for thread in threads:
            thread.join()
        before = records()
        calls += spawned(130, 40)
        assert sum(records().values()) >= sum(before.values()) + 40
        assert len({call for call, _ in calls}) == len(calls) == 170 + 3 * 40 + 300
        print([FunctionCall.from_id(call).get(timeout=60) for call, _ in calls] == [x for _, x in calls])
    """)
    assert told == ["True"]
    noted = scene.notes()
    assert len(noted) == len(set(noted)) == 590
    # Those that may have travelled in a group with the threads' take turns with what comes after them.
    assert [x for x in noted if x < 90 or 130 <= x < 170] == [*range(90), *range(130, 170)]


def test_a_full_disk(scene: Scene) -> None:
    """Of the server: what has returned is not lost, and what comes then is refused, until there is room."""
    client = scene.client("""
        from upswell.exception import ResourceExhaustedError
        begin()
        print("begun", flush=True)
        await_file("full")
        calls = []
        while True:
            try:
                calls.append(note.spawn(HERE, len(calls), b"x" * 10_000))
            except ResourceExhaustedError as error:
                print(error, flush=True)
                break
        await_file("room")
        while len(calls) < 1000:
            try:
                calls.append(note.spawn(HERE, len(calls)))
            except ResourceExhaustedError:
                pass
            else:
                break
        assert [call.get(timeout=60) for call in calls] == list(range(len(calls)))
        print(len(calls))
    """)
    assert client.stdout is not None and client.stdout.readline() == "begun\n"
    assert scene.server is not None
    before = resource.prlimit(scene.server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(scene.server.pid, resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    (scene.here / "full").touch()
    assert "is full" in client.stdout.readline()
    resource.prlimit(scene.server.pid, resource.RLIMIT_FSIZE, before)
    (scene.here / "room").touch()
    (count,) = lines_of(client)
    assert scene.notes() == list(range(int(count)))


def test_the_function_goes(scene: Scene) -> None:
    """With a new version of its app, or with the app: the next spawn is refused."""
    app = """
        import upswell
        app = upswell.App("passing")

        @app.function(max_containers=1)
        def note(folder, x):
            with open(f"{folder}/notes", "a") as file:
                file.write(f"{x}\\n")
            return x

        @app.function(max_containers=1)
        def other(folder, x):
            return note.local(folder, x)
    """
    scene.program.write(app, "passing.py")
    assert scene.commands.upswell("deploy", "passing.py").status == 0
    client = scene.client("""
        from upswell.exception import NotFoundError
        note, other = Function.from_name("passing", "note"), Function.from_name("passing", "other")
        for function, gone in ((other, "fewer"), (note, "stopped")):
            begin(function)
            calls = [function.spawn(HERE, x) for x in range(10)]
            assert [call.get(timeout=60) for call in calls] == list(range(10))
            print("begun", flush=True)
            await_file(gone)
            try:
                function.spawn(HERE, 10)
            except NotFoundError as error:
                print("refused", flush=True)
    """)
    assert client.stdout is not None and client.stdout.readline() == "begun\n"
    scene.program.write(app[: app.index("@app.function(max_containers=1)\n        def other")], "passing.py")
    assert scene.commands.upswell("deploy", "passing.py").status == 0
    (scene.here / "fewer").touch()
    assert [client.stdout.readline(), client.stdout.readline()] == ["refused\n", "begun\n"]
    assert scene.commands.upswell("app", "stop", "passing").status == 0
    (scene.here / "stopped").touch()
    assert lines_of(client) == ["refused"]
    assert scene.notes() == 2 * list(range(10))


def test_a_small_limit(scene: Scene) -> None:
    scene.end()
    (scene.home / "config.toml").write_text("[serve.limits]\nspawned_pending = 50\n")
    scene.start()
    told = scene.run("""
        from upswell.exception import ResourceExhaustedError
        calls = []
        try:
            while len(calls) < 1000:
                calls.append(wait.spawn(HERE, len(calls)))
        except ResourceExhaustedError as error:
            print(len(calls), "50" in str(error))
        Path(HERE, "go").touch()
        print([call.get(timeout=60) for call in calls] == list(range(50)))
    """)
    assert told == ["50 True", "True"]
    scene.end()
    (scene.home / "config.toml").unlink()


def test_a_limit_that_others_reach(scene: Scene) -> None:
    """What may be in spools had room when it was permitted, and is refused from then on."""
    scene.end()
    (scene.home / "config.toml").write_text("[serve.limits]\nspawned_pending = 9000\n")
    scene.start()
    told = scene.run("""
        from upswell.exception import ResourceExhaustedError
        calls = begin(wait)
        wait.spawn_map([HERE] * 8970, [-1] * 8970)
        try:
            while len(calls) < 100:
                calls.append(wait.spawn(HERE, len(calls)))
        except ResourceExhaustedError as error:
            print(len(calls), "9,000" in str(error), error)
        Path(HERE, "go").touch()
        assert [call.get(timeout=60) for call in calls] == [*range(-1, -21, -1), *range(20, 30)]
    """)
    assert told[0].startswith("30 True"), told
    scene.end()
    (scene.home / "config.toml").unlink()


def test_another_home_at_the_same_place(scene: Scene) -> None:
    """What was spawned is of the home that it was spawned in; what is spawned then is of the other."""
    client = scene.client("""
        begin()
        note.spawn(HERE, 0)
        print("begun", flush=True)
        await_file("moved")
        while True:  # until the program has seen it
            first = note.spawn(HERE, 1)
            if upswell.sdk.clients.get_keeper().life == 2:
                break
        calls = [note.spawn(HERE, x) for x in range(2, 30)]
        print([call.get(timeout=60) for call in calls] == list(range(2, 30)))
    """)
    assert client.stdout is not None and client.stdout.readline() == "begun\n"
    scene.end()
    shutil.copytree(scene.home, scene.program.folder / "other", ignore=lambda *_: ["spools", "server.sock", "lock"])
    scene.home.rename(scene.program.folder / "first")
    (scene.program.folder / "other").rename(scene.home)
    scene.start()
    (scene.here / "moved").touch()
    assert lines_of(client, *AWAY) == ["True"]
    scene.end()
    shutil.rmtree(scene.home)
    (scene.program.folder / "first").rename(scene.home)
