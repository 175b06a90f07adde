"""The functions that peers run: the same as upswell's in each measure, in a module that imports nothing of upswell."""

import os
import random
import time
from typing import Any

SHORT_SECONDS, LONG_SECONDS = 0.002, 0.1
SPIN_SECONDS = 0.01


def noop(x: Any) -> Any:
    return x


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def spin(x: int) -> int:
    """Use 10 ms of CPU time, however long that takes."""
    end = time.thread_time() + SPIN_SECONDS
    while time.thread_time() < end:
        pass
    return x


def double(array: Any) -> Any:
    return array * 2


def process_id(_: int) -> int:
    """Return who ran this, slowly enough that everybody gets a turn."""
    time.sleep(0.01)
    return os.getpid()


def skewed(shuffled: bool) -> list[float]:
    """Return 1,980 short naps and 20 long ones: the long ones last, or all in a fixed random order."""
    naps = [SHORT_SECONDS] * 1_980 + [LONG_SECONDS] * 20
    if shuffled:
        random.Random(1).shuffle(naps)
    return naps
