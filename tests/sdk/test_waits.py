"""Who waits in plain code: for how long, and what ends it."""

import _thread
import socket
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from upswell.sdk import dual
from upswell.sdk.client import Client
from upswell.sdk.dual import Wait, run_sync
from upswell.sdk.pump import Pump, background_loop
from upswell.wire.channel import Channel


def test_ctrl_c_is_heard_though_it_interrupted_no_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it came a moment before there was one: the handler has run, and nothing else has noticed."""
    monkeypatch.setattr(dual, "HEARING_SECONDS", 0.01)
    wait = Wait()

    def interrupt() -> None:
        while wait._lock is None:
            pass
        _thread.interrupt_main()

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        wait.block()
    other.join()


def test_a_wait_ends_with_its_time_or_with_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual, "HEARING_SECONDS", 0.01)
    for timeout in (-1.0, 0.0, 0.005, 0.025):
        wait = Wait(timeout)
        wait.block()
        assert not wait.done
    for patience in (None, 60.0, 1e300):
        wait = Wait(patience)
        other = threading.Thread(target=wait.set)
        other.start()
        wait.block()
        assert wait.done
        other.join()


def test_an_input_that_comes_just_before_somebody_sleeps_wakes_them() -> None:
    async def one() -> AsyncIterator[int]:
        yield 1

    ours, theirs = socket.socketpair()
    client = Client(Channel(ours))
    inbox = client.open_inbox("fc-1")
    pump = Pump(one(), inbox, background_loop())
    while not pump.has_items_of(2):
        pass
    assert run_sync(inbox.sleep(60, unless=partial(pump.has_items_of, 2)))
    assert pump.take(2)[0] == [1]
    theirs.close()
    client.close()
