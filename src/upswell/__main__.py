"""`python -m upswell`: the command line, where the script `upswell` is not on the path."""

import sys

from upswell.cli import main

if __name__ == "__main__":
    sys.exit(main())
