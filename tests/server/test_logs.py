"""What is kept of what containers write: whole lines in bounded files, sent to who asks, at nobody else's cost."""

import asyncio
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from upswell.server import logfiles, logs
from upswell.server.logfiles import LogFiles, encode
from upswell.spec import AutoscalerSettings, FunctionRecord, Period
from upswell.wire import messages as m

from .stage import PATIENCE_SECONDS, Peer, Stage, record, stage


def line(text: str, function: str = "f", container: str = "co-1") -> bytes:
    return encode(m.LogEntry(1.0, function, container, "stdout", text)) + b"\n"


def texts(entries: list[m.LogEntry]) -> list[str]:
    return [text for entry in entries for text in entry.text.splitlines()]


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Iterator[LogFiles]:
    opened = LogFiles(tmp_path / "logs")
    yield opened
    opened.close()


def test_the_last_lines(files: LogFiles) -> None:
    files.append("ap-1", line("a\nb\nc\n") + line("d\n", "g") + line("e\nf\n", container="co-2"))
    files.append("ap-2", line("other\n"))
    assert texts(files.last("ap-1", 100)) == ["a", "b", "c", "d", "e", "f"]
    assert texts(files.last("ap-1", 4)) == ["c", "d", "e", "f"]
    assert texts(files.last("ap-1", 0)) == []
    assert texts(files.last("ap-1", 3, function="f")) == ["c", "e", "f"]
    assert texts(files.last("ap-1", 9, container="co-2")) == ["e", "f"]
    assert texts(files.last("", 9, container="co-2")) == ["e", "f"]
    assert files.last("", 9, container="co-3") == files.last("ap-3", 9) == []


def test_files_are_bounded_and_the_oldest_goes(
    files: LogFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfiles, "FILE_BYTES", 1000)
    for number in range(1000):
        files.append("ap-1", line(f"{number}\n"))
    kept = list((tmp_path / "logs" / "ap-1").iterdir())
    assert len(kept) == logfiles.FILES_OF_AN_APP
    assert all(path.stat().st_size < 1100 for path in kept)
    last = texts(files.last("ap-1", 1000))
    assert last == [str(number) for number in range(1000 - len(last), 1000)] and len(last) > 40
    monkeypatch.setattr(logfiles, "FILES_BYTES", 4000)
    for app in range(10):
        for number in range(30):
            files.append(f"ap-{app}", line(f"{number}\n"))
    assert sum(path.stat().st_size for path in (tmp_path / "logs").glob("*/*")) <= 4000
    assert texts(files.last("ap-9", 2)) == ["28", "29"]


def test_more_apps_than_files_that_may_be_open(files: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "OPEN_FILES", 3)
    for number in range(3):
        for app in range(8):
            files.append(f"ap-{app}", line(f"{number}\n"))
    assert [texts(files.last(f"ap-{app}", 9)) for app in range(8)] == 8 * [["0", "1", "2"]]


def test_a_line_that_is_half_written(tmp_path: Path) -> None:
    first = LogFiles(tmp_path)
    first.append("ap-1", line("one\n") + line("two\n"))
    first.close()
    (path,) = (tmp_path / "ap-1").iterdir()
    path.write_bytes(path.read_bytes()[:-20])  # the server was killed
    second = LogFiles(tmp_path)
    second.append("ap-1", line("three\n"))
    assert texts(second.last("ap-1", 9)) == ["one", "three"]
    second.close()


def test_when_there_is_no_room(files: LogFiles) -> None:
    """Nothing is half written, and it goes on when there is room again."""
    files.append("ap-1", line("one\n"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(OSError):
            files.append("ap-1", line("x" * 500 + "\n"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    files.append("ap-1", line("two\n"))
    assert texts(files.last("ap-1", 9)) == ["one", "two"]


@pytest.mark.parametrize("app", ["..", ".", "a/b", "../../x", "x" * 300, "ä b", "ap-1\n"])
def test_a_strange_id_stays_in_the_directory(files: LogFiles, tmp_path: Path, app: str) -> None:
    files.append(app, line("here\n"))
    assert texts(files.last(app, 9)) == ["here"]
    assert [path.parent.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path / "logs"]


# -- over the wire ---------------------------------------------------------------------------------


async def deploy(here: Stage, *functions: FunctionRecord) -> None:
    await here.client.send(m.Deploy(1, "ap-1", "app", functions, ()))
    deployed, _ = await here.client.expect(m.Deployed)
    assert deployed.error is None, deployed.error


async def read(peer: Peer, asked: m.ReadLogs) -> list[m.LogEntry]:
    """What is there."""
    await peer.send(asked)
    entries: list[m.LogEntry] = []
    while True:
        logged, _ = await peer.expect(m.Logged)
        assert logged.request == asked.request and logged.error is None
        entries += logged.entries
        if logged.last:
            return entries


WARM = AutoscalerSettings(min_containers=1)


async def test_what_containers_write_is_kept(tmp_path: Path) -> None:
    async with stage(home=tmp_path, calendar=lambda: 50.0) as here:
        await deploy(here, record("f", settings=WARM))
        name = await here.started("ap-1/f")
        here.engine.write(name, 1, "one\ntwo\n")
        here.engine.write(name, 2, "three\n")
        served, *written = await read(here.client, m.ReadLogs(1, "ap-1"))
        assert served == m.LogEntry(50.0, "", "", "server", "version 1 is served from now on, rolling\n")
        assert [(entry.function, entry.container, entry.stream, entry.text) for entry in written] == [
            ("f", name, "stdout", "one\ntwo\n"),
            ("f", name, "stderr", "three\n"),
        ]
        assert [round(entry.at, 3) for entry in written] == [50.0, 50.0]
        assert len({entry.at for entry in written}) == 2, "a moment names an entry"
        assert await read(here.client, m.ReadLogs(2, "", container=name)) == written
        assert texts(await read(here.client, m.ReadLogs(3, "ap-1", lines=2))) == ["two", "three"]
    async with stage(home=tmp_path) as here:
        assert await read(here.client, m.ReadLogs(4, "", container=name)) == written


async def test_who_follows_gets_each_line_once(tmp_path: Path) -> None:
    async with stage(home=tmp_path) as here:
        await deploy(here, record("f", settings=WARM), record("g", settings=WARM))
        f, g = await here.started("ap-1/f"), await here.started("ap-1/g")
        here.engine.write(f, 1, "0\n")
        await here.client.send(m.ReadLogs(1, "ap-1", "f", lines=1_000, follow=True))
        for number in range(1, 200):
            here.engine.write(f, 1, f"{number}\n")
            here.engine.write(g, 1, "not of f\n")
            await asyncio.sleep(0)
        came: list[str] = []
        while len(came) < 200:
            came += texts((await here.client.expect(m.Logged))[0].entries)
        assert came == [str(number) for number in range(200)]
        await here.client.send(m.Unfollow(1))
        assert texts(await read(here.client, m.ReadLogs(2, "ap-1", "f", lines=1))) == ["199"]
        here.engine.write(f, 1, "after\n")
        await here.client.send(m.Inquire(3, "ap-1/f"))
        frame = await here.client.receive()
        assert frame is not None and isinstance(frame[0], m.Statistics), "nothing more is sent"


async def test_who_has_read_goes_on_behind_that(tmp_path: Path) -> None:
    now = 50.0
    async with stage(home=tmp_path, calendar=lambda: now) as here:
        await deploy(here, record("f", settings=WARM), record("g", settings=WARM))
        f, g = await here.started("ap-1/f"), await here.started("ap-1/g")
        for text in ("one\n", "two\n", "three\n"):
            here.engine.write(f, 1, text)
            here.engine.write(g, 1, text)
        one, _, three = await read(here.client, m.ReadLogs(1, "ap-1", "f"))
    now = 20.0  # somebody has set the clock
    async with stage(home=tmp_path, calendar=lambda: now) as here:
        f = await here.started("ap-1/f")
        here.engine.write(f, 1, "four\n")
        after = m.ReadLogs(2, "ap-1", "f", lines=m.MAX_LOG_LINES, after=one.at)
        assert texts(await read(here.client, after)) == ["two", "three", "four"]
        assert texts(await read(here.client, replace(after, after=three.at))) == ["four"]
        assert texts(await read(here.client, replace(after, after=20.5))) == ["one", "two", "three"], "of no entry"
        of_container = replace(after, app="", container=one.container)
        assert texts(await read(here.client, of_container)) == ["two", "three"]
        await here.client.send(replace(after, request=3, lines=0, follow=True))
        up_to_date, _ = await here.client.expect(m.Logged)
        assert up_to_date.last and up_to_date.at == now


async def test_who_does_not_read_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "UNREAD_BYTES", 10_000)
    async with stage(home=tmp_path) as here:
        await deploy(here, record("f", settings=WARM))
        name = await here.started("ap-1/f")
        slow = await here.neighbour()
        await slow.send(m.ReadLogs(1, "ap-1", "f", lines=1_000, follow=True))
        assert (await slow.expect(m.Logged))[0].last
        for number in range(3_000):
            here.engine.write(name, 1, f"{number:04} {'x' * 1000}\n")
        assert len(await read(here.client, m.ReadLogs(1, "ap-1", lines=3_000))) == 3_000
        came: list[m.LogEntry] = []
        while not came or came[-1].text != "end\n":
            here.engine.write(name, 1, "end\n")
            came += (await slow.expect(m.Logged))[0].entries
        (said,) = [entry.text for entry in came if entry.stream == "server"]
        assert "lines before this one are left out: they came faster than they were read" in said


async def test_more_than_the_disk_takes_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "UNWRITTEN_BYTES", 50_000)
    takes, append = threading.Event(), LogFiles.append

    def append_when_it_takes(files: LogFiles, app: str, data: bytes) -> None:
        assert takes.wait(PATIENCE_SECONDS)
        append(files, app, data)

    monkeypatch.setattr(LogFiles, "append", append_when_it_takes)
    async with stage(home=tmp_path) as here:
        await deploy(here, record("f", settings=WARM))
        name = await here.started("ap-1/f")
        for _ in range(500):
            here.engine.write(name, 1, f"{'x' * 1000}\n")
        here.engine.write(name, 1, "after\n")
        takes.set()
        await read(here.client, m.ReadLogs(1, "ap-1"))
        here.engine.write(name, 1, "end\n")
        entries = await read(here.client, m.ReadLogs(2, "ap-1", lines=2_000))
        said = [int(entry.text.split()[0]) for entry in entries[1:] if entry.stream == "server"]
        kept = [entry for entry in entries if entry.stream == "stdout"]
        assert said and sum(said) == 502 - len(kept)
        assert texts(entries)[-1] == "end"


async def test_what_the_server_says(tmp_path: Path) -> None:
    now = [0.0]
    async with stage(home=tmp_path, calendar=lambda: now[0]) as here:
        await deploy(here, record("f", settings=WARM), record("g", schedule=Period(seconds=10)))
        first = await here.started("ap-1/f")
        peer = await here.stranger()
        await peer.send(m.Hello(m.PROTOCOL, "container", here.engine.tokens[first], 1))
        await peer.expect(m.Load)
        await peer.send(m.StartFailed(m.ErrorRecord("start", "builtins.ImportError", "no numpy", "Traceback …")))
        peer.close()
        here.engine.end(first, 1)
        dispatcher = here.server._services.dispatcher
        await here.until(lambda: first not in dispatcher.containers)
        calls = dispatcher.calls
        now[0] = 35.0  # three periods have passed
        here.clock.advance(40.0)
        await here.until(lambda: len(calls) == 1)
        now[0] = 41.0
        here.clock.advance(40.0)
        await here.until(lambda: len(calls) == 2)
        second = await here.started("ap-1/f")
        here.engine.end(second, -11)
        third = await here.started("ap-1/g")
        await here.client.send(m.StopContainer(5, third))
        await here.client.expect(m.Done)
        starting = [(here.engine.functions[name].rpartition("/")[2], name) for name in here.engine.tokens]
        await here.client.send(m.StopApp(6, "app"))
        await here.client.expect(m.Done)
        said = [
            (entry.function, entry.container, entry.text)
            for entry in await read(here.client, m.ReadLogs(1, "ap-1"))
            if entry.stream == "server"
        ]
    ((call, _),) = [(text.split()[4], text) for _, _, text in said if "still runs" in text]
    assert said == [
        ("", "", "version 1 is served from now on, rolling\n"),
        ("f", first, "could not start: ImportError: no numpy\nTraceback …\n"),
        ("g", "", "its schedule fires once for all that was missed\n"),
        ("g", "", f"its schedule fires, and {call} still runs\n"),
        ("f", second, "ended by itself: status -11\n"),
        ("g", third, "was killed: it was stopped\n"),
        ("", "", "stopped\n"),
        *((function, name, "was killed: its app is stopped\n") for function, name in starting),
    ]


async def test_a_call_of_a_schedule_that_the_server_has_outlived_still_runs(tmp_path: Path) -> None:
    now = 0.0
    async with stage(home=tmp_path, calendar=lambda: now) as here:
        await deploy(here, record("f", schedule=Period(seconds=100), settings=AutoscalerSettings(max_containers=1)))
        calls = here.server._services.dispatcher.calls
        now = 101.0
        here.clock.advance(40.0)
        await here.until(lambda: calls)
        (first,) = calls
        await here.client.send(m.Submit("fc-by-hand", "ap-1/f", "spawn", 0, 1, True), payload=b"in")
        await here.client.expect(m.Accepted)
    now = 201.0
    async with stage(home=tmp_path, calendar=lambda: now) as here:
        calls = here.server._services.dispatcher.calls
        await here.until(lambda: len(calls) == 3)
        said = texts(await read(here.client, m.ReadLogs(1, "ap-1", "f")))
        assert said[-1] == f"its schedule fires, and {first} still runs"


async def test_an_app_of_a_client_writes_to_its_client(tmp_path: Path) -> None:
    async with stage(home=tmp_path) as here:
        await here.client.send(m.OpenApp("ap-1", "app", [record("f", settings=WARM)]))
        name = await here.started("ap-1/f")
        here.engine.write(name, 1, "one\n")
        assert (await here.client.expect(m.Log))[0].text == "one\n"
        assert await read(here.client, m.ReadLogs(1, "ap-1")) == []


async def test_a_private_server_keeps_none() -> None:
    async with stage() as here:
        await here.client.send(m.ReadLogs(1, "ap-1"), m.Unfollow(1))
        logged, _ = await here.client.expect(m.Logged)
        assert logged.last and logged.error is not None and logged.error.kind == "missing"


@pytest.mark.parametrize("asked", [m.ReadLogs(1, ""), m.ReadLogs(1, "ap-1", lines=-1), m.ReadLogs(-1, "ap-1")])
async def test_what_may_not_be_asked(tmp_path: Path, asked: m.ReadLogs) -> None:
    async with stage(home=tmp_path) as here:
        await deploy(here, record("f", settings=WARM))
        peer = await here.neighbour()
        await peer.send(asked)
        assert await peer.dismissed()
