"""A process with an engine that is to be killed: starts containers that call the test, says so, and waits for its end.

Arguments: the home, how long its containers look for a successor, the address of the test, the kind of engine, and a
file with a function record; then a name and a token for each container.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from upswell.engine import Engine
from upswell.engines.local import LocalEngine
from upswell.engines.ray.engine import Cluster, RayEngine
from upswell.engines.spawn import SpawnEngine
from upswell.spec import FunctionRecord


async def main() -> None:
    home, seconds, address, kind, record = sys.argv[1:6]
    function = msgspec.msgpack.decode(Path(record).read_bytes(), type=FunctionRecord)
    engine: Engine
    if kind in ("local", "spawn"):
        engine = {"local": LocalEngine, "spawn": SpawnEngine}[kind](home=Path(home), rejoin_seconds=float(seconds))
    else:  # the address of a cluster
        engine = RayEngine(Cluster(address=kind, prefix="test-"), None, Path(home), float(seconds))
    found = await engine.open(address, lambda report: print(report, flush=True))
    for container, token in zip(sys.argv[6::2], sys.argv[7::2], strict=True):
        engine.start(container, token, function, version=3)
    print("found", *(one.container for one in found), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
