"""A range that runs while its tail is taken back: every input is run once, here or where the tail goes."""

import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy
import pytest

from upswell.container import outbox
from upswell.container.executor import CANCELLED, Executor
from upswell.container.link import Link
from upswell.container.outbox import Outbox
from upswell.container.service import Bound, Service
from upswell.container.threads import Threads
from upswell.container.work import Work
from upswell.spec import GATHER_SECONDS, Environment, FunctionRecord, FunctionSpec
from upswell.wire import messages as m
from upswell.wire import shortcut
from upswell.wire.channel import Channel
from upswell.wire.codec import Decoder
from upswell.wire.payload import BARE, POSITIONAL, Packed, pack, unpack, unpack_inputs

W = TypeVar("W", bound=Work)

INPUTS = 400
FIRST = 50  # of the range, in a segment of so many more


class Container:
    """The runner of a container in this thread, and the server's end of its connection."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.outputs, self._writing = shortcut.make()
        link = Link(0.0, self._writing.fileno())
        self._channel = Channel(ours)
        link._begin(self._channel)
        environment = Environment(kind="module", origin="", module="", main=False, sys_path=(), directory="/")
        self.record = FunctionRecord(id="ap/f", app_name="app", name="f", spec=FunctionSpec(), environment=environment)
        self.held: dict[int, Work] = {}
        self.outbox = Outbox(link, self.held, False)
        self.server = Channel(theirs)
        self._threads = Threads(self.record, self.held, self.outbox, lambda work: None, main=True)

    def take(self, packed: Packed, function: Callable[..., Any]) -> Work:
        """Hold a range of the segment."""
        return self.hold(Work, packed, function)

    def hold(self, kind: type[W], packed: Packed, function: Callable[..., Any], may_deliver: bool = False) -> W:
        """The same, of a certain kind."""
        assign = m.Assign(1, "fc-1", 0, FIRST + INPUTS, FIRST, FIRST + INPUTS, may_deliver=may_deliver)
        work = kind(assign, unpack_inputs(packed.data, None, FIRST + INPUTS))
        work.bound = Bound.of(function)
        self.held[1] = work
        return work

    def run(self, work: Work) -> list[Any]:
        """Run it to its end: the outputs that were sent, and the types of exceptions in their place, in order."""
        self._threads.submit(work)
        self._threads.drain()
        handler = signal.getsignal(signal.SIGUSR1)
        try:
            self._threads.run(lambda has_work: None, lambda: None)
        finally:
            signal.signal(signal.SIGUSR1, handler)
        assert not self.held
        return self._sent()

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()
        self.server.close()
        self.outputs.close()
        self._writing.close()

    def frames(self) -> list[Any]:
        """What was sent so far: the outputs of each frame, or the type of an exception."""
        self.outbox.link.send(m.Bye("that was all"))
        frames: list[Any] = []
        position = FIRST
        while True:
            for message, payload in self.server.receive():
                match message:
                    case m.Results(start=start, count=count, buffers=buffers):
                        assert start == position
                        frames.append(unpack(payload, buffers))
                        assert len(frames[-1]) == count
                        position += count
                    case m.Failure(position=failed, error=error):
                        assert failed == position
                        frames.append(error.type)
                        position += 1
                    case m.Bye():
                        return frames

    def _sent(self) -> list[Any]:
        outcomes: list[Any] = []
        for frame in self.frames():
            outcomes += frame if isinstance(frame, list) else [frame]
        return outcomes


SEGMENT = list(range(FIRST + INPUTS))


@pytest.fixture
def container() -> Iterator[Container]:
    one = Container()
    yield one
    one.close()


def test_inputs_run_in_order_and_fail_alone(container: Container) -> None:
    def halve(x: int) -> int:
        if x % 100 == 0:
            raise ValueError(x)
        return x // 2

    expected = [x // 2 if x % 100 else "builtins.ValueError" for x in SEGMENT[FIRST:]]
    assert container.run(container.take(pack(SEGMENT, shape=BARE), halve)) == expected


def test_inputs_of_several_arguments_run_in_order(container: Container) -> None:
    segment = pack([(x, 2) for x in SEGMENT], shape=POSITIONAL)
    assert container.run(container.take(segment, pow)) == [x**2 for x in SEGMENT[FIRST:]]


def test_an_input_that_can_not_be_read_fails_alone(container: Container) -> None:
    segment = pack([Gone() if x == FIRST + 7 else x for x in SEGMENT], shape=BARE)
    outcomes = container.run(container.take(segment, abs))
    assert outcomes[7] == "upswell.errors.DeserializationError"
    assert outcomes[:7] + outcomes[8:] == [x for x in SEGMENT[FIRST:] if x != FIRST + 7]


class Gone:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_the_tail_is_taken_back_from_behind_the_input_that_runs(container: Container) -> None:
    def take_back(x: int) -> int:
        if x == FIRST + 100:
            assert work.give_back() == FIRST + 101
        return x

    work = container.take(pack(SEGMENT, shape=BARE), take_back)
    assert container.run(work) == SEGMENT[FIRST : FIRST + 101]


class Overtaken(Work):
    """One whose runner gets further when somebody has looked how far it is, before anything follows from that."""

    may_run_until = FIRST + 100
    looks = 0

    def _unstarted(self, is_next: bool) -> int:
        seen = super()._unstarted(is_next)
        self.looks += 1
        if self.looks <= 2:  # the second time it comes to the end as it was moved
            self.may_run_until = self.position + (3 if self.looks == 1 else 1)
            while self.position < self.may_run_until:
                pass
        return seen


def test_outputs_wait_for_company_as_they_were_when_they_were_made(container: Container) -> None:
    outputs: list[int] = []
    work = container.take(pack(SEGMENT, shape=BARE), abs)
    work.begin()
    work.gather_seconds = math.inf
    for count in range(3):
        outputs.append(count)
        work.outputs.append(outputs)
        container.outbox.gather_outputs(work)
    assert work.unsent == 3
    container.outbox.send_outputs(work)
    assert container.frames() == [[[0], [0, 1], [0, 1, 2]]]


def test_outputs_that_have_waited_for_long_are_sent(container: Container) -> None:
    work = container.take(pack(SEGMENT, shape=BARE), abs)
    work.begin()
    for waits in (math.inf, 0.0, math.inf):
        work.gather_seconds = waits
        work.outputs.append(waits)
        container.outbox.gather_outputs(work)
    assert (work.unsent, container.frames()) == (1, [[math.inf, 0.0]])


def test_large_outputs_and_those_that_can_not_be_sent_wait_for_nobody(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "GATHERED_BYTES", 1000)
    large, beside = bytes(1000), numpy.arange(100_000, dtype="u1")
    work = container.take(pack(SEGMENT, shape=BARE), abs)
    work.begin()
    work.gather_seconds = math.inf
    for output in (1, large, 2, threading.Lock(), 3, beside, 4):
        work.outputs.append(output)
        container.outbox.gather_outputs(work)
    *frames, last = container.frames()
    assert frames == [[1], [large], [2], "upswell.errors.SerializationError", [3]]
    assert work.unsent == 1 and numpy.array_equal(last[0], beside)


def test_the_outputs_of_a_group_do_not_wait() -> None:
    inputs = unpack_inputs(pack(SEGMENT, shape=BARE).data, None, len(SEGMENT))
    kinds = {call: Work(m.Assign(1, call, 0, 2, 0, 2), inputs) for call in ("fg-1", "fc-1")}
    assert (kinds["fg-1"].gather_seconds, kinds["fc-1"].gather_seconds) == (0.0, GATHER_SECONDS)


def test_who_takes_back_and_is_overtaken_agrees_with_the_runner_on_the_end(container: Container) -> None:
    run: list[int] = []
    begun = threading.Event()
    ends: list[int] = []

    def record(x: int) -> int:
        run.append(x)
        if x == FIRST + 100:
            begun.set()
        while not ends and x >= work.may_run_until:
            pass
        return x

    def take_back() -> None:
        begun.wait()
        ends.append(work.give_back())

    work = container.hold(Overtaken, pack(SEGMENT, shape=BARE), record)
    other = threading.Thread(target=take_back)
    other.start()
    outcomes = container.run(work)
    other.join()
    assert FIRST + 101 < ends[0] < FIRST + INPUTS
    assert outcomes == run == SEGMENT[FIRST : ends[0]]


class CancelledLate(Work):
    """One that has ended when its runner comes to hear that it is cancelled, and is held all the same."""

    has_ended = False

    @property
    def ended(self) -> bool:
        return self.has_ended

    @ended.setter
    def ended(self, now: bool) -> None:
        self.has_ended = now
        if now:
            self.verdict = CANCELLED
            signal.raise_signal(signal.SIGUSR1)


def test_who_is_cancelled_at_the_very_end_ends_no_container(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exit_at_once(status: int) -> None:
        raise AssertionError(f"it exits with status {status}")

    monkeypatch.setattr(os, "_exit", exit_at_once)
    executor = Executor(container.outbox.link, container.record, Service({"": Bound.of(abs)}))
    work = container.hold(CancelledLate, pack(SEGMENT, shape=BARE), abs)
    executor.held[work.range] = work
    executor._threads.submit(work)
    executor._threads.drain()
    handler = signal.getsignal(signal.SIGUSR1)
    executor.run(lambda has_work: None, lambda: None)
    signal.signal(signal.SIGUSR1, handler)
    assert work.verdict is CANCELLED
    assert not executor.held
    assert container._sent() == SEGMENT[FIRST:]


def delivered(container: Container) -> list[Any]:
    """The outputs that came by the shortcut, up to now."""
    container.outputs.setblocking(False)
    outputs: list[Any] = []
    try:
        while True:
            ((message, payload),) = Decoder().feed(container.outputs.recv(1 << 20))
            assert isinstance(message, m.Outputs)
            assert (message.call, message.first) == ("fc-1", FIRST + len(outputs))
            outputs += unpack(payload, None)
    except BlockingIOError:
        return outputs


def told(container: Container) -> list[tuple[bool, int]]:
    """What the server hears: of each frame of outputs whether they were delivered, and its payload's length."""
    container.outbox.link.send(m.Bye("that was all"))
    heard: list[tuple[bool, int]] = []
    while not heard or heard[-1] != (False, -1):
        for message, payload in container.server.receive():
            heard.append((message.delivered, len(payload)) if isinstance(message, m.Results) else (False, -1))
    return heard[:-1]


def run(container: Container, function: Callable[..., Any]) -> list[tuple[bool, int]]:
    container._threads.submit(container.hold(Work, pack(SEGMENT, shape=BARE), function, may_deliver=True))
    container._threads.drain()
    handler = signal.getsignal(signal.SIGUSR1)
    container._threads.run(lambda has_work: None, lambda: None)
    signal.signal(signal.SIGUSR1, handler)
    return told(container)


def test_outputs_go_straight_to_the_client_and_the_server_is_told(container: Container) -> None:
    heard = run(container, abs)
    assert heard
    assert set(heard) == {(True, 0)}
    assert delivered(container) == SEGMENT[FIRST:]


def test_large_outputs_go_by_the_server(container: Container) -> None:
    large = bytes(2 * shortcut.PACKET_BYTES)
    ((done, size),) = run(container, lambda x: large if x == FIRST else None)
    assert not done
    assert size > len(large)
    assert delivered(container) == []


def test_where_the_client_reads_too_slowly_the_rest_goes_by_the_server(container: Container) -> None:
    while shortcut.deliver(bytes(shortcut.PACKET_BYTES), container._writing.fileno()):
        pass
    heard = run(container, abs)
    assert heard
    assert all(not done and size > 0 for done, size in heard)
