"""Tells whoever has started this server that it answers, or why it does not, as systemd's `Type=notify` has it."""

from __future__ import annotations

import os
import socket


class Notice:
    """What is said to the socket in `NOTIFY_SOCKET`, where there is one; it is not for the processes started here."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    def ready(self, status: str) -> None:
        """Clients can connect."""
        self._say(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def failed(self, reason: str) -> None:
        """The process ends, for this reason."""
        self._say(f"STATUS={' '.join(reason.split())}")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            try:
                speaker.sendto(text.encode(), address)
            except OSError:
                pass  # nobody listens any more
