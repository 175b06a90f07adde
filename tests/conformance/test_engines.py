"""What every engine owes: containers start and call home, are heard, end as asked, and are reported exactly once."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from upswell.code import CodeStore
from upswell.container.lines import LONGEST_LINE_BYTES
from upswell.engine import Engine
from upswell.engines import local
from upswell.engines.devices import Devices
from upswell.engines.local import LocalEngine
from upswell.engines.ray.engine import Cluster, RayEngine
from upswell.engines.spawn import SpawnEngine
from upswell.errors import InvalidError, NotFoundError
from upswell.spec import FunctionSpec, Gpu, Resources
from upswell.wire import messages as m
from upswell.wire.payload import unpack

from .cluster import OVER_RAY, RayCluster
from .home import Home, ended, soon

ENGINES: dict[str, Callable[[Path], Engine]] = {"local": LocalEngine, "spawn": SpawnEngine}
FORKING = pytest.mark.parametrize("home", ["local", *OVER_RAY], indirect=True)  # elsewhere zygotes import nothing


@pytest.fixture(params=[*ENGINES, *OVER_RAY])
async def home(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Home]:
    if request.param == "ray":
        cluster: RayCluster = request.getfixturevalue("ray_cluster")
        settings = Cluster(address=cluster.address, code=str(tmp_path / "node"))
        others = cluster.processes
        engine: Engine = RayEngine(settings, tmp_path / "code" / "trees")
    else:
        engine, others = ENGINES[request.param](tmp_path / "code" / "trees"), set
    before = set(psutil.Process().children(recursive=True)) - others()
    at_home = Home(engine, tmp_path)
    await at_home.open()
    yield at_home
    await at_home.close()
    left = set(psutil.Process().children(recursive=True)) - others() - before
    assert not [process for process in left if process.is_running()], "close() leaves nothing"
    assert not [process for process in others() if "upswell.engines.ray.lease" in words_of(process)]
    names = [one.container for one in at_home.exits]
    assert len(names) == len(set(names)), "each exit is reported once"


def words_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


SQUARE = """
    @app.function()
    def square(x):
        return x * x
"""


SEEN = """
    @app.function()
    def seen(_):
        return os.environ.get("CUDA_VISIBLE_DEVICES", "all")
"""


async def test_a_container_calls_home_and_runs(home: Home) -> None:
    name, container = await home.started(home.function("square", SQUARE))
    assert await container.run(7) == 49
    assert psutil.Process(container.process).is_running()
    assert not home.exits
    home.engine.kill(name)
    await home.exit_of(name)


@pytest.mark.parametrize("home", ENGINES, indirect=True)
async def test_each_container_sees_gpus_of_its_own(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(home.engine, LocalEngine)
    assert home.engine.capacity().gpus is None, "there are none here"
    monkeypatch.setattr(home.engine, "_devices", Devices(dict.fromkeys(("0", "1", "2"), frozenset({"T4"}))))
    assert home.engine.capacity().gpus == {"": 3, "T4": 3}
    seen = home.function("seen", SEEN)
    pair = replace(seen, spec=FunctionSpec(resources=Resources(gpus=(Gpu("T4", 2),))))
    name, container = await home.started(pair)
    assert await container.run() == "0,1"
    waits, never = home.start(pair), home.start(pair)
    _, other = await home.started(replace(seen, spec=FunctionSpec(resources=Resources(gpus=(Gpu(),)))))
    assert await other.run() == "2"
    assert [(one.container, one.reason) for one in home.delays] == [
        (name, "it waits for gpu=T4:2, as others have them") for name in (waits, never)
    ]
    home.engine.kill(never)
    assert (await home.exit_of(never)).reason == "killed before it was started"
    home.engine.kill(name)
    await home.exit_of(name)
    assert await (await home.container(waits)).run() == "0,1", "what has ended has none"
    _, without = await home.started(seen)
    assert await without.run() == "all"


async def test_somebody_reads_whatever_runs(home: Home, tmp_path: Path) -> None:
    name, container = await home.started(
        home.function(
            "work",
            """
            @app.function()
            def work(gate):
                if gate:
                    open(gate).read()  # until who has opened it to write closes it
                return threading.current_thread() is threading.main_thread()
            """,
        )
    )
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    for _ in range(3):
        for _ in range(5):
            assert await container.run(None) is True, "short inputs, for which the main thread reads"
        number = container.begin(str(gate))
        opened = await soon(asyncio.to_thread(os.open, gate, os.O_WRONLY))
        container.send(m.TakeBack(number))
        assert await soon(container.receive()) == (m.Returned(number, number + 1), b""), "while the input runs"
        os.close(opened)
        message, payload = await soon(container.receive())
        assert isinstance(message, m.Results) and unpack(payload) == [True]
    container.send(m.Drain("no more"))
    assert (await home.exit_of(name)).status == 0


async def test_many_at_once(home: Home) -> None:
    function = home.function("square", SQUARE)
    home.engine.prepare(function)
    names = [home.start(function) for _ in range(12)]
    containers = [await home.container(name) for name in names]
    assert len({container.process for container in containers}) == 12
    assert await asyncio.gather(*(one.run(x) for x, one in enumerate(containers))) == [x * x for x in range(12)]
    for name in names:
        home.engine.kill(name)
    for name in names:
        await home.exit_of(name)


async def test_the_environment_is_the_functions(home: Home, tmp_path: Path) -> None:
    code = """
        @app.function()
        def look(x):
            return os.environ["COLOUR"], os.getcwd(), upswell.is_local()
    """
    _, red = await home.started(home.function("look", code, COLOUR="red"))
    _, huge = await home.started(home.function("look", code, COLOUR="x" * 100_000))
    assert await red.run() == ("red", str(tmp_path), False)
    assert (await huge.run())[0] == "x" * 100_000


async def test_code_is_a_tree(home: Home, tmp_path: Path) -> None:
    """What the environment says of it is relative; what is declared in a container says the same."""
    code = """
        import helper
        from upswell.sdk.environment import environment_of

        @app.function()
        def look(x):
            if x == "raise":
                raise ValueError(helper.WORDS)
            said = environment_of(look.raw, {}, False)
            return helper.WORDS, os.getcwd(), __file__, sys.argv, (said.code, said.origin, said.sys_path)
    """
    function = home.function("look", code)
    store = CodeStore(tmp_path / "code")
    files = {"app.py": Path(function.environment.origin).read_bytes(), "inner/helper.py": b"WORDS = 'from the tree'\n"}
    for content in files.values():
        store.put(sha256(content).hexdigest(), content)
    tree = store.make_tree([(path, sha256(content).hexdigest()) for path, content in files.items()])
    environment = replace(
        function.environment,
        origin="app.py",
        module="app",
        sys_path=("", "inner"),
        directory="",
        arguments=("app.py",),
        code=tree,
    )
    _, container = await home.started(replace(function, environment=environment))
    words, directory, file, arguments, said = await container.run()
    assert (words, arguments, said) == ("from the tree", ["app.py"], (tree, "app.py", ("", "inner")))
    assert Path(file) == Path(directory) / "app.py" and Path(directory).name == tree
    with pytest.raises(ValueError, match="from the tree"):
        await container.run("raise")
    assert container.failure is not None and "raise ValueError(helper.WORDS)" in container.failure.error.traceback


async def test_a_tree_that_is_not_there(home: Home) -> None:
    function = home.function("square", SQUARE)
    environment = replace(function.environment, code="1" * 64)
    _, container = await home.started(replace(function, environment=environment))
    assert isinstance(container.start_error, NotFoundError)
    assert "deploy the app again" in str(container.start_error)


# -- output ----------------------------------------------------------------------------------------


async def test_lines_arrive_whole_on_their_streams(home: Home) -> None:
    code = """
        @app.function()
        def speak(x):
            for number in range(500):
                print("out", number)
                print("err", number, file=sys.stderr)
            os.write(1, "directly: é\\n".encode())
            subprocess.run(["echo", "from a child"])
            os._exit(0)
    """
    name, container = await home.started(home.function("speak", code))
    container.begin()
    await home.exit_of(name)  # all it wrote came before
    assert home.text(name, 2).splitlines() == [f"err {number}" for number in range(500)]
    out = home.text(name, 1).splitlines()
    assert out == [*(f"out {number}" for number in range(500)), "directly: é", "from a child"]
    assert all(one.text.endswith("\n") for one in home.written)


async def test_an_unfinished_line_is_shown_in_time(home: Home) -> None:
    code = """
        @app.function()
        def ask(x):
            sys.stdout.write("50 % é")
            sys.stdout.flush()
            os.write(1, "é".encode()[:1])
            time.sleep(100)
    """
    name, container = await home.started(home.function("ask", code))
    container.begin()
    await home.until(lambda: home.text(name, 1) == "50 % é")
    home.engine.kill(name)
    await home.exit_of(name)


async def test_what_is_no_text(home: Home) -> None:
    code = """
        @app.function()
        def spill(x):
            os.write(1, bytes(range(256)) + b"\\n")
            os.write(2, b"\\xff\\xfe\\x00")
            print(chr(0xdc80))
            os._exit(0)
    """
    name, container = await home.started(home.function("spill", code))
    container.begin()
    await home.exit_of(name)
    assert home.text(name, 1) == bytes(range(256)).decode("utf-8", "backslashreplace") + "\n\\udc80\n"
    assert home.text(name, 2) == "\\xff\\xfe\0\n"


async def test_a_line_of_ten_megabytes_comes_in_pieces(home: Home) -> None:
    code = """
        @app.function()
        def flood(x):
            sys.stdout.write("é" * (5 << 20))
            sys.stdout.flush()
            os._exit(0)
    """
    name, container = await home.started(home.function("flood", code))
    container.begin()
    await home.exit_of(name)
    assert home.text(name, 1) == "é" * (5 << 20) + "\n"
    assert max(len(one.text) for one in home.written) <= LONGEST_LINE_BYTES


async def test_no_signal_cuts_short_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # as in many images; a fresh interpreter would have no buffers then
    code = """
        @app.function()
        def flood(x):
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            sys.stdout.write("x" * (4 << 20))
            sys.stdout.flush()
            os._exit(0)
    """
    home = Home(SpawnEngine(), tmp_path)
    await home.open()
    name, container = await home.started(home.function("flood", code))
    container.begin()
    await home.exit_of(name)
    assert len(home.text(name, 1)) == (4 << 20) + 1
    await home.close()


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "status", "words"),
    [
        ("os._exit(0)", 0, "exited with status 0"),
        ("os._exit(3)", 3, "exited with status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, "killed by signal 9 (SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -11, "killed by signal 11 (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, "killed by signal 15 (SIGTERM)"),
        (
            "os.kill(os.getpid(), signal.SIGRTMIN + 2)",
            -(signal.SIGRTMIN + 2),
            f"killed by signal {signal.SIGRTMIN + 2}",
        ),
    ],
)
async def test_how_it_ended_in_words(home: Home, action: str, status: int, words: str) -> None:
    code = f"""
        @app.function()
        def end(x):
            {action}
    """
    name, container = await home.started(home.function("end", code))
    container.begin()
    report = await home.exit_of(name)
    assert (report.status, report.reason, report.out_of_memory) == (status, words, False)


CHILDREN = """
    def daemon():
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            child = os.fork()
            if child == 0:
                os.execvp("sleep", ["sleep", "100"])
            os.write(write, str(child).encode())
            os._exit(0)
        os.wait()
        return int(os.read(read, 20))

    def forked():
        child = os.fork()
        if child == 0:
            time.sleep(100)
        return child

    @app.function()
    def breed(end):
        started = [
            subprocess.Popen(["sleep", "100"]).pid,
            subprocess.Popen(["sleep", "100"], start_new_session=True).pid,
            subprocess.Popen(["sh", "-c", "sleep 100 & wait"], start_new_session=True).pid,
            forked(),
            daemon(),
        ]
        if end:
            threading.Thread(target=end_at, args=(end,)).start()
        return started

    def end_at(gate):
        open(gate).read()
        os._exit(0)
"""


@pytest.mark.parametrize("by_itself", [True, False])
async def test_what_a_container_started_ends_with_it(home: Home, tmp_path: Path, by_itself: bool) -> None:
    function = home.function("breed", CHILDREN)
    name, container = await home.started(function)
    _, other = await home.started(function)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    spared = await other.run("")
    started = await container.run(str(gate) if by_itself else "")
    assert all(psutil.pid_exists(process) for process in started)
    if by_itself:
        os.close(await soon(asyncio.to_thread(os.open, gate, os.O_WRONLY)))
    else:
        home.engine.kill(name)
    await home.exit_of(name)
    for process in started:
        await ended(process)
    assert all(psutil.Process(process).status() != psutil.STATUS_ZOMBIE for process in spared), "another container's"


async def test_a_kill_of_what_is_not_there(home: Home) -> None:
    name, _ = await home.started(home.function("square", SQUARE))
    home.engine.kill("co-none")
    home.engine.kill(name)
    home.engine.kill(name)
    assert (await home.exit_of(name)).status == -9
    home.engine.kill(name)


async def test_a_kill_before_it_has_called_home(home: Home) -> None:
    function = home.function("square", SQUARE)
    for name in [home.start(function) for _ in range(3)]:
        home.engine.kill(name)
        assert (await home.exit_of(name)).status == -9


@FORKING
async def test_while_the_zygote_imports_without_end(home: Home) -> None:
    function = home.function("f", "time.sleep(1000)")
    killed, closed = home.start(function), home.start(function)
    home.engine.kill(killed)
    assert (await home.exit_of(killed)).reason == "killed before it was started"
    await soon(home.engine.close())  # nobody waits for the import
    assert {one.container for one in home.exits} == {killed, closed}
    home.engine.close = _nothing  # type: ignore[method-assign]


async def test_the_zygote_dies(home: Home) -> None:
    breed = home.function("breed", CHILDREN)
    name, container = await home.started(breed)
    second, _ = await home.started(breed)
    other, _ = await home.started(home.function("square", SQUARE))
    started = await container.run("")
    zygote = psutil.Process(container.process).parent()
    assert zygote is not None
    zygote.kill()
    for lost in (name, second):
        assert "zygote" in (await home.exit_of(lost)).reason
    for process in [*started, container.process]:
        await ended(process)
    again, container = await home.started(breed)
    await container.run("")
    assert {one.container for one in home.exits} == {name, second}, f"neither {other} nor {again}"


async def test_the_root_zygote_dies(home: Home) -> None:
    name, container = await home.started(home.function("square", SQUARE))
    zygote = psutil.Process(container.process).parent()
    root = zygote.parent() if zygote else None
    above = root.parent() if root is not None else None
    assert root is not None and above is not None
    assert above.pid == os.getpid() or "upswell.engines.ray.lease" in above.cmdline()
    root.kill()
    await home.exit_of(name)
    await ended(container.process)
    name, container = await home.started(home.function("square", SQUARE))
    assert await container.run(3) == 9, "there is another root"
    home.engine.kill(name)
    await home.exit_of(name)


async def test_close_ends_everything(home: Home) -> None:
    function = home.function("breed", CHILDREN)
    name, container = await home.started(function)
    second = home.start(function)
    started = await container.run("")
    await soon(home.engine.close())
    assert {one.container for one in home.exits} == {name, second}
    assert not any(psutil.pid_exists(process) for process in started)
    home.engine.close = _nothing  # type: ignore[method-assign]


@pytest.mark.parametrize("home", ["local"], indirect=True)
async def test_who_ends_what_containers_have_started_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine is busy, for longer than containers are: killed at its work, it would leave some of that."""
    monkeypatch.setattr(local, "CLOSE_SECONDS", 0.05)
    _, container = await home.started(home.function("breed", CHILDREN))
    started = await container.run("")
    _, root = psutil.Process(container.process).parents()[:2]
    root.suspend()
    closing = asyncio.create_task(home.engine.close())
    await asyncio.wait({closing}, timeout=0.3)
    assert not closing.done()
    root.resume()
    await soon(closing)
    assert not any(psutil.pid_exists(process) for process in started)
    home.engine.close = _nothing  # type: ignore[method-assign]


async def _nothing() -> None:
    """It is closed already."""


# -- measures --------------------------------------------------------------------------------------


async def test_measures(home: Home) -> None:
    code = """
        @app.function()
        def use(x):
            kept.append(bytearray(b"x") * (64 << 20))
            end = time.process_time() + 0.2
            while time.process_time() < end:
                pass

        kept = []
    """
    name, container = await home.started(home.function("use", code))
    cpu, memory = (
        await home.measured(home.engine.cpu_seconds, name),
        await home.measured(home.engine.memory_bytes, name),
    )
    assert cpu < 5 and 1 << 20 < memory < 200 << 20
    await container.run()
    assert 0.15 < await home.measured(home.engine.cpu_seconds, name, beyond=cpu + 0.15) - cpu < 5
    grown = await home.measured(home.engine.memory_bytes, name, beyond=memory + (60 << 20)) - memory
    assert 60 << 20 < grown < 80 << 20
    home.engine.kill(name)
    await home.exit_of(name)
    assert home.engine.cpu_seconds(name) is None and home.engine.memory_bytes(name) is None
    assert home.engine.cpu_seconds("co-none") is None and home.engine.memory_bytes("co-none") is None
    capacity = home.engine.capacity()
    if isinstance(home.engine, RayEngine):
        assert capacity.cores == 4
    else:
        assert 0 < capacity.cores <= len(os.sched_getaffinity(0))
        assert 0 < capacity.memory_available < psutil.virtual_memory().total


# -- the user's module -----------------------------------------------------------------------------


async def test_a_module_that_can_not_be_imported(home: Home) -> None:
    name, container = await home.started(home.function("f", "raise LookupError('no database')"))
    assert isinstance(container.start_error, LookupError)
    assert (await home.exit_of(name)).status == 1
    name, container = await home.started(home.function("f", "sys.exit(5)"))
    assert isinstance(container.start_error, SystemExit)
    await home.exit_of(name)


async def test_a_module_that_forks(home: Home) -> None:
    code = """
        child = os.fork()  # and both go on importing
        server = subprocess.Popen(["sleep", "100"])
        brief = subprocess.Popen(["true"])

        @app.function()
        def look(x):
            return os.getpid(), server.pid, brief.pid
    """
    names = [home.start(home.function("look", code)) for _ in range(2)]
    answers = [await (await home.container(name)).run() for name in names]
    assert len({answer[0] for answer in answers}) == 2
    for name in names:
        home.engine.kill(name)
        await home.exit_of(name)


@FORKING
async def test_what_a_module_started_outlives_containers(home: Home) -> None:
    code = """
        server = subprocess.Popen(["sleep", "100"])

        @app.function()
        def look(x):
            return server.pid
    """
    function = home.function("look", code)
    name, container = await home.started(function)
    server = await container.run()
    home.engine.kill(name)
    await home.exit_of(name)
    assert psutil.Process(server).status() != psutil.STATUS_ZOMBIE
    _, container = await home.started(function)
    assert await container.run() == server
    await soon(home.engine.close())
    assert not psutil.pid_exists(server)
    home.engine.close = _nothing  # type: ignore[method-assign]


async def test_a_module_that_starts_threads(home: Home) -> None:
    code = """
        threading.Thread(target=time.sleep, args=(100,), daemon=True, name="ticker").start()

        @app.function()
        def count(x):
            return "ticker" in [thread.name for thread in threading.enumerate()]
    """
    _, container = await home.started(home.function("count", code))
    if home.engine.__class__ is SpawnEngine:
        assert await container.run() is True
    else:
        assert isinstance(container.start_error, InvalidError)
        assert "ticker" in str(container.start_error) and "UPSWELL_ENGINE=spawn" in str(container.start_error)


@FORKING
async def test_a_container_that_can_not_be_forked(home: Home) -> None:
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, ) * 2)

        @app.function()
        def f(x):
            return x
    """
    function = home.function("f", code)
    names = [home.start(function) for _ in range(12)]
    await home.until(lambda: len(home.exits) >= 6)
    assert {one.reason for one in home.exits} == {"it could not be started: [Errno 24] Too many open files"}
    first = await home.container(names[0])
    assert await first.run(3) == 3, "the others are not harmed"


def test_the_engine_can_be_imported_only_where_it_works() -> None:
    program = "import os; del os.fork; import upswell.engines.local"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "InvalidError: the local engine forks processes" in done.stderr
