"""What `FunctionCall.get_call_graph()` returns: a public name of its own, as in Modal's SDK."""

from .sdk.graph import InputInfo as InputInfo
from .sdk.graph import InputStatus as InputStatus
