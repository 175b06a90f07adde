"""A rehearsal plays a container's life to its end, and leaves nothing behind."""

import os
import signal
import threading

from upswell.container.rehearsal import rehearse
from upswell.sdk import context


def test_it_leaves_nothing_behind() -> None:
    def there() -> set[object]:
        return {*os.listdir("/proc/self/fd"), *threading.enumerate()}

    def state() -> tuple[object, ...]:
        return signal.getsignal(signal.SIGUSR1), context.running.get(), context.server

    before, had = state(), there()
    rehearse(3)
    assert state() == before
    assert there() <= had  # threads of others may end meanwhile
