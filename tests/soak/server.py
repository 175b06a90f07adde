"""A server like any other with a home, but for its calendar, which is the time of a file `calendar` in the home."""

import asyncio
import sys
from pathlib import Path

from upswell.engines.local import LocalEngine


def main(home: Path, seconds: float) -> None:
    """Serve until a signal ends it, in a soak of so many seconds."""
    engine = LocalEngine(home / "code" / "trees")  # before there are threads
    from upswell.server import serve, timetable
    from upswell.spec import Limits
    from upswell.stores.sqlite import SqliteStore

    serve.SWEEP_SECONDS = max(0.2, seconds / 100)
    timetable.LONGEST_WAIT_SECONDS = 0.02  # the calendar is faster than the clock

    async def run() -> None:
        loop = asyncio.get_running_loop()
        store = SqliteStore(home, loop.call_soon_threadsafe, serve._fail, loop.call_soon)
        calendar = (home / "calendar").stat
        await serve.Server(engine, store, Limits(), home=home, calendar=lambda: calendar().st_mtime).run()

    asyncio.run(run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
