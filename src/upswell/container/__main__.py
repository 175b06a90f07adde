"""A container in a fresh interpreter: imports the user's code by itself, in contrast to one forked from a zygote."""

from __future__ import annotations

import os
import sys

from . import control
from .birth import open_streams
from .loader import load_environment
from .runtime import run_container


def main() -> None:
    """Be the container that the parcel at the given descriptor describes."""
    sprout = control.read_sprout(int(sys.argv[1]))
    open_streams()
    out, err, nothing = os.dup(1), os.dup(2), os.open(os.devnull, os.O_WRONLY)
    # As with zygotes: the client has imported the module too, and shown what that prints.
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    failed = load_environment(sprout.seed.environment, sprout.seed.code_root)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)
    for descriptor in (out, err, nothing):
        os.close(descriptor)
    run_container(sprout.seed, sprout.name, failed)


if __name__ == "__main__":
    main()
