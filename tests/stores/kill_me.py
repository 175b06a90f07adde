"""A process that writes as fast as it can and says on standard output what is kept, until it is killed."""

import random
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from upswell import store as s
from upswell.errors import Error
from upswell.store import Kept, Outcome
from upswell.stores.sqlite import SqliteStore

IN_FLIGHT = 20


def main(home: Path, seed: int) -> None:
    calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
    store = SqliteStore(home, calls.put, lambda error: sys.exit(str(error)), calls.put)
    chance = random.Random(seed)
    open_calls = deque((call.id, call.submitted) for call in store.load().calls)
    number, in_flight = len(store.calls(1_000_000)), 0

    def said(text: str) -> Callable[[Error | None], None]:
        def answer(error: Error | None) -> None:
            nonlocal in_flight
            assert error is None, error
            in_flight -= 1
            print(text, flush=True)

        return answer

    while True:
        wanted = chance.choice((1, IN_FLIGHT))  # one alone may be written by this thread
        while in_flight < wanted:
            in_flight += 1
            if len(open_calls) < 10 or chance.random() < 0.5:
                name, count = f"fc-{number}", chance.randint(1, 50)
                number += 1
                payload = bytes([number % 256]) * chance.randint(1, 20_000)
                writes: list[s.Write] = [s.OpenCall(name, "f", "spawn", 0.0)]
                store.offer(
                    [*writes, s.PutInputs(name, 0, count, True, Kept(payload))], said(f"accepted {name} {count}")
                )
                open_calls.append((name, count))
            else:
                name, count = open_calls.popleft()
                outcomes = [s.PutOutcome(name, Outcome(at, 1, Kept(b"output" * at))) for at in range(count)]
                done = partial(said(f"settled {name} {count}"), None)
                store.commit([*outcomes, s.DropInputs(name, 0), s.FinishCall(name, 1.0)], done)
        calls.get()()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
