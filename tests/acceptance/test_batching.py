"""Inputs that run together, as lists: when a batch is formed, and what becomes of each of its inputs.

Where a batch must be full it may wait for its inputs for longer than any machine takes to send them.
"""

from .processes import Program

BATCHED = """
    import asyncio, os, pathlib, time
    import upswell
    from upswell.exception import FunctionTimeoutError, InvalidError, RemoteError

    app = upswell.App("batched")

    LONG_MS = 60_000

    def until(condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @app.function(max_containers=1)
    @upswell.batched(max_batch_size=8, wait_ms=100)
    def sizes(xs):
        until(lambda: os.path.exists("kept"))
        return [len(xs)] * len(xs)

    @app.function(max_containers=1)
    @upswell.batched(max_batch_size=8, wait_ms=LONG_MS)
    def full_sizes(xs):
        return [len(xs)] * len(xs)

    @app.function()
    @upswell.batched(max_batch_size=4, wait_ms=20)
    async def add(xs, ys, scale=1):
        await asyncio.sleep(0.01)
        return [(x + y) * s for x, y, s in zip(xs, ys, scale)]

    @app.function()
    @upswell.batched(max_batch_size=3, wait_ms=LONG_MS)
    def short(xs):
        return xs[:-1]

    @app.function()
    @upswell.batched(max_batch_size=3, wait_ms=LONG_MS)
    def no_list(xs):
        return sum(xs)

    @app.function(retries=upswell.Retries(max_retries=1, initial_delay=0.0))
    @upswell.batched(max_batch_size=3, wait_ms=LONG_MS)
    def flaky(xs, folder):
        tries = len(os.listdir(folder[0]))
        pathlib.Path(folder[0], f"{tries}-of-{len(xs)}").touch()
        if tries == 0:
            raise OSError("again")
        return xs

    @app.function(max_containers=1)
    @upswell.batched(max_batch_size=3, wait_ms=300)
    def deadly(xs, folder):
        if not (first := pathlib.Path(folder[0], "first")).exists():
            first.touch()
            os._exit(3)
        return xs

    @app.function(timeout=2)
    @upswell.batched(max_batch_size=2, wait_ms=LONG_MS)
    def slow(xs):
        time.sleep(max(xs))
        return xs

    @app.function()
    @upswell.batched(max_batch_size=2, wait_ms=LONG_MS)
    def held(xs):
        os.mkdir("kept")
        until(lambda: os.path.exists("kept/go"))
        return xs

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=2)
    @upswell.batched(max_batch_size=2, wait_ms=LONG_MS)
    async def pairs(xs):
        \"\"\"The first batch waits for another beside it.\"\"\"
        global now, most
        now += 1
        most = max(most, now)
        if most == 2:
            together.set()
        await asyncio.wait_for(together.wait(), 60)
        await asyncio.sleep(0.01)
        now -= 1
        return [(len(xs), most)] * len(xs)

    now = most = 0
    together = asyncio.Event()

    @app.local_entrypoint()
    def full():
        call = sizes.spawn_map(range(40))
        os.mkdir("kept")  # now all are there, of which some wait in a batch and perhaps in the next
        seen = list(call.iter())
        print(len(seen), max(seen), sum(1 for size in seen if size == 8) >= 24)
        began = time.monotonic()
        print(sizes.remote(1), time.monotonic() - began >= 0.1)

    @app.local_entrypoint()
    async def several():
        print(await asyncio.gather(*(full_sizes.remote.aio(x) for x in range(8))))
        print(await asyncio.gather(add.remote.aio(1, 2), add.remote.aio(3, ys=4), add.remote.aio(5, 6, scale=2)))
        results = await asyncio.gather(add.remote.aio(1, 2), add.remote.aio(1), return_exceptions=True)
        print(results[0], type(results[1]).__name__)

    @app.local_entrypoint()
    def wrong():
        for function in (short, no_list):
            for error in function.map([1, 2, 3], return_exceptions=True):
                print(type(error).__name__, error)

    @app.local_entrypoint()
    def failing(folder: str):
        os.makedirs(os.path.join(folder, "flaky"))
        os.makedirs(os.path.join(folder, "deadly"))
        print(list(flaky.map([1, 2, 3], kwargs={"folder": folder + "/flaky"})), sorted(os.listdir(folder + "/flaky")))
        print(list(deadly.map([1, 2, 3], kwargs={"folder": folder + "/deadly"})))
        print([type(one).__name__ for one in slow.map([30, 0], return_exceptions=True)], list(slow.map([0, 0])))

    @app.local_entrypoint()
    def concurrently():
        seen = list(pairs.map(range(20)))
        print(max(size for size, _ in seen), max(most for _, most in seen))

    @app.local_entrypoint()
    def cancelled():
        one, other = held.spawn(1), held.spawn(2)
        until(lambda: os.path.exists("kept"))
        one.cancel()
        try:
            one.get(timeout=60)
        except RemoteError as error:
            print("cancelled" in str(error))
        open("kept/go", "w").close()
        print(other.get(timeout=60))
"""


def out(program: Program, name: str, *arguments: str, told: str = "") -> list[str]:
    program.write(BATCHED)
    done = program.upswell("run", f"program.py::{name}", *arguments)
    assert (done.status, done.err) == (0, told)
    return done.lines


def test_batches_are_full_under_load_and_wait_a_while_otherwise(program: Program) -> None:
    assert out(program, "full") == ["40 8 True", "1 True"]


def test_inputs_of_several_calls_share_a_batch(program: Program) -> None:
    assert out(program, "several") == ["[8, 8, 8, 8, 8, 8, 8, 8]", "[3, 7, 22]", "3 TypeError"]


def test_what_is_returned_must_fit(program: Program) -> None:
    must = "is batched: called with 3 inputs it must return a list of 3, one output for each, and it returned"
    assert out(program, "wrong") == [
        *[f"InvalidError short {must} one of 2"] * 3,
        *[f"InvalidError no_list {must} int"] * 3,
    ]


def test_a_batch_fails_together_and_is_tried_again(program: Program) -> None:
    told = "upswell: a container of deadly died, and what it ran is tried again: exited with status 3\n"
    assert out(program, "failing", "--folder", "kept", told=told) == [
        "[1, 2, 3] ['0-of-3', '1-of-3']",
        "[1, 2, 3]",
        "['FunctionTimeoutError', 'FunctionTimeoutError'] [0, 0]",
    ]


def test_a_container_may_run_several_batches(program: Program) -> None:
    assert out(program, "concurrently") == ["2 2"]


def test_one_of_a_batch_is_cancelled_and_the_other_goes_on(program: Program) -> None:
    assert out(program, "cancelled") == ["True", "2"]
