"""What is to be done later is done in one thread, which is there while there is something to do."""

import threading
import time

import pytest

from upswell.container.later import Later


def runs() -> int:
    return sum(thread.name == "upswell-later" for thread in threading.enumerate())


def test_hundreds_of_calls_have_one_thread() -> None:
    later, done, seen = Later(), threading.Semaphore(0), list[int]()
    before = runs()

    def act(number: int) -> None:
        seen.append(number)
        done.release()

    for number in range(300):
        later.call(3600.0, act, number)
    later.call(0.01, act, 1000)  # which is sooner than what the thread waits for
    assert runs() == before + 1
    assert done.acquire(timeout=60)
    gate = threading.Event()

    def wait(_: None) -> None:
        gate.wait(60)

    later.call(0.0, wait, None)
    later.call(0.01, act, 1001)
    later.call(-3600.0, act, 999)  # which was due before
    gate.set()
    assert done.acquire(timeout=60) and done.acquire(timeout=60)
    assert seen == [1000, 999, 1001]


def test_the_thread_goes_and_another_comes() -> None:
    later, done = Later(), threading.Semaphore(0)
    before = runs()
    for _ in range(2):
        later.call(0.0, lambda _: done.release(), None)
        assert done.acquire(timeout=60)
        deadline = time.monotonic() + 60
        while runs() > before and time.monotonic() < deadline:
            threading.Event().wait(0.001)
        assert runs() <= before


def test_what_is_done_may_have_more_done() -> None:
    later, done = Later(), threading.Event()
    later.call(0.0, lambda _: later.call(0.0, lambda _: done.set(), None), None)
    assert done.wait(60)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_act_that_fails_does_not_keep_the_others_from_being_done() -> None:
    later, done = Later(), threading.Event()

    def fail(_: None) -> None:
        raise LookupError

    later.call(0.0, fail, None)
    later.call(0.01, lambda _: done.set(), None)
    assert done.wait(60)
