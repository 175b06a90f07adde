"""Frames over a connection that breaks: whatever is lost on the way, each arrives once and in order."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upswell.wire import messages as m
from upswell.wire.codec import ProtocolError
from upswell.wire.delivery import CONFIRM_BYTES, CONFIRM_FRAMES, Delivery

STEPS = st.lists(st.sampled_from(["one sends", "other sends", "one takes", "other takes", "break"]), max_size=200)


class Side:
    """One of two that speak to one another, over a stream that may lose all that is on its way."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.sent = 0
        self.took: list[int] = []
        self.coming: deque[tuple[m.Message, bytes]] = deque()

    def send(self, other: "Side", message: m.Message, payload: bytes = b"") -> None:
        self.delivery.send(message, payload)
        other.coming.append((message, payload))

    def say(self, other: "Side", size: int) -> None:
        self.send(other, m.AppClosed(str(self.sent)), bytes(size))
        self.sent += 1

    def take(self, other: "Side") -> None:
        message, payload = self.coming.popleft()
        if (due := self.delivery.take(message, payload)) is not None:
            self.send(other, due)
        match message:
            case m.Received(count=count):
                self.delivery.confirm(count)
            case m.AppClosed(app=number):
                self.took.append(int(number))


def mend(one: Side, other: Side) -> None:
    """The stream is another one, and nothing is on its way."""
    one.coming.clear()
    other.coming.clear()
    heard, said = other.delivery.received, one.delivery.received
    other.coming.extend((message, bytes(payload)) for message, payload in one.delivery.resume(heard))
    one.coming.extend((message, bytes(payload)) for message, payload in other.delivery.resume(said))


@given(STEPS, st.sampled_from([0, 10, CONFIRM_BYTES // 3]))
def test_each_frame_arrives_once_and_in_order(steps: list[str], size: int) -> None:
    one, other = Side(), Side()
    for step in steps:
        match step:
            case "one sends":
                one.say(other, size)
            case "other sends":
                other.say(one, size)
            case "one takes" if one.coming:
                one.take(other)
            case "other takes" if other.coming:
                other.take(one)
            case "break":
                mend(one, other)
    mend(one, other)
    while one.coming:
        one.take(other)
    while other.coming:
        other.take(one)
    assert other.took == list(range(one.sent))
    assert one.took == list(range(other.sent))


def test_what_has_arrived_is_not_kept() -> None:
    one, other = Side(), Side()
    for _ in range(3 * CONFIRM_FRAMES):
        one.say(other, 100)
        other.take(one)
        while one.coming:
            one.take(other)
    assert one.delivery.bytes == 0
    one.say(other, CONFIRM_BYTES)
    assert one.delivery.bytes >= CONFIRM_BYTES
    other.take(one)
    one.take(other)
    assert one.delivery.bytes == 0


@pytest.mark.parametrize("count", [-1, 4])
def test_frames_that_were_never_sent_did_not_arrive(count: int) -> None:
    delivery = Delivery()
    for _ in range(3):
        delivery.send(m.AppClosed("ap-1"), b"")
    delivery.confirm(1)
    with pytest.raises(ProtocolError, match="3 were sent"):
        delivery.confirm(count)
    with pytest.raises(ProtocolError, match="3 were sent"):
        delivery.confirm(0)


def test_a_frame_that_was_not_sent_after_all_is_not_sent_again() -> None:
    side = Delivery()
    first, second = m.AppClosed("1"), m.AppClosed("2")
    side.send(first, b"one")
    side.send(second, b"two")
    side.withdraw(m.Bye("that counts for nothing"))
    side.withdraw(second)
    assert side.resume(0) == [(first, b"one")]
    side.confirm(1)
    assert side.bytes == 0
