"""Programs whose server is killed and started again, or whose connection breaks: they get what they asked for, once."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from subprocess import Popen

import pytest

from upswell.server.tokens import TokenFile
from upswell.wire import messages as m
from upswell.wire.channel import dial
from upswell.wire.codec import Frame

from .kept import PATIENT
from .processes import SECONDS_TO_RUN, UPSWELL, Program, until
from .proxy import Proxy

LOST = "the connection to the server is lost"


class Home:
    """A server with a home, which can be killed and started again."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.path = program.folder / "kept"
        self.socket = self.path / "server.sock"
        self.process: Popen[str] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        command = [sys.executable, "-P", str(PATIENT), "--home", str(self.path)]
        self.process = self._program.start(command)
        assert until(self.socket.exists), self.process.communicate(timeout=SECONDS_TO_RUN)[1]

    def port(self) -> tuple[str, int]:
        """Where it listens for others."""
        channel = dial(f"unix:{self.socket}")
        channel.send(m.Hello(m.PROTOCOL, "client", "", os.getpid()))
        channel.send(m.DescribeServer(1))
        frames: list[Frame] = []
        while not (described := [one for one, _ in frames if isinstance(one, m.ServerDescribed)]):
            frames += channel.receive()
        channel.close()
        _, host, port = described[0].addresses[-1].split(":")
        return host.removeprefix("//"), int(port)

    def begin(self, *parts: int) -> None:
        """Let these parts of the inputs of `MAP` run."""
        for part in parts:
            (self.path / f"part-{part}").touch()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.communicate(timeout=SECONDS_TO_RUN)
            self.process = None


@pytest.fixture
def home(program: Program, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    home = Home(program)
    monkeypatch.setenv("RAN", str(home.path / "ran"))
    monkeypatch.setenv("PARTS", str(home.path / "part"))
    monkeypatch.setenv("GO", str(home.path / "go"))
    home.start()
    monkeypatch.setenv("UPSWELL_SERVER", f"unix:{home.socket}")
    yield home
    if home.process is None:
        home.start()  # what a killed server leaves is the next one's to end
    home.kill(signal.SIGTERM)
    program.assert_all_gone()


def started(program: Program, text: str) -> Popen[str]:
    """Start the text as a program and wait for its first line."""
    process = program.start([sys.executable, "-P", str(program.write(text))])
    await_line(process, "started")
    return process


def await_line(process: Popen[str], expected: str) -> None:
    """Wait for the program's next line, and read no more than that."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
        line += byte  # by `readline` more would be read, which `communicate` does not look for
    assert line.decode() == f"{expected}\n", process.communicate(timeout=SECONDS_TO_RUN)[1]


def ended(process: Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS_TO_RUN)
    return process.returncode, out, err


MAP = """
    import os, sys, time, upswell

    app = upswell.App()

    @app.function(max_containers=2)
    def square(x):
        \"\"\"Those of a part wait until it may begin.\"\"\"
        while not os.path.exists(f"{os.environ['PARTS']}-{x // 500}"):
            time.sleep(0.01)
        time.sleep(0.003)
        with open(os.environ["RAN"], "a") as file:
            file.write(f"{x}\\n")
        return x * x

    if __name__ == "__main__":
        with app.run():
            outputs = []
            for output in square.map(range(1500), order_outputs=ORDERED):
                outputs.append(output)
                if len(outputs) == 20:
                    print("started", flush=True)
            assert (outputs if ORDERED else sorted(outputs)) == [x * x for x in range(1500)], outputs
            print("right", square.remote(3), flush=True)
"""


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_whose_server_is_killed_twice(program: Program, home: Home, ordered: bool) -> None:
    ran = home.path / "ran"
    home.begin(0)
    process = started(program, MAP.replace("ORDERED", str(ordered)))
    home.kill()
    home.start()
    before = len(ran.read_text().splitlines())
    home.begin(1)
    assert until(lambda: len(ran.read_text().splitlines()) > before + 10)
    home.kill()
    home.start()
    home.begin(2)
    status, out, err = ended(process)
    assert (status, out.splitlines()[-1]) == (0, "right 9"), err
    assert {int(line) for line in ran.read_text().splitlines()} == {*range(1500), 3}
    assert all(line.startswith("upswell: the ") for line in err.splitlines()), err
    assert err.count(LOST) == err.count("the server is back") <= 2


def test_a_server_that_does_not_come_back(program: Program, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSWELL_RECONNECT_SECONDS", "0.5")
    home.begin(0)
    process = started(program, MAP.replace("ORDERED", "True"))
    home.kill()
    status, _, err = ended(process)
    assert status == 1
    assert err.splitlines()[-1].startswith(
        "upswell.errors.ConnectionError: the connection to the server was lost, and 0.5"
    )


def test_ctrl_c_while_it_waits_for_the_server(program: Program, home: Home) -> None:
    home.begin(0)
    process = started(program, MAP.replace("ORDERED", "True"))
    home.kill()
    assert process.stderr is not None
    assert LOST in process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS_TO_RUN)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt") and "ConnectionError" not in err


KINDS = """
    import asyncio, os, sys, time, upswell

    app = upswell.App()

    def begun():
        with open(os.environ["RAN"], "a") as file:
            file.write("begun\\n")

    @app.function()
    def slow(x):
        begun()
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.01)
        return x + b"!"

    @app.function()
    def yields(count):
        for x in range(count):
            yield x
            while not os.path.exists(os.environ["GO"]):
                time.sleep(0.01)

    @app.cls(max_containers=1)
    class Model:
        name: str = upswell.parameter()

        @upswell.method()
        def greet(self, x):
            begun()
            while not os.path.exists(os.environ["GO"]):
                time.sleep(0.01)
            return f"{self.name} {x}"

    async def failure(awaitable):
        try:
            return await awaitable
        except upswell.exception.Error as error:
            return error

    async def consumed():
        async for value in yields.remote_gen.aio(5):
            values.append(value)
        return values

    values = []

    async def main():
        queue = upswell.Queue.from_name("q", create_if_missing=True)
        assert await queue.len.aio() == 0
        large = b"x" * 1_000_000
        asked = [
            slow.remote.aio(b"small"),
            slow.remote.aio(large),
            Model(name="ann").greet.remote.aio(1),
            Model(name="bob").greet.remote.aio(2),
            consumed(),
            queue.get.aio(),
        ]
        asked = [asyncio.ensure_future(failure(one)) for one in asked]
        while not (values and os.path.exists(os.environ["RAN"]) and os.path.getsize(os.environ["RAN"]) == 4 * 6):
            await asyncio.sleep(0.01)
        assert await queue.len.aio() == 0  # it has the request for an item by now, which came before this one
        print("started", flush=True)
        small, whole, ann, bob, failed, taken = await asyncio.gather(*asked)
        assert small == b"small!" and whole == large + b"!", (small, whole)
        assert (ann, bob) == ("ann 1", "bob 2"), (ann, bob)
        assert isinstance(failed, upswell.exception.RemoteError) and "1 values had come" in str(failed), failed
        assert isinstance(taken, upswell.exception.ConnectionError), taken
        await queue.put.aio(5)
        assert await queue.get.aio() == 5
        assert (await slow.get_current_stats.aio()).num_total_runners >= 1
        print("right", flush=True)

    if __name__ == "__main__":
        with app.run():
            asyncio.run(main())
"""


def test_calls_of_every_kind_go_on(program: Program, home: Home) -> None:
    process = started(program, KINDS)
    home.kill()
    (home.path / "go").touch()
    home.start()
    status, out, err = ended(process)
    assert (status, out) == (0, "right\n"), err


SPAWNED = """
    import os, sys, time, upswell

    app = upswell.App("kept")

    @app.function(max_containers=2)
    def square(x):
        time.sleep(0.0002)
        return x * x

    def inputs():
        for x in range(8_000):
            if x == 3_600:
                print("started", flush=True)
                while not os.path.exists(os.environ["GO"]):
                    time.sleep(0.01)
            yield x

    if __name__ == "__main__":
        app.deploy()
        call = upswell.Function.from_name("kept", "square").spawn_map(inputs())
        print("spawned", flush=True)
        assert list(call.iter()) == [x * x for x in range(8_000)]
        assert call.num_inputs() == 8_000
        print("right", flush=True)
"""


def test_a_spawn_map_and_its_results(program: Program, home: Home) -> None:
    """Killed in the middle of the submission, with segments on their way, and again while the results are fetched."""
    process = started(program, SPAWNED)
    home.kill()
    (home.path / "go").touch()
    home.start()
    await_line(process, "spawned")
    home.kill()
    home.start()
    status, out, err = ended(process)
    assert (status, out) == (0, "right\n"), err


SPAWNING = """
    import asyncio, os, sys, time, upswell
    from upswell import FunctionCall

    app = upswell.App("kept")

    @app.function(max_containers=2)
    def square(x):
        return x * x

    @app.function(max_containers=1)
    def wait(x):
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.01)
        return x

    async def task(name):
        calls = []
        for number in range(30):
            calls.append(await square.spawn.aio(100 * name + number))
            if (name, number) == (7, 10):
                print("started", flush=True)
        return calls

    async def main():
        waiting = await asyncio.gather(*(wait.spawn.aio(x) for x in range(9)))
        await waiting[1].cancel.aio()  # which runs, if it was granted already
        await waiting[7].cancel.aio()
        spawned = await asyncio.gather(*(task(name) for name in range(100)))
        assert len({call.object_id for calls in spawned for call in calls}) == 3000
        for name, calls in enumerate(spawned):
            assert await FunctionCall.gather.aio(*calls) == [(100 * name + number) ** 2 for number in range(30)]
        print(*(call.object_id for call in (*waiting, spawned[42][17])), flush=True)

    if __name__ == "__main__":
        app.deploy()
        asyncio.run(main())
"""
FETCHING = """
    import os, sys
    from upswell import FunctionCall
    from upswell.exception import RemoteError

    *waiting, other = (FunctionCall.from_id(name) for name in os.environ["CALLS"].split())
    print("started", flush=True)
    assert other.get() == 4217 ** 2
    for x, call in enumerate(waiting):
        try:
            assert call.get() == x and x not in (1, 7)
        except RemoteError as error:
            assert x in (1, 7) and "cancelled" in str(error)
    print("right")
"""


def test_spawns_of_many_tasks(program: Program, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is there once, through the server's death, and for another process; what was cancelled stays so."""
    process = started(program, SPAWNING)
    home.kill()
    home.start()
    status, out, err = ended(process)
    assert status == 0, err
    home.kill()
    home.start()
    (home.path / "go").touch()
    monkeypatch.setenv("CALLS", out)
    status, out, err = ended(started(program, FETCHING))
    assert (status, out) == (0, "right\n"), err


NESTED = """
    import os, time, upswell

    app = upswell.App()

    @app.function(max_containers=2)
    def inner(x):
        time.sleep(0.002)
        return x + 1

    @app.function(max_containers=1)
    def outer(x):
        with open(os.environ["RAN"], "a") as file:
            file.write(f"{x}\\n")
        return sum(inner.map(range(x)))

    if __name__ == "__main__":
        with app.run():
            calls = [outer.remote.aio(300) for _ in range(2)]
            import asyncio, threading

            async def main():
                both = asyncio.gather(*calls)
                while not os.path.exists(os.environ["RAN"]):
                    await asyncio.sleep(0.01)
                print("started", flush=True)
                assert await both == [sum(range(1, 301))] * 2
                print("right", flush=True)

            asyncio.run(main())
"""


def test_calls_that_make_calls(program: Program, home: Home) -> None:
    process = started(program, NESTED)
    home.kill()
    home.start()
    status, out, err = ended(process)
    assert (status, out) == (0, "right\n"), err


FIRST_NESTED = """
    import os, time, upswell

    app = upswell.App("nested")

    @app.function()
    def inner(x):
        return x + 1

    @app.function(max_containers=1)
    def outer(x):
        with open(os.environ["RAN"], "w"):
            pass
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.01)
        os.rename(os.environ["GO"], os.environ["RAN"])
        return inner.remote(x)

    if __name__ == "__main__":
        app.deploy()
        call = outer.spawn(1)
        while not os.path.exists(os.environ["RAN"]):
            time.sleep(0.01)
        print("started", flush=True)
        print(call.get(), flush=True)
"""


def test_a_first_nested_call_while_the_server_is_away(program: Program, home: Home) -> None:
    process = started(program, FIRST_NESTED)
    home.kill()
    (home.path / "go").touch()
    assert until(lambda: not (home.path / "go").exists())
    time.sleep(0.5)  # in which it dials in vain
    home.start()
    status, out, err = ended(process)
    assert (status, out) == (0, "2\n"), err


@pytest.mark.parametrize("seed", range(3))
def test_a_connection_that_is_cut_at_any_byte(
    program: Program, home: Home, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """To the same server nothing is lost and nothing runs twice."""
    ran = home.path / "ran"
    chance = random.Random(seed)

    def budget(connection: int) -> int | None:
        return chance.randrange(300, 9000) if connection < 12 else None

    with Proxy(str(home.path / "proxy.sock"), str(home.socket), budget) as proxy:
        monkeypatch.setenv("UPSWELL_SERVER", proxy.address)
        home.begin(0, 1, 2)
        process = started(program, MAP.replace("ORDERED", "True"))
        status, out, err = ended(process)
    assert (status, out.splitlines()[-1]) == (0, "right 9"), err
    assert proxy.connections > 1
    assert sorted(map(int, ran.read_text().splitlines())) == sorted([*range(1500), 3])


LARGE = """
    import os, pickle, upswell

    app = upswell.App()

    class Box:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return Box, (pickle.PickleBuffer(self.data),)

    @app.function(max_containers=2)
    def turned(box):
        with open(os.environ["RAN"], "a") as file:
            file.write("ran\\n")
        return Box(bytes(reversed(bytes(box.data))))

    if __name__ == "__main__":
        with app.run():
            print("started", flush=True)
            boxes = [Box(bytes([x]) * 100_000 + bytes([x + 1])) for x in range(40)]
            for box, back in zip(boxes, turned.map(boxes)):
                assert bytes(back.data) == bytes(reversed(box.data))
            print("right", flush=True)
"""


@pytest.mark.parametrize("seed", range(2))
def test_a_network_that_is_cut_amid_shared_memory(
    program: Program, home: Home, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Over a network large buffers go in pieces, which begin anew with the next connection."""
    home.kill()
    (home.path / "config.toml").write_text('[serve]\nlisten = "127.0.0.1:0"\n')
    _, token = TokenFile(home.path).create("client", time.time())
    home.start()
    chance = random.Random(seed)

    def budget(connection: int) -> int | None:
        return chance.randrange(3_000, 600_000) if connection < 12 else None

    with Proxy(("127.0.0.1", 0), home.port(), budget) as proxy:
        monkeypatch.setenv("UPSWELL_SERVER", proxy.address)
        monkeypatch.setenv("UPSWELL_TOKEN", token)
        process = started(program, LARGE)
        status, out, err = ended(process)
    assert (status, out) == (0, "right\n"), err
    assert proxy.connections > 1
    assert (home.path / "ran").read_text() == "ran\n" * 40


def test_a_connection_that_stands_still(program: Program, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = home.path / "ran"
    with Proxy(str(home.path / "proxy.sock"), str(home.socket), lambda connection: None) as proxy:
        monkeypatch.setenv("UPSWELL_SERVER", proxy.address)
        home.begin(0, 1)
        process = started(program, MAP.replace("ORDERED", "True"))
        proxy.stop()
        assert home.process is not None
        home.process.send_signal(signal.SIGSTOP)
        proxy.cut()
        proxy.resume()
        home.process.send_signal(signal.SIGCONT)
        home.begin(2)
        status, out, err = ended(process)
    assert (status, out.splitlines()[-1]) == (0, "right 9"), err
    assert sorted(map(int, ran.read_text().splitlines())) == sorted([*range(1500), 3])


def test_a_detached_app_is_used_on_after_a_restart(program: Program, home: Home) -> None:
    text = """
        import os, sys, time, upswell
        app = upswell.App("away")

        @app.function(max_containers=1)
        def double(x):
            if x < 5:
                print("doubles", x)
            return 2 * x

        with app.run(detach=True):
            assert double.remote(5) == 10
            print("started", flush=True)
            while not os.path.exists(os.environ["GO"]):
                time.sleep(0.01)
            doubled = [double.spawn(x).get() for x in range(3)]
            # In one go: between what a print prints and its newline a container's line may come.
            sys.stdout.write(f"{doubled} {double.remote(4)} {app.app_id}\\n")
            sys.stdout.flush()
            while os.path.exists(os.environ["GO"]):
                time.sleep(0.01)
    """
    process = started(program, text)
    home.kill()
    home.start()
    (home.path / "go").touch()
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(5)]  # its own last one, and the containers' while it listens
    (home.path / "go").unlink()
    status, out, err = ended(process)
    assert not out
    written = [line.split()[-1] for line in lines if "doubles" in line]
    (printed,) = [line.strip() for line in lines if line.startswith("[")]
    app_id = printed.split()[-1]
    assert (status, printed) == (0, f"[0, 2, 4] 8 {app_id}"), err
    assert written == ["0", "1", "2", "4"], "what containers write is shown"

    def state() -> str:
        found, _ = program.start([*UPSWELL, "app", "list", "--json"]).communicate(timeout=SECONDS_TO_RUN)
        return str({one["id"]: one["state"] for one in json.loads(found)}[app_id])

    assert until(lambda: state() == "stopped"), "it has ended with its client"


def test_a_log_is_followed_while_its_server_is_killed_twice(program: Program, home: Home) -> None:
    text = """
        import os, time
        import upswell

        app = upswell.App("clock")

        @app.function()
        def tick():
            for number in range(100_000):
                print("tick", number, flush=True)
                time.sleep(0.01)
                if os.path.exists(os.environ["GO"]):
                    break
            print("over", flush=True)

        app.deploy()
        tick.spawn()
    """
    program.write(text)
    deploying = program.start([sys.executable, "program.py"])
    assert deploying.communicate(timeout=SECONDS_TO_RUN)[1] == ""
    everything = ["--function", "tick", "-n", "100000"]
    following = program.start([*UPSWELL, "app", "logs", "clock", "-f", *everything])
    assert following.stdout is not None
    came: list[str] = []

    def follow(ticks: int) -> None:
        """Read so many more."""
        assert following.stdout is not None
        came.extend(following.stdout.readline() for _ in range(ticks))

    for _ in range(2):
        follow(20)
        home.kill()
        home.start()
    follow(20)
    (home.path / "go").touch()
    while not came[-1].endswith("over\n"):
        follow(1)
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=SECONDS_TO_RUN)
    assert len(set(came)) == len(came), "each line once: it has its moment and its container"
    kept, _ = program.start([*UPSWELL, "app", "logs", "clock", *everything]).communicate(timeout=SECONDS_TO_RUN)
    assert [line for line in kept.splitlines(keepends=True) if line not in came] == [], "and all that are kept"
