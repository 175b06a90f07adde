"""The module `modal` where `upswell run --as-modal` puts this folder on the import path: it is upswell itself.

So are its public submodules, which Python would else find once more, as `modal.call_graph` with classes of its own.
"""

import sys

import upswell
import upswell.call_graph
import upswell.exception

sys.modules[__name__] = upswell
sys.modules[f"{__name__}.call_graph"] = upswell.call_graph
sys.modules[f"{__name__}.exception"] = upswell.exception
