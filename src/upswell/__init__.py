"""upswell scales Python functions out on your own machines: decorate one, `.map` it, and containers come and go."""

from . import _cold_start as _cold_start  # isort: skip - before all others, and what they import

import sys
from typing import TYPE_CHECKING

from . import exception

if TYPE_CHECKING:
    from . import call_graph
    from .errors import Error
    from .sdk.app import App
    from .sdk.call import FunctionCall
    from .sdk.cls import Cls, Obj, parameter
    from .sdk.context import current_function_call_id, current_input_id, is_local
    from .sdk.decorators import batched, concurrent, enter, exit, method
    from .sdk.dict import Dict
    from .sdk.function import Function
    from .sdk.image import Image
    from .sdk.output import enable_output
    from .sdk.queue import Queue
    from .sdk.secret import Secret
    from .sdk.volume import Volume
    from .spec import Cron, Period, Retries

__version__ = "0.1.0"

__all__ = [
    "App",
    "Cls",
    "Cron",
    "Dict",
    "Error",
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
    "call_graph",
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

# Where they are, to be imported when they are first named: a program starts without what it has no use for, and the
# server, which is a module of this package, without all of it.
_MODULES = {
    "errors": ("Error",),
    "sdk.app": ("App",),
    "sdk.call": ("FunctionCall",),
    "sdk.cls": ("Cls", "Obj", "parameter"),
    "sdk.context": ("current_function_call_id", "current_input_id", "is_local"),
    "sdk.decorators": ("batched", "concurrent", "enter", "exit", "method"),
    "sdk.dict": ("Dict",),
    "sdk.function": ("Function",),
    "sdk.image": ("Image",),
    "sdk.output": ("enable_output",),
    "sdk.queue": ("Queue",),
    "sdk.secret": ("Secret",),
    "sdk.volume": ("Volume",),
    "spec": ("Cron", "Period", "Retries"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "call_graph":
        return _cold_start.load(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        from .sdk.absent import say_why_absent
        from .sdk.frames import their_frames

        with their_frames:
            say_why_absent(name, sys._getframe(1))
            words = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(words, name=name, obj=sys.modules[__name__])  # Python says what may have been meant
    found: object = getattr(_cold_start.load(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
