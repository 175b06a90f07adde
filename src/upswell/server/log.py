"""The log of a server with a home: `server.log` there, which never grows beyond its limit."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from ..home import LOG, open_file

MAX_LOG_BYTES = 8 << 20  # then a new file is begun
OLD_FILES = 3  # server.log.1 and so on, the oldest of which goes
FORMAT = "%(asctime)s %(levelname)s %(message)s"


class ServerLog(RotatingFileHandler):
    """The file, private to its user. With `takes_stderr`, what the process writes there by itself goes to it too."""

    def __init__(self, home: Path, *, takes_stderr: bool) -> None:
        self._takes_stderr = takes_stderr
        super().__init__(home / LOG, maxBytes=MAX_LOG_BYTES, backupCount=OLD_FILES, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        descriptor = open_file(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if self._takes_stderr:
            for standard in (1, 2):
                os.dup2(descriptor, standard)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def begin_log(home: Path, *, in_background: bool) -> None:
    """Have everything that is logged written to the home's file, and in the foreground to standard error too."""
    handlers: list[logging.Handler] = [ServerLog(home, takes_stderr=in_background)]
    if not in_background:
        handlers.append(logging.StreamHandler(sys.stderr))
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=handlers)
