"""The module `modal` where `upswell run --as-modal` puts this folder on the import path: it is upswell itself."""

import sys

import upswell
import upswell.exception

sys.modules[__name__] = upswell
sys.modules[f"{__name__}.exception"] = upswell.exception
