"""Two threads that read one connection in turn: nothing is lost, and the right to read neither, whatever interrupts."""

import dis
import itertools
import os
import socket
import sys
import threading
from collections import deque
from types import CodeType, FrameType
from typing import Any

from upswell.wire import messages as m
from upswell.wire.channel import Channel
from upswell.wire.codec import Frame, encode
from upswell.wire.delivery import Delivery
from upswell.wire.turns import Turns

FRAME: Frame = (m.Uncollect("fc-1"), memoryview(b"payload"))
LETS_IN = ("CALL", "JUMP_BACKWARD", "RESUME")  # instructions after which the interpreter lets an exception in


class Interruption:
    """Raises `KeyboardInterrupt` in what this thread runs at the moment `number` of those at which one may come."""

    def __init__(self, number: int) -> None:
        self.left = number
        self._lets_in = dict[CodeType, set[int]]()

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        if "upswell/wire" in frame.f_code.co_filename and (event == "call" or self._is_let_in(frame, event)):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return self._trace

    def _is_let_in(self, frame: FrameType, event: str) -> bool:
        if frame.f_code not in self._lets_in:
            instructions = list(dis.get_instructions(frame.f_code))
            pairs = itertools.pairwise(instructions)
            self._lets_in[frame.f_code] = {then.offset for one, then in pairs if one.opname.startswith(LETS_IN)}
        return event == "opcode" and frame.f_lasti in self._lets_in[frame.f_code]


class Connection:
    """One end, and frames that were taken from it in passing."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.channel = Channel(ours)
        self.turns = Turns()
        self.taken: deque[Frame] = deque()
        self.delivery = Delivery()
        self.turns.take(lambda: False)
        self.turns.give()

    def read(self, taken: deque[Frame]) -> bool:
        assert self.channel.wait_to_peek(60_000)
        if (frame := self.channel.peek()) is None:
            return False
        self.delivery.take(*frame)
        self.channel.move(taken)
        return frame == FRAME

    def steadily(self) -> list[Frame]:
        """What the steady thread gets, once it is its turn."""
        came: list[Frame] = []

        def read() -> None:
            self.turns.take(lambda: False)
            while frames := self.channel.receive():
                for frame in frames:
                    self.delivery.take(*frame)
                came.extend(frames)

        self.peer.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "the right to read was lost"
        self.channel.close()
        self.peer.close()
        return came


def test_an_interruption_at_any_moment_loses_nothing() -> None:
    moments = 0
    while True:
        moments += 1
        connection, interruption = Connection(), Interruption(moments)
        connection.peer.sendall(encode(*FRAME))
        try:
            with interruption:
                connection.turns.pass_by(connection.read, connection.taken)
        except KeyboardInterrupt:
            pass
        assert [*connection.taken, *connection.steadily()] == [FRAME], f"interrupted at moment {moments}"
        assert connection.delivery.received == 1, f"interrupted at moment {moments}"
        if interruption.left > 0:
            break
    assert moments > 20
    assert list(connection.taken) == [FRAME], "without an interruption it is taken in passing"


def test_what_is_not_one_frame_is_left_to_the_steady_thread() -> None:
    for data in (encode(*FRAME)[:-1], encode(*FRAME)[:3], 2 * encode(*FRAME)):
        connection = Connection()
        connection.peer.sendall(data)
        assert not connection.turns.pass_by(connection.read, connection.taken)
        connection.peer.sendall((2 * encode(*FRAME))[len(data) :])
        assert not connection.taken
        assert connection.steadily() == [FRAME, FRAME]


def test_the_steady_thread_reads_when_nobody_comes_by() -> None:
    turns = Turns()
    steady = threading.Thread(target=lambda: turns.take(lambda: True))
    steady.start()
    steady.join(60)
    assert not turns.is_open
    assert not turns.pass_by(lambda _: True, None)


def test_who_passes_by_wakes_the_steady_thread_where_that_sleeps() -> None:
    """A thread reads in passing for so long that the steady one sleeps until it is woken; then that reads again."""
    turns, leave, taken = Turns(), threading.Event(), threading.Event()
    began = threading.Event()

    def read(_: object) -> bool:
        began.set()
        return leave.wait(60)

    def pass_by() -> None:
        turns.pass_by(read, None)

    def steady() -> None:
        turns.take(lambda: True)
        taken.set()

    threads = [threading.Thread(target=pass_by), threading.Thread(target=steady)]
    threads[0].start()
    assert began.wait(60)
    threads[1].start()
    while not turns._sleeps:
        os.sched_yield()
    assert not taken.is_set()
    leave.set()
    for thread in threads:
        thread.join(60)
    assert taken.is_set()


def test_who_wants_the_steady_thread_does_not_wait_for_its_nap() -> None:
    turns, taken, naps = Turns(), threading.Event(), 0

    def others_pass() -> bool:
        nonlocal naps
        naps += 1
        return True

    def steady() -> None:
        turns.take(others_pass)
        taken.set()

    turns.want()
    thread = threading.Thread(target=steady)
    thread.start()
    assert taken.wait(60)
    thread.join()
    assert naps == 1
