"""Results are kept for their time and no longer: on a server whose calendar the test sets."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .homes import Home
from .processes import SECONDS_TO_RUN, Program, until

SERVER = Path(__file__).parents[1] / "soak" / "server.py"  # its calendar is the time of a file
DAY = 24 * 3600
ROWS, ROW_BYTES = 2000, 2000

CODE = f"""
    import upswell

    app = upswell.App("kept")

    @app.function()
    def row(x):
        return bytes({ROW_BYTES})

    @app.function()
    def fail():
        raise LookupError("on purpose")
"""

SPAWN = """
    import asyncio
    from upswell import Function

    row, fail = Function.from_name("kept", "row"), Function.from_name("kept", "fail")

    async def together():
        return await asyncio.gather(*(row.spawn.aio(x) for x in range(3)))

    calls = [row.spawn_map(range(ROWS)), fail.spawn(), asyncio.run(together())[2]]
    for call in calls:
        try:
            call.get(index=call.num_inputs() - 1)
        except LookupError:
            pass
        print(call.object_id)
"""

LOOK = """
    import sys
    from upswell import FunctionCall

    def told(action):
        try:
            return len(action())
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    for call in map(FunctionCall.from_id, sys.argv[1:]):
        print(told(call.get), "|", told(lambda: list(call.iter())))
"""


@contextmanager
def served(home: Home) -> Iterator[Path]:
    """A server, and the file whose time is its calendar's."""
    home.path.mkdir(0o700)
    calendar = home.path / "calendar"
    calendar.touch()
    command = [sys.executable, "-P", str(SERVER), str(home.path), "20"]
    server = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL)
    try:
        assert until(lambda: (home.path / "server.sock").exists())
        yield calendar
    finally:
        server.terminate()
        server.wait(SECONDS_TO_RUN)


def test_results_are_kept_for_a_week(program: Program, home: Home) -> None:
    program.write(CODE, "app.py")
    program.write(SPAWN.replace("ROWS", str(ROWS)), "spawn.py")
    program.write(LOOK, "look.py")
    with served(home) as calendar:
        began = calendar.stat().st_mtime

        def later(seconds: float) -> None:
            os.utime(calendar, (began + seconds, began + seconds))

        assert home.upswell("deploy", "app.py").status == 0
        many, _, one = calls = home.python("spawn.py").out.split()

        def states() -> dict[str, str]:
            return {call["id"]: call["state"] for call in json.loads(home.upswell("call", "list", "--json").out)}

        assert until(lambda: set(states().values()) == {"finished"}), "all of each, before the calendar moves on"
        later(7 * DAY - 60)
        assert home.python("look.py", *calls).out.splitlines() == [
            f"{ROW_BYTES} | {ROWS}",
            "LookupError: on purpose | LookupError: on purpose",
            f"{ROW_BYTES} | 1",
        ]
        assert states()[many] == "finished"
        later(7 * DAY + 60)
        assert until(lambda: set(states().values()) == {"expired"})
        gone = "OutputExpiredError: the results of {0} were kept for 7 days after its end, and are gone"
        lines = [f"{gone} | {gone}".format(call) for call in calls]
        assert home.python("look.py", *calls).out.splitlines() == lines
        told = home.upswell("call", "get", one)
        assert (told.status, told.out) == (1, "") and gone.format(one).partition(": ")[2] in told.err
        assert "Traceback" not in told.err

        later(14 * DAY + 120)
        assert until(lambda: not states())
        missing = home.upswell("call", "get", one)
        assert (missing.status, missing.out) == (1, "") and f"there is no call {one}" in missing.err
        database = home.path / "upswell.db"
        assert until(lambda: database.stat().st_size < ROWS * ROW_BYTES / 2), "what is gone takes no room"
