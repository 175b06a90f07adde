"""A way to the server that breaks: a socket whose connections are cut after some bytes, or stand still."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

PIECE_BYTES = 1 << 16

Place = str | tuple[str, int]


class Proxy:
    """Carries bytes between whoever dials `place` and the server at `target`: paths, or hosts and ports.

    `budget` says for each connection, numbered from 0, after how many bytes in all it is cut; `None`: never.
    """

    def __init__(self, place: Place, target: Place, budget: Callable[[int], int | None]) -> None:
        self.connections = 0
        self._target = target
        self._budget = budget
        self._listener = _socket(place)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier one may linger
        self._listener.bind(place)
        self._listener.listen()
        here = self._listener.getsockname()
        self.address = f"unix:{here}" if isinstance(here, str) else f"tcp://{here[0]}:{here[1]}"
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: list[Passage] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.resume()
        self.cut()

    def stop(self) -> None:
        """Let nothing pass, as where a machine or a network stands still."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let bytes pass again."""
        self._flowing.set()

    def cut(self) -> None:
        """Cut every connection, now."""
        for passage in self._open:
            passage.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = _socket(self._target)
            try:
                far.connect(self._target)
            except OSError:
                near.close()
                far.close()
                continue
            passage = Passage(near, far, self._budget(self.connections), self._flowing)
            self.connections += 1
            self._open.append(passage)


class Passage:
    """One connection, until its budget is spent."""

    def __init__(self, near: socket.socket, far: socket.socket, budget: int | None, flowing: threading.Event) -> None:
        self._sockets = (near, far)
        self._budget = budget
        self._flowing = flowing
        self._spending = threading.Lock()
        self._ended = 0
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def cut(self) -> None:
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(PIECE_BYTES):
                self._flowing.wait()
                with self._spending:
                    allowed = len(data) if self._budget is None else min(len(data), self._budget)
                    if self._budget is not None:
                        self._budget -= allowed
                other.sendall(data[:allowed])
                if allowed < len(data):
                    break
        except OSError:
            pass  # cut by whichever side
        self.cut()
        with self._spending:
            self._ended += 1
            if self._ended == 2:
                for both in self._sockets:
                    both.close()


def _socket(place: Place) -> socket.socket:
    return socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET, socket.SOCK_STREAM)
