"""upswell scales Python functions out on your own machines: decorate one, `.map` it, and containers come and go."""

from typing import TYPE_CHECKING

from . import _cold_start as _cold_start  # before all others
from . import exception
from .sdk.app import App
from .sdk.call import FunctionCall
from .sdk.cls import Cls, Obj, parameter
from .sdk.context import current_function_call_id, current_input_id, is_local
from .sdk.decorators import batched, concurrent, enter, exit, method
from .sdk.function import Function
from .sdk.output import enable_output
from .spec import Cron, Period, Retries

if TYPE_CHECKING:
    from .sdk.dict import Dict
    from .sdk.image import Image
    from .sdk.queue import Queue
    from .sdk.secret import Secret
    from .sdk.volume import Volume

__version__ = "0.1.0"

__all__ = [
    "App",
    "Cls",
    "Cron",
    "Dict",
    "Function",
    "FunctionCall",
    "Image",
    "Obj",
    "Period",
    "Queue",
    "Retries",
    "Secret",
    "Volume",
    "__version__",
    "batched",
    "concurrent",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "enter",
    "exception",
    "exit",
    "is_local",
    "method",
    "parameter",
]

# Imported when they are first named: a program that has no use for them starts without them.
_ON_DEMAND = {"Dict": "dict", "Image": "image", "Queue": "queue", "Secret": "secret", "Volume": "volume"}


def __getattr__(name: str) -> object:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = found = getattr(import_module(f".sdk.{_ON_DEMAND[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
