"""Imports msgspec without typing_extensions, which it prefers where that is installed, for names that typing has too.

That module took a third of the time of `import upswell`, in a program and in its server again. This one must be
imported before anything that imports msgspec.
"""

import sys

if "msgspec" not in sys.modules and "typing_extensions" not in sys.modules:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # importing it fails, and msgspec does without
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
