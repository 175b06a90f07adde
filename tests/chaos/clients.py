"""The programs that go on calling: each ends with status 1 at the first wrong answer, else when a file tells it to."""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import upswell
import upswell.exception

STOP = Path(os.environ["CHAOS_FOLDER"]) / "stop"
JOURNAL = Path(os.environ["CHAOS_FOLDER"]) / "journal"
SECONDS_TO_ARRIVE = 30.0
UNLUCKY = "died 3 times in a row"


def rounds(seed: int) -> Iterator[random.Random]:
    """Chances, until the end is near."""
    chance = random.Random(seed)
    while not STOP.exists():
        yield chance


def check(right: bool, what: object) -> None:
    """End the program where something is wrong."""
    if not right:
        print(f"WRONG: {what}", file=sys.stderr)
        sys.exit(1)


RIGHT: dict[str, Callable[[int], int]] = {
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "outer": lambda x: x**2 + 1,
}


def is_answer(name: str, x: int, given: object) -> bool:
    """Whether this may come of the input: the right output, or that its containers were killed three times in a row."""
    return given == RIGHT[name](x) or (isinstance(given, upswell.exception.RemoteError) and UNLUCKY in str(given))


def are_answers(name: str, count: int, given: Sequence[object], first: int = 0) -> bool:
    """Whether these may be the outcomes of so many inputs, from that one on."""
    return len(given) == count and all(is_answer(name, x, one) for x, one in enumerate(given, first))


def outcome(get: Callable[..., object], *args: int, **kwargs: int) -> object:
    """What it returns, or the failure that it raises."""
    try:
        return get(*args, **kwargs)
    except upswell.exception.RemoteError as error:
        return error


def mapping(seed: int) -> None:
    """Maps in order: each result once, none left out."""
    for chance in rounds(seed):
        name, count = chance.choice(list(RIGHT)), chance.choice([1, 30, 300])
        function = upswell.Function.from_name("chaos", name)
        given = list(function.map(range(count), return_exceptions=True, wrap_returned_exceptions=False))
        check(are_answers(name, count, given), f"{name}.map(range({count})) gave {given[:50]}")


def remote(seed: int) -> None:
    """Single calls."""
    function = upswell.Function.from_name("chaos", "cube")
    for chance in rounds(seed):
        x = chance.randrange(1000)
        check(is_answer("cube", x, outcome(function.remote, x)), f"cube({x})")


def spawning(seed: int) -> None:
    """Calls that outlive this program: each is noted once it is accepted, and looked up at the end."""
    for chance in rounds(seed):
        name, count = chance.choice([("square", 1), ("square", 2500), ("cube", 1), ("cube", 20)])
        call = upswell.Function.from_name("chaos", name).spawn_map(range(count))
        note(call.object_id, name, 0, count)
        time.sleep(0.1)  # else there is soon more than can be done


def alone(seed: int) -> None:
    """The same with calls of one input that are made one by one: they go by a spool."""
    for chance in rounds(seed):
        name = chance.choice(["square", "cube"])
        function = upswell.Function.from_name("chaos", name)
        for x in range(chance.choice([1, 50, 50])):
            note(function.spawn(x).object_id, name, x, 1)
        time.sleep(chance.choice([0.05, 0.5]))


def note(call: str, name: str, first: int, count: int) -> None:
    """The call was accepted, with so many inputs from `first` on."""
    line = json.dumps([call, name, first, count]) + "\n"
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def collecting() -> None:
    """At the end: the results of every call that was accepted."""
    lines = JOURNAL.read_text().splitlines() if JOURNAL.exists() else []
    inputs = 0
    for line in lines:
        name, function, first, count = json.loads(line)
        call: upswell.FunctionCall[int] = upswell.FunctionCall.from_id(name)
        given: Sequence[object]
        try:
            given = list(call.iter())
        except upswell.exception.RemoteError:
            given = [outcome(call.get, index=index) for index in range(count)]
        check(are_answers(function, count, given, first), f"{name}, {function} of {count}: {given[:50]}")
        inputs += count
    print(f"{len(lines)} spawned calls with {inputs} inputs are complete")


def arrive() -> None:
    """Begin with a server that answers: one that is just started again may not yet."""
    deadline = time.monotonic() + SECONDS_TO_ARRIVE
    while True:
        try:
            upswell.Function.from_name("chaos", "square").get_current_stats()
        except upswell.exception.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    role = sys.argv[1]
    arrive()
    if role == "collecting":
        collecting()
    else:
        {"mapping": mapping, "remote": remote, "spawning": spawning, "alone": alone}[role](int(sys.argv[2]))
