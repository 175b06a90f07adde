"""What every test gets: at the end of the run, no process that the run started may still be alive.

Tests run side by side on machines that have other things to do, so no property has a time limit for its examples.
"""

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("upswell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("upswell")

# Where tests run side by side, none of these should be what all others wait for at the end.
LONG = tuple(
    f"tests/{name}.py"
    for name in (
        *("properties/test_laws", "properties/test_restarts", "typing/test_typing"),
        *("acceptance/test_campaigns", "acceptance/test_examples"),
    )
)

# A shell has what it runs in the background ignore Ctrl-C, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Sockets lie in the folders of tests, and the path of one has 107 characters at most.
if len(tempfile.gettempdir()) > len("/var/tmp"):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/tmp")

MARK = "UPSWELL_TEST_RUN"
GRACE_SECONDS = 30.0  # for processes that are already on their way out
# Python's own, shared by a process's shared-memory blocks; it ends with the process.
PYTHONS_OWN = "multiprocessing.resource_tracker"


def _left_behind(run: str) -> list[psutil.Process]:
    """Return our descendants, and whoever inherited this run's mark and was orphaned since."""
    here = psutil.Process()
    found = set(here.children(recursive=True))
    for process in psutil.process_iter():
        try:
            if process != here and process.environ().get(MARK) == run:
                found.add(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's
    return [process for process in found if not _excused(process)]


def _excused(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or PYTHONS_OWN in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return True


def _described(process: psutil.Process) -> str:
    with process.oneshot():
        try:
            return f"{process.pid} (parent {process.ppid()}): {' '.join(process.cmdline())}"
        except psutil.Error:
            return f"{process.pid}: ended while being looked at"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="session", autouse=True)
def no_process_left_behind() -> Iterator[None]:
    run = uuid.uuid4().hex
    os.environ[MARK] = run
    yield
    _, alive = psutil.wait_procs(_left_behind(run), timeout=GRACE_SECONDS)
    lines = [_described(process) for process in alive]
    for process in alive:
        process.kill()
    if lines:
        pytest.fail("the test run left processes behind:\n  " + "\n  ".join(lines), pytrace=False)
