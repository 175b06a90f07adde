"""A server like any other with a home, but for its calendar, in which `days` pass in `seconds`."""

import asyncio
import sys
import time
from pathlib import Path

from upswell.engines.local import LocalEngine


def main(home: Path, days: float, seconds: float) -> None:
    """Serve until a signal ends it."""
    engine = LocalEngine(home / "code" / "trees")  # before there are threads
    from upswell.server import serve, timetable
    from upswell.spec import Limits
    from upswell.stores.sqlite import SqliteStore

    began, speed = time.time(), days * 86_400 / seconds
    serve.SWEEP_SECONDS = max(0.2, seconds / 100)
    timetable.LONGEST_WAIT_SECONDS = 0.02  # the calendar is faster than the clock

    async def run() -> None:
        store = SqliteStore(home, asyncio.get_running_loop().call_soon_threadsafe, serve._fail)
        calendar = lambda: began + (time.time() - began) * speed  # noqa: E731
        await serve.Server(engine, store, Limits(), home=home, calendar=calendar).run()

    asyncio.run(run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
