"""The limit of a container's memory, by control group where one can be made and within the process otherwise."""

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from upswell.container import groups
from upswell.container.groups import Group, find_place, where_groups_go
from upswell.engine import Engine
from upswell.engines.local import LocalEngine
from upswell.engines.spawn import SpawnEngine

from .home import Home, ended

ENGINES: dict[str, Callable[[], Engine]] = {"local": LocalEngine, "spawn": SpawnEngine}
GREED = """
    def hold(mebibytes):
        return bytearray(b"x") * (mebibytes << 20)

    @app.function()
    def by_numpy(mebibytes):
        import numpy
        return int(numpy.ones(mebibytes << 20, "u1")[-1])

    @app.function()
    def by_list(mebibytes):
        kept = []
        for _ in range(mebibytes):
            kept.append(hold(1))
        return len(kept)

    @app.function()
    def by_child(mebibytes):
        command = [sys.executable, "-c", f"x = bytearray(b'x') * ({mebibytes} << 20); print('done', flush=True)"]
        return subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.decode()

    @app.function()
    def shared(mebibytes):
        descriptor = os.memfd_create("x")
        for _ in range(mebibytes):
            os.write(descriptor, bytes(1 << 20))
        return mebibytes
"""
LIMIT = 200
LIMIT_OF_ONE = 800  # of a process that was forked from this one, and has what the tests before have left in it

needs_groups = pytest.mark.skipif(where_groups_go() is None, reason="no control group for memory can be made here")


@pytest.fixture(params=ENGINES)
async def home(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Home]:
    at_home = Home(ENGINES[request.param](), tmp_path)
    await at_home.open()
    yield at_home
    await at_home.close()
    if where_groups_go():
        assert not groups_now(at_home), "no group is left"


@pytest.fixture
def no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where no group can be made; what forks from here on sees the same."""
    monkeypatch.setattr(groups, "where_groups_go", lambda: None)


def groups_now(home: Home) -> list[str]:
    """The groups of its engine: other tests may run beside this one."""
    place = where_groups_go()
    assert place is not None and isinstance(home.engine, LocalEngine)
    return [path.name for path in Path(place.folder).glob(f"{groups.PREFIX}-{home.engine._root_process}-*")]


@needs_groups
@pytest.mark.parametrize(
    ("name", "mebibytes"), [("by_numpy", 400), ("by_list", 400), ("by_child", 400), ("shared", 400)]
)
async def test_over_the_limit_of_its_group(home: Home, name: str, mebibytes: int) -> None:
    container, within = await home.started(home.function(name, GREED, memory_mib=LIMIT))
    assert await within.run(20) in (1, 20, "done\n")
    within.begin(mebibytes)
    report = await home.exit_of(container)
    assert (report.status, report.out_of_memory) == (-9, True)
    assert report.reason.startswith("out of memory: ") and "its limit is 200 MiB" in report.reason
    in_use = int(report.reason.partition(" MiB in use")[0].rpartition(" ")[2])
    assert LIMIT * 0.9 < in_use <= LIMIT


@needs_groups
async def test_only_what_has_a_limit_has_a_group(home: Home) -> None:
    _, free = await home.started(home.function("by_list", GREED))
    assert groups_now(home) == []
    name, limited = await home.started(home.function("by_list", GREED, memory_mib=LIMIT))
    assert [one.endswith(f"-{name}") for one in groups_now(home)] == [True]
    assert await free.run(300) == 300
    assert await limited.run(100) == 100
    home.engine.kill(name)
    assert not (await home.exit_of(name)).out_of_memory
    await ended(limited.process)


@needs_groups
async def test_what_can_never_fit_fails_with_a_traceback(home: Home) -> None:
    name, container = await home.started(
        home.function("by_list", GREED.replace("hold(1)", "bytearray(4 << 30)"), memory_mib=LIMIT)
    )
    with pytest.raises(Exception, match=r"out of memory.*200 MiB"):
        await container.run(1)
    assert container.failure is not None and container.failure.fatal and container.failure.error.kind == "memory"
    assert "in by_list" in container.failure.error.traceback
    await home.exit_of(name)


@pytest.mark.usefixtures("no_groups")
@pytest.mark.parametrize("engine", ["local"])
@pytest.mark.parametrize(("name", "mebibytes"), [("by_numpy", 1600), ("by_list", 1600)])
async def test_over_the_limit_of_its_process(tmp_path: Path, engine: str, name: str, mebibytes: int) -> None:
    home = Home(ENGINES[engine](), tmp_path)
    await home.open()
    container, process = await home.started(home.function(name, GREED, memory_mib=LIMIT_OF_ONE))
    assert await process.run(20) in (1, 20)
    with pytest.raises(Exception, match=r"out of memory: with \d+ MiB in use .* the limit of 800 MiB"):
        await process.run(mebibytes)
    assert process.failure is not None and process.failure.error.kind == "memory"
    assert (await home.exit_of(container)).status == 1
    await home.close()


# -- where groups go -------------------------------------------------------------------------------

MOUNT_1 = "35 31 0:32 {root} {folder} rw,relatime - cgroup cgroup rw,memory\n"
MOUNT_2 = "41 31 0:38 {root} {folder} rw,relatime - cgroup2 cgroup2 rw\n"
OTHERS = "36 31 0:33 / /nowhere/cpu rw,relatime - cgroup cgroup rw,cpu\n1 1 0:1 / / rw - tmpfs tmpfs rw\n"


def make(folder: Path, handed_on: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.subtree_control").write_text(handed_on)
    return folder


def test_version_1_below_ones_own_group(tmp_path: Path) -> None:
    own = make(tmp_path / "a" / "b")
    mounts = OTHERS + MOUNT_1.format(root="/", folder=tmp_path)
    assert find_place(mounts, "9:cpu:/x\n4:memory:/a/b\n0::/\n") == (str(own), False)
    assert find_place(OTHERS + MOUNT_1.format(root="/a", folder=tmp_path / "a"), "4:memory:/a/b\n") == (str(own), False)
    assert find_place(mounts, "9:cpu:/x\n") is None


def test_version_2_beside_ones_own_group(tmp_path: Path) -> None:
    parent = make(tmp_path / "app.slice", "cpu memory pids")
    make(parent / "shell.scope")
    mounts = OTHERS + MOUNT_2.format(root="/", folder=tmp_path)
    assert find_place(mounts, "0::/app.slice/shell.scope\n") == (str(parent), True)
    make(parent, "cpu pids")
    assert find_place(mounts, "0::/app.slice/shell.scope\n") is None
    make(tmp_path)
    assert find_place(mounts, "0::/\n") is None, "the root of a namespace, which has processes and nothing above"
    make(tmp_path, "memory")
    assert find_place(mounts, "0::/\n") == (str(tmp_path), True)


def test_a_group_of_version_2(tmp_path: Path) -> None:
    group = Group(str(tmp_path / "group"), 200 << 20, True)
    path = tmp_path / "group"
    assert (path / "memory.max").read_text() == str(200 << 20)
    assert (path / "memory.oom.group").read_text() == "1"
    (path / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 0\n")
    assert group.overrun() == ""
    (path / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 3\n")
    (path / "memory.peak").write_text(f"{199 << 20}\n")
    assert "199 MiB in use" in group.overrun() and "200 MiB" in group.overrun()
    (path / "memory.peak").unlink()
    assert "200 MiB in use" in group.overrun()
    assert group.enter(7) and (path / "cgroup.procs").read_text() == "7"


@needs_groups
def test_what_others_left_behind_is_removed() -> None:
    place = where_groups_go()
    assert place is not None
    left = Path(place.folder) / f"{groups.PREFIX}-{1 << 30}-co-{uuid.uuid4().hex}"
    left.mkdir()
    where_groups_go.cache_clear()
    assert where_groups_go() == place
    assert not left.exists()
