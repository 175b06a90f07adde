"""The public name of the error family: `upswell.exception.InvalidError` and its kin."""

from .errors import *  # noqa: F403
