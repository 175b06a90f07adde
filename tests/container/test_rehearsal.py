"""A rehearsal plays a container's life to its end, and leaves nothing behind."""

import os
import signal
import threading

from upswell.container.rehearsal import rehearse
from upswell.sdk import context


def test_it_leaves_nothing_behind() -> None:
    def state() -> tuple[object, ...]:
        return (
            sorted(os.listdir("/proc/self/fd")),
            signal.getsignal(signal.SIGUSR1),
            threading.enumerate(),
            context.running.get(),
            context.server,
        )

    before = state()
    rehearse(3)
    assert state() == before
