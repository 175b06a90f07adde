"""Tables as they are seen: whole where they are piped, and within the width of a terminal."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upswell.cli import app, call, container, function, logs, top
from upswell.cli.progress import Rate
from upswell.cli.tables import draw, print_json, show
from upswell.spec import AutoscalerSettings
from upswell.wire import messages as m

NOON = 1_800_014_400.0
GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (1000, 64)

APPS = [
    m.AppInfo("ap-5f3a6b0c1d2e3f405162", "census", "deployed", 12, NOON, 31, 4, 1_203_441),
    m.AppInfo("ap-00aa11bb22cc33dd44ee", "", "running", 0, NOON + 61.5, 1, 0, 0),
    m.AppInfo("ap-77aa11bb22cc33dd44ee", "nightly", "stopped", 0, None, 0, 0, 0),
]
SETTINGS = AutoscalerSettings(min_containers=1, max_containers=8, buffer_containers=0, scaledown_window=60)
FUNCTIONS = [
    m.FunctionInfo(
        "ap-1/count", "ap-1", "census", "count", 1_203_441, 4, 0, 99, 1, 2, 4, SETTINGS, 8, "max_containers", "why"
    ),
    m.FunctionInfo(
        "ap-1/Model@1f60c4", "ap-1", "census", "Model@1f60c4", 0, 1, 7, 5, 0, 0, 2, SETTINGS, 2, "running", "why",
        "Cron('0 9 * * *', 'Europe/Berlin')", NOON + 3600, "size='large'",
    ),
]  # fmt: skip
CONTAINERS = [
    m.ContainerInfo("co-4294967297", "ap-1", "census", "count", "ready", 12, NOON, 1, 1234.56, 300 << 20),
    m.ContainerInfo("co-4294967298", "ap-1", "census", "count", "starting", 12, NOON, 0, None, None),
]
CALLS = [
    m.CallInfo(
        "fc-5f3a6b0c1d2e3f405162", "ap-1", "census", "count", "spawn", "running", 1_000_000, 12, 3, False, NOON, None
    ),
    m.CallInfo(
        "fc-00aa11bb22cc33dd44ee", "ap-1", "census", "Model.ask", "map", "expired", 9, 9, None, True, NOON, NOON + 1
    ),
]
VERSIONS = [m.VersionInfo("ap-1", 2, "with g", NOON, True), m.VersionInfo("ap-1", 1, "", NOON - 60, False)]
TABLES: dict[str, tuple[tuple[Any, ...], list[Any]]] = {
    "apps": (app.COLUMNS, APPS),
    "versions": (app.VERSIONS, VERSIONS),
    "functions": (function.COLUMNS, FUNCTIONS),
    "containers": (container.COLUMNS, CONTAINERS),
    "calls": (call.COLUMNS, CALLS),
}


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # which needs no file of the system's
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def check(name: str, text: str) -> None:
    """Compare with what is kept; `UPSWELL_REWRITE=1` keeps it anew."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPSWELL_REWRITE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table(name: str, width: int) -> None:
    columns, rows = TABLES[name]
    lines = draw(columns, rows, width)
    assert max(map(len, lines)) <= width
    check(f"{name}-{width}", "\n".join(lines) + "\n")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_frame_of_top(width: int) -> None:
    rates = {one.id: Rate() for one in FUNCTIONS}
    lines = top.frame(FUNCTIONS, rates, width, room=9)
    assert max(map(len, lines)) <= width
    check(f"top-{width}", "\n".join(lines) + "\n")


def test_top_has_no_more_rows_than_room() -> None:
    lines = top.frame(FUNCTIONS, {}, 100, room=1)
    assert lines[-1] == "… and 1 more" and sum("census" in line for line in lines) == 1
    assert top.frame([], {}, 100, room=1)[-1] == "no function has containers or inputs"


def test_a_name_that_is_wider_than_the_terminal_is_cut() -> None:
    apps = [m.AppInfo("ap-1", name, "running", 0, None, 0, 0, 0) for name in ("x" * 64, "鍋" * 64, "y" * 20)]
    assert draw(app.COLUMNS[:1], apps, 20)[1:] == ["x" * 19 + "…", "鍋" * 9 + " …", "y" * 20]
    assert [len(line) for line in draw(app.COLUMNS, apps[::2], 40)] == [40, 40, 40]


def test_a_large_table_is_drawn_fast() -> None:
    began = time.process_time()
    assert len(draw(function.COLUMNS, FUNCTIONS * 5_000, 200)) == 10_001
    assert time.process_time() - began < 5


def test_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    show(app.COLUMNS, [], "no app is here: deploy one")
    assert capsys.readouterr() == ("", "upswell: no app is here: deploy one\n")


def test_more_than_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(app.COLUMNS, APPS, "", more=True)
    out, err = capsys.readouterr()
    assert out == (GOLDEN / "apps-1000.txt").read_text()
    assert err == "upswell: there are more than the 3 shown\n"


def test_a_table_where_nothing_is_open_to_print_it_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)  # as Python has it after `upswell app list >&-`
    show(app.COLUMNS, APPS, "")


@pytest.mark.parametrize("name", TABLES)
def test_records_for_programs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, rows = TABLES[name]
    print_json(rows)
    read = json.loads(capsys.readouterr().out)
    fields = {field: getattr(rows[0], field) for field in rows[0].__struct_fields__}
    if "settings" in fields:
        fields["settings"] = {field: getattr(SETTINGS, field) for field in SETTINGS.__struct_fields__}
    assert len(read) == len(rows) and read[0] == fields


def test_lines_of_a_log() -> None:
    entry = m.LogEntry(NOON, "count", "co-1", "stderr", "one\n  two\x0c\n\n")
    assert [logs.in_words(line) for line in logs.split(entry)] == [
        "2027-01-15 13:00:00.000  count co-1  one",
        "2027-01-15 13:00:00.000  count co-1    two\x0c",
        "2027-01-15 13:00:00.000  count co-1  ",
    ]
    said = m.LogEntry(NOON, "", "", "server", "stopped\n")
    assert [logs.in_words(line) for line in logs.split(said)] == ["2027-01-15 13:00:00.000  (server)  stopped"]
