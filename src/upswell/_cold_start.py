"""What makes imports fast: no garbage collections meanwhile, and msgspec without modules that it has no use for.

It prefers typing_extensions where that is installed, for names that typing has too; and uuid, which it imports, asks
platform for nothing but the system's name. The two took a third of the time of `import upswell`, in a program and in
its server again. This one must be imported before anything that imports msgspec.
"""

import gc
import os
import sys
from importlib import import_module
from types import ModuleType


class _Platform(ModuleType):
    """Of platform what uuid needs."""

    def system(self) -> str:
        return os.uname().sysname


def load(module: str) -> ModuleType:
    """Import the module. Collections would take a twelfth of the time, and find nothing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return import_module(module)
    finally:
        if collects:
            gc.enable()


def _load_msgspec() -> None:
    # Importing a module that is `None` here fails, and msgspec does without.
    others: dict[str, ModuleType | None] = {"typing_extensions": None, "platform": _Platform("platform")}
    others = {name: other for name, other in others.items() if name not in sys.modules}
    sys.modules.update(others)  # type: ignore[arg-type]
    try:
        load("msgspec")
    finally:
        for name in others:
            del sys.modules[name]


if "msgspec" not in sys.modules:
    _load_msgspec()
