"""Programs that spawn one by one, each into a spool of its own: what was returned is there once, whatever happens."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import SECONDS_TO_RUN, Program, until

APP = """
    import os, time
    import upswell

    app = upswell.App("spooled")

    @app.function(max_containers=1)
    def note(folder, x):
        with open(f"{folder}/notes", "a") as file:
            file.write(f"{x}\\n")
        return x

    @app.function(max_containers=1)
    def wait(folder, x):
        while not os.path.exists(f"{folder}/go"):
            time.sleep(0.005)
        return note.local(folder, x)
"""

ALONE = """
    import os, sys
    from pathlib import Path

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
"""


class Scene:
    """A home with a deployed app, servers of it in turn, and programs of its user."""

    def __init__(self, folder: Path) -> None:
        self.program = Program(folder)
        self.home = self.program.home
        self.spools = self.home / "spools"
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

    def notes(self) -> list[int]:
        """The numbers for which the app has run, in that order, but for those it was only spawned alone with."""
        lines = (self.here / "notes").read_text().splitlines()
        return [number for number in map(int, lines) if number >= 0]


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """What it prints from now on, until its end, which must be a good one."""
    out, err = process.communicate(timeout=SECONDS_TO_RUN)
    assert (process.returncode, err) == (0, ""), err
    return out.splitlines()


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

        def spawn_on():
            global tried
            while len(calls) < 150:
                tried += 1
                calls[tried] = note.spawn(HERE, tried)

        begin()
        calls, tried, interrupted = {}, 0, 0
        hands = threading.Thread(target=interrupt)
        try:
            hands.start()
        except KeyboardInterrupt:
            pass
        while hands.is_alive():
            try:
                spawn_on()
                hands.join(0.01)
            except KeyboardInterrupt:
                interrupted += 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            pass  # the last one
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
