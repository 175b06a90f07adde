"""upswell scales Python functions out on your own machines: decorate one, `.map` it, and containers come and go."""

from . import exception
from .sdk.app import App
from .sdk.call import FunctionCall
from .sdk.context import current_function_call_id, current_input_id, is_local
from .sdk.dict import Dict
from .sdk.function import Function
from .sdk.image import Image
from .sdk.output import enable_output
from .sdk.queue import Queue
from .sdk.secret import Secret
from .sdk.volume import Volume
from .spec import Retries

__version__ = "0.1.0"

__all__ = [
    "App",
    "Dict",
    "Function",
    "FunctionCall",
    "Image",
    "Queue",
    "Retries",
    "Secret",
    "Volume",
    "__version__",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "exception",
    "is_local",
]
