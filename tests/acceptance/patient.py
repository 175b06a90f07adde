"""A server that waits longer than usual for what an earlier one of its home has left.

A user's server must not wait long for containers that may never call; a test that says which of them go on has to wait
for as long as a busy machine keeps them from calling.
"""

import sys

from upswell.engines import local, succession

SECONDS = 30.0


def main() -> None:
    """Serve as the command line says."""
    from upswell.server import __main__ as server
    from upswell.server import rejoining

    local.INVENTORY_SECONDS = succession.CALL_SECONDS = SECONDS
    rejoining.RETURN_SECONDS = rejoining.CALLERS_SECONDS = SECONDS
    if "ray" in sys.argv:
        from upswell.engines.ray import engine

        engine.RETURN_SECONDS = SECONDS
    server.main()


if __name__ == "__main__":
    main()
