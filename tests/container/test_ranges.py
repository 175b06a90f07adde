"""A range that runs while its tail is taken back: every input is run once, here or where the tail goes."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from upswell.container.link import Link
from upswell.container.outbox import Outbox
from upswell.container.service import Bound
from upswell.container.threads import Threads
from upswell.container.work import Work
from upswell.spec import Environment, FunctionRecord, FunctionSpec
from upswell.wire import messages as m
from upswell.wire.channel import Channel
from upswell.wire.payload import BARE, POSITIONAL, Packed, pack, unpack, unpack_inputs

W = TypeVar("W", bound=Work)

INPUTS = 400
FIRST = 50  # of the range, in a segment of so many more


class Container:
    """The runner of a container in this thread, and the server's end of its connection."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        link = Link("unix:nowhere", "token", 0.0)
        self._channel = Channel(ours)
        link._begin(self._channel)
        environment = Environment(kind="module", origin="", module="", main=False, sys_path=(), directory="/")
        record = FunctionRecord(id="ap/f", app_name="app", name="f", spec=FunctionSpec(), environment=environment)
        self.held: dict[int, Work] = {}
        self.outbox = Outbox(link, self.held, False)
        self.server = Channel(theirs)
        self._threads = Threads(record, self.held, self.outbox, lambda work: None, main=True)

    def take(self, packed: Packed, function: Callable[..., Any]) -> Work:
        """Hold a range of the segment."""
        return self.hold(Work, packed, function)

    def hold(self, kind: type[W], packed: Packed, function: Callable[..., Any]) -> W:
        """The same, of a certain kind."""
        assign = m.Assign(1, "fc-1", 0, FIRST + INPUTS, FIRST, FIRST + INPUTS)
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

    def _sent(self) -> list[Any]:
        self.outbox.link.send(m.Bye("that was all"))
        outcomes: list[Any] = []
        while True:
            for message, payload in self.server.receive():
                match message:
                    case m.Results(start=start):
                        assert start == FIRST + len(outcomes)
                        outcomes += unpack(payload)
                    case m.Failure(position=position, error=error):
                        assert position == FIRST + len(outcomes)
                        outcomes.append(error.type)
                    case m.Bye():
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
