"""Which spawns travel together, with a peer at the other end of the connection who answers as the test says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pickle import PickleBuffer

import pytest

from upswell.errors import (
    ConnectionError,
    Error,
    ExecutionError,
    InvalidError,
    NotFoundError,
    ResourceExhaustedError,
)
from upswell.sdk import spawning
from upswell.sdk.client import Client
from upswell.sdk.collection import collection_of
from upswell.sdk.dual import run_async, run_sync
from upswell.sdk.spawning import GATHERED_BYTES, GROUP_INPUTS, Lane, Spawn
from upswell.wire import messages as m
from upswell.wire.channel import Channel
from upswell.wire.codec import Frame
from upswell.wire.payload import pack_inputs, unpack_inputs

LANE = ("ap-1/f", "", "")


class Desk:
    """A client, and the peer that it takes for a server."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.peer = Channel(theirs)
        self.channel = Channel(ours)
        self.client = Client(self.channel)
        self._frames: deque[Frame] = deque()
        assert isinstance(self.next(), m.Hello)

    def close(self) -> None:
        self.peer.shutdown()
        self.client.close()
        self.peer.close()

    def spawn(self, value: object, lane: Lane = LANE) -> Spawn:
        """As who blocks from now on in a thread of its own."""
        made = self.make(value, lane)
        self.client.spawning.leave(lane)
        return made

    def make(self, value: object, lane: Lane = LANE) -> Spawn:
        return self.client.spawning.add(pack_inputs([(value,)], {}), lane)

    def frame(self) -> Frame:
        while not self._frames:
            self._frames.extend(self.peer.receive())
        return self._frames.popleft()

    def next(self) -> m.Message:
        return self.frame()[0]

    def submitted(self) -> tuple[m.Submit, list[object]]:
        """The next frame, which brings inputs, and their arguments."""
        message, payload = self.frame()
        assert isinstance(message, m.Submit) and (message.first, message.last) == (0, True)
        inputs = unpack_inputs(payload, message.buffers, message.count)
        return message, [inputs.arguments(index)[0][0] for index in range(message.count)]

    def accept(self, message: m.Submit) -> None:
        self.peer.send(m.Accepted(message.call, 0, message.count))

    def refuse(self, message: m.Submit, kind: m.ErrorKind) -> None:
        self.peer.send(m.Refused(message.call, 0, message.count, m.ErrorRecord(kind, "", f"it is {kind}")))

    def nothing_more_came(self) -> None:
        """What was sent before has been read by now."""
        self.client.send(m.Uncollect("fc-marker"))
        assert self.next() == m.Uncollect("fc-marker")


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def error_of(made: Spawn) -> Error:
    run_sync(waited(made))
    assert isinstance(made.error, Error)
    return made.error


def call_of(made: Spawn) -> str:
    run_sync(waited(made))
    assert made.error is None
    return made.call


async def waited(made: Spawn) -> None:
    await made


def test_a_lone_one_leaves_at_once_as_a_call_of_its_own(desk: Desk) -> None:
    for value in (1, 2):
        made = desk.spawn(value)
        message, values = desk.submitted()
        assert (message.kind, message.count, values) == ("spawn", 1, [value])
        desk.accept(message)
        assert call_of(made) == message.call
        assert message.call.startswith("fc-")


def test_who_waits_for_a_lone_one_reads_for_itself(desk: Desk) -> None:
    read: list[str] = []  # by which thread
    move = desk.channel.move

    def moved(frames: deque[object]) -> None:
        read.append(threading.current_thread().name)
        move(frames)

    def answer() -> None:
        while desk.peer.wait() and (frames := desk.peer.receive()):
            for message, _ in frames:
                if isinstance(message, m.Submit):
                    desk.accept(message)

    desk.channel.move = moved  # type: ignore[method-assign]
    thread = threading.Thread(target=answer)
    thread.start()
    while len(read) < 50:  # else the reader has just woken up
        made = desk.make(1)
        run_sync(waited(made))
        assert call_of(made).startswith("fc-")
    assert set(read) == {threading.current_thread().name}
    desk.client.close()
    thread.join()


def test_an_answer_that_has_come_is_not_waited_for(desk: Desk) -> None:
    made = desk.spawn(1)
    desk.accept(desk.submitted()[0])
    call_of(made)
    assert made.group is not None
    assert desk.client._link._hand_over((made.group, made))


def test_the_answer_is_the_readers_while_another_thread_lets_others_leave(desk: Desk) -> None:
    made = desk.spawn(1)
    desk.submitted()
    assert made.group is not None
    moved: list[bool] = []
    with ThreadPoolExecutor(1) as threads:
        threads.submit(desk.client.spawning.leaving.acquire).result()
        assert not made.group.take_here(lambda: moved.append(True))
        threads.submit(desk.client.spawning.leaving.release).result()
    assert not moved
    assert made.group.take_here(lambda: moved.append(True))
    assert moved


def test_the_reader_reads_on_where_somebody_else_needs_it(desk: Desk) -> None:
    lone = desk.spawn(1)
    assert lone.group is not None
    assert not desk.client.read_for(lone.group, lone), "the reader is at it"
    other = desk.spawn(2, ("ap-1/g", "", ""))
    thread = threading.Thread(target=other.block)
    thread.start()
    while desk.client._link._successor is not None:  # until the thread waits
        os.sched_yield()
    for _ in range(2):
        desk.accept(desk.submitted()[0])
    thread.join()
    assert not desk.client._link._turns.is_open


def test_those_that_come_before_the_answer_leave_together_with_it(desk: Desk) -> None:
    made = [desk.spawn(value) for value in range(5)]
    first, _ = desk.submitted()
    desk.nothing_more_came()
    desk.accept(first)
    group, values = desk.submitted()
    assert (group.count, values, group.kind, group.parent) == (4, [1, 2, 3, 4], "spawn", "")
    assert not made[1].done
    desk.accept(group)
    name = group.call.removeprefix("fg-")
    assert [call_of(one) for one in made] == [first.call, *(f"fc-{name}-{position}" for position in range(4))]


def test_a_call_is_not_collected_while_this_program_spawns_it(desk: Desk) -> None:
    spawning_it = desk.client.open_inbox("fc-1", renewable=True)
    with pytest.raises(InvalidError, match="collect it once its spawn_map has returned"):
        collection_of(desk.client, "fc-1")
    spawning_it.close()
    assert collection_of(desk.client, "fc-1") is collection_of(desk.client, "fc-1")


def test_another_life_of_the_server_is_told_of_calls_that_may_get_more(desk: Desk) -> None:
    desk.client.attended.add("fc-1")
    desk.client._restarted()
    assert desk.next() == m.AttendCall("fc-1")


def test_those_of_one_turn_of_a_loop_leave_together_and_are_woken_together(desk: Desk) -> None:
    turns: list[list[object]] = []

    def answer() -> None:
        for _ in range(3):
            message, values = desk.submitted()
            turns.append(values)
            desk.accept(message)

    async def one(value: int) -> None:
        for _ in range(3):
            made = desk.make(value)
            await run_async(waited(made))
            assert made.error is None

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, range(50)))

    other = threading.Thread(target=answer)
    other.start()
    asyncio.run(all_of_them())
    other.join()
    assert turns == [list(range(50))] * 3


def test_a_loop_that_stands_still_holds_nobody_back(desk: Desk) -> None:
    loop = asyncio.new_event_loop()
    desk.make(1)
    desk.client.spawning.leave_after_turn(loop)
    desk.spawn(2)
    assert desk.submitted()[1] == [1, 2]
    loop.close()


@pytest.mark.parametrize("other", [("ap-1/g", "", ""), ("ap-1/f", "method", ""), ("ap-1/f", "", "in-1-0")])
def test_only_what_is_alike_travels_together(desk: Desk, other: Lane) -> None:
    desk.spawn(1)
    desk.spawn(2, other)
    (_, here), (message, there) = desk.submitted(), desk.submitted()
    assert (here, there) == ([1], [2])
    assert (message.function, message.method, message.parent) == other


def test_a_group_has_a_limit(desk: Desk) -> None:
    for value in range(GROUP_INPUTS + 3):
        desk.spawn(value)
    counts = []
    for _ in range(3):
        message, _ = desk.submitted()
        counts.append(message.count)
        desk.accept(message)
    assert counts == [1, GROUP_INPUTS, 2]


def test_a_group_of_large_ones_is_smaller(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "GROUP_BYTES", 2_000)
    for _ in range(5):
        desk.spawn("x" * 1_000)
    counts = []
    for _ in range(3):
        message, _ = desk.submitted()
        counts.append(message.count)
        desk.accept(message)
    assert counts == [1, 2, 2]


@pytest.mark.parametrize("value", ["x" * GATHERED_BYTES, PickleBuffer(bytes(1 << 20))], ids=["pickle", "buffer"])
def test_a_large_one_waits_for_nobody_and_nobody_for_it(desk: Desk, value: object) -> None:
    desk.spawn(1)
    desk.submitted()
    large = desk.spawn(value)
    message, _ = desk.submitted()
    assert message.count == 1
    desk.spawn(2)
    desk.accept(message)
    assert call_of(large) == message.call
    if message.buffers is not None:
        desk.peer.send(m.Release(message.buffers.descriptor))
    desk.nothing_more_came()


def test_a_refusal_is_everybodys_and_who_follows_leaves(desk: Desk) -> None:
    made = [desk.spawn(value) for value in range(3)]
    first, _ = desk.submitted()
    desk.refuse(first, "missing")
    group, _ = desk.submitted()
    made.append(desk.spawn(3))
    desk.refuse(group, "invalid")
    last, _ = desk.submitted()
    desk.accept(last)
    assert isinstance(error_of(made[0]), NotFoundError)
    for one in made[1:3]:
        assert isinstance(error_of(one), InvalidError)
    assert call_of(made[3]) == last.call


@pytest.mark.parametrize("kind", ["exhausted", "full"])
def test_where_there_is_no_room_for_all_there_may_be_for_some(desk: Desk, kind: m.ErrorKind) -> None:
    made = [desk.spawn(value) for value in range(4)]
    desk.accept(desk.submitted()[0])
    group, _ = desk.submitted()
    desk.client.spawning.give_up(made[2])
    assert desk.next() == m.Cancel(group.call, position=1)
    desk.refuse(group, kind)
    assert desk.next() == m.Cancel(group.call)
    (one, first), (other, second) = desk.submitted(), desk.submitted()
    assert (first, second) == ([1], [3])
    desk.refuse(one, kind)
    desk.accept(other)
    assert isinstance(error_of(made[1]), ResourceExhaustedError)
    assert call_of(made[3]) == other.call


def test_a_connection_that_is_lost_is_lost_for_all(desk: Desk) -> None:
    made = [desk.spawn(value) for value in range(3)]
    desk.submitted()
    desk.peer.shutdown()
    for one in made:
        assert isinstance(error_of(one), ConnectionError)
    assert isinstance(error_of(desk.spawn(3)), ConnectionError)


def test_who_gives_up_before_it_has_left_never_leaves(desk: Desk) -> None:
    made = [desk.spawn(value) for value in range(3)]
    desk.client.spawning.give_up(made[1])
    desk.accept(desk.submitted()[0])
    assert desk.submitted()[1] == [2]


def test_who_gives_up_later_is_cancelled_and_the_others_are_not(desk: Desk) -> None:
    made = [desk.spawn(value) for value in range(4)]
    first, _ = desk.submitted()
    desk.client.spawning.give_up(made[0])
    assert desk.next() == m.Cancel(first.call)
    desk.accept(first)
    group, _ = desk.submitted()
    assert desk.next() == m.Cancel(first.call)  # what came before it was accepted may have been in vain
    desk.accept(group)
    assert call_of(made[2])
    desk.client.spawning.give_up(made[2])
    assert desk.next() == m.Cancel(group.call, position=1)


# -- signals ---------------------------------------------------------------------------------------


def interrupted(act: Callable[[], object], when: Callable[[], bool], in_handler: Callable[[], object]) -> Exception:
    """What a signal handler meets that interrupts `act` in this thread, as soon as it is `when`."""
    met: list[Exception] = []
    main = threading.main_thread().ident or 0
    begun = threading.Event()

    def handle(*_: object) -> None:
        if begun.is_set():
            return
        begun.set()
        try:
            in_handler()
        except Exception as error:
            met.append(error)

    def interrupt() -> None:
        while not when():
            os.sched_yield()
        while not begun.is_set():  # one that comes just before the thread begins to wait runs no handler until it ends
            signal.pthread_kill(main, signal.SIGUSR1)
            begun.wait(0.05)

    before = signal.signal(signal.SIGUSR1, handle)
    other = threading.Thread(target=interrupt)
    other.start()
    act()
    other.join()
    signal.signal(signal.SIGUSR1, before)
    (error,) = met
    return error


def test_a_signal_handler_is_told_that_its_thread_is_sending(desk: Desk) -> None:
    """It would wait for ever for the frame that it has interrupted; nor is that torn."""
    refused = threading.Event()
    large = bytes(8 << 20)  # more than a socket holds, so that who sends it waits for the peer
    came: list[Frame] = []

    def read() -> None:
        refused.wait()
        came.extend(desk.frame() for _ in range(2))

    def handle() -> None:
        lone = desk.make(1)
        lone.block()
        assert isinstance(lone.error, ExecutionError)
        try:
            desk.client.send(m.CloseApp("ap-2"))
        finally:
            refused.set()

    reader = threading.Thread(target=read)
    reader.start()
    error = interrupted(lambda: desk.client.send(m.CloseApp("ap-1"), large), lambda: desk.peer.wait(0), handle)
    assert isinstance(error, ExecutionError) and "another thread" in str(error)
    desk.client.send(m.CloseApp("ap-3"))
    reader.join()
    assert [(message, len(payload)) for message, payload in came] == [
        (m.CloseApp("ap-1"), len(large)),
        (m.CloseApp("ap-3"), 0),
    ]


def test_nor_does_it_wait_for_a_spawn_that_would_follow_one_of_its_thread(desk: Desk) -> None:
    refused = threading.Event()
    spawning = desk.client.spawning

    def handle() -> None:
        try:
            desk.make(2).block()
        finally:
            refused.set()

    def read() -> None:
        refused.wait()
        assert desk.next() == m.CloseApp("ap-1")

    first = desk.make(1)
    sender = threading.Thread(target=desk.client.send, args=(m.CloseApp("ap-1"), bytes(8 << 20)))
    reader = threading.Thread(target=read)
    sender.start()
    reader.start()
    while not desk.peer.wait(0):
        pass  # until the connection is taken
    error = interrupted(lambda: spawning.leave(LANE), lambda: LANE in spawning._travelling, handle)
    assert isinstance(error, ExecutionError)
    sender.join()
    reader.join()
    submit, inputs = desk.submitted()
    assert inputs[0] == 1
    desk.accept(submit)
    first.block()
    assert first.done and first.error is None
