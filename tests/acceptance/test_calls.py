"""What calls and maps promise, from programs as users write them."""

from .processes import SECONDS_TO_RUN, UPSWELL, Program

CALLS = """
    import asyncio, itertools, os, time
    import upswell
    from upswell import FunctionCall
    from upswell.exception import InvalidError, RemoteError, ResourceExhaustedError, SerializationError

    app = upswell.App("calls")

    @app.function()
    def square(x):
        return x * x

    @app.function()
    def nap(seconds):
        time.sleep(seconds)
        return seconds

    @app.function()
    def overtaken(x):
        \"\"\"Waits for the output of the other input.\"\"\"
        deadline = time.monotonic() + 60
        while x == 0 and not os.path.exists("kept") and time.monotonic() < deadline:
            time.sleep(0.01)
        return x

    @app.function()
    def size(data):
        return len(data)

    @app.function(max_containers=1)
    def tree(depth):
        return 1 + sum(tree.map([depth - 1] * 2)) if depth else 1

    @app.function(env={"COLOUR": "blue"})
    def colour():
        return os.environ["COLOUR"]

    @app.function(max_containers=1)
    def slow(x):
        time.sleep(300)

    @app.function(max_containers=1)
    def whoami(x):
        return os.getpid()

    @app.local_entrypoint()
    def spawning():
        one, two = square.spawn(3), square.spawn(4)
        print(one.get(), FunctionCall.gather(one, two), FunctionCall.from_id(two.object_id).get())
        call = square.spawn_map(range(5))
        print(list(call.iter()), call.num_inputs())

        async def some():
            return [one async for one in call.iter.aio(start=1, end=3)]

        print(asyncio.run(some()))
        long = nap.spawn(300)
        try:
            long.get(timeout=0)
        except TimeoutError:
            print("not ready")
        long.cancel()
        try:
            long.get(timeout=60)
        except RemoteError as error:
            print("cancelled" in str(error))

    @app.local_entrypoint()
    def nested():
        print(tree.remote(5))

    @app.local_entrypoint()
    def endless():
        pulled = 0
        def numbers():
            nonlocal pulled
            for pulled in itertools.count():
                yield pulled
        for result in square.map(numbers()):
            if result > 2500:
                break
        print(result, pulled <= 51 + 1000)

    @app.local_entrypoint()
    def large():
        print(size.remote(b"x" * 50_000_000))
        print(list(size.map([b"", b"x" * 50_000_000, b"yy"])))

    @app.local_entrypoint()
    def environment():
        assert "COLOUR" not in os.environ
        print(colour.remote())

    @app.local_entrypoint()
    async def exhausted():
        calls = [asyncio.ensure_future(slow.remote.aio(x)) for x in range(2_200)]
        done, rest = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION, timeout=60)
        print({type(one.exception()).__name__ for one in done})
        for one in rest:
            one.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    @app.local_entrypoint()
    def variants():
        print(list(square.starmap([(1,), (2,)])), list(square.map([])), square.for_each([1, 2]))
        outputs = iter(overtaken.map([0, 1], order_outputs=False))
        first = next(outputs)
        os.mkdir("kept")
        print(first, list(outputs))
        print(len(set(whoami.map(range(100)))))
        try:
            list(square.map([1, lambda: 0, 3]))
        except Exception as error:
            print(type(error).__name__)
        def failing():
            yield 1
            raise LookupError("the caller's own")
        results = square.map(failing(), return_exceptions=True)
        print(next(iter(results)))
        try:
            list(square.map(failing(), return_exceptions=True))
        except LookupError as error:
            print(error)
        for wrong in (lambda: square(3), lambda: list(map(square, [3]))):
            try:
                wrong()
            except TypeError as error:
                print(".remote" in str(error) or ".map" in str(error))
"""


def out(program: Program, name: str) -> list[str]:
    program.write(CALLS)
    done = program.upswell("run", f"program.py::{name}")
    assert (done.status, done.err) == (0, "")
    return done.lines


def test_spawn_gather_cancel(program: Program) -> None:
    assert out(program, "spawning") == ["9 [9, 16] 16", "[0, 1, 4, 9, 16] 5", "[1, 4]", "not ready", "True"]


def test_a_function_that_maps_over_itself_in_one_container(program: Program) -> None:
    assert out(program, "nested") == ["63"]


def test_an_endless_iterator_is_pulled_only_as_needed(program: Program) -> None:
    assert out(program, "endless") == ["2601 True"]


def test_inputs_of_50_megabytes(program: Program) -> None:
    assert out(program, "large") == ["50000000", "[0, 50000000, 2]"]


def test_environment_variables(program: Program) -> None:
    assert out(program, "environment") == ["blue"]


def test_pending_inputs_have_a_limit(program: Program) -> None:
    assert out(program, "exhausted") == ["{'ResourceExhaustedError'}"]


def test_the_kinds_of_map(program: Program) -> None:
    assert out(program, "variants") == [
        "[1, 4] [] None",
        "1 [0]",
        "1",
        "TypeError",
        "1",
        "the caller's own",
        "True",
        "True",
    ]


def test_sleeping_inputs_get_a_container_each(program: Program) -> None:
    """None ends before all have begun, and they take no processor time meanwhile."""
    program.write("""
        import os, pathlib, time, upswell

        app = upswell.App()
        folder = pathlib.Path("kept").absolute()

        @app.function()
        def meet(x):
            (folder / str(x)).touch()
            with open(folder / "door", "rb", buffering=0) as door:
                door.read(1)
            return x

        @app.local_entrypoint()
        def main():
            folder.mkdir()
            os.mkfifo(folder / "door")
            door = os.open(folder / "door", os.O_RDWR)
            call = meet.spawn_map(range(100))
            while len(list(folder.iterdir())) <= 100:
                time.sleep(0.05)
            os.write(door, bytes(100))
            print(list(call.iter()) == list(range(100)))
    """)
    assert program.upswell("run", "program.py").lines == ["True"]


def test_lines_of_containers_are_whole_and_labelled(program: Program) -> None:
    program.write("""
        import os, sys, time, upswell

        app = upswell.App()

        @app.function(min_containers=2, max_containers=2)
        def talk(x):
            print("here")
            while not os.path.exists("kept"):
                time.sleep(0.01)
            for number in range(300):
                print("out", x, number, "-" * 80)
                print("err", x, number, "=" * 80, file=sys.stderr)

        @app.local_entrypoint()
        def main():
            talk.for_each([1, 2])
    """)
    process = program.start([*UPSWELL, "run", "program.py"])
    assert process.stdout is not None
    assert all(process.stdout.readline().endswith("here\n") for _ in range(2))  # both were heard
    (program.folder / "kept").mkdir()
    out, err = process.communicate(timeout=SECONDS_TO_RUN)
    program.assert_all_gone()
    for text, word, rule in ((out, "out", "-"), (err, "err", "=")):
        lines = text.splitlines()
        said = [line[line.index(word) :] for line in lines]
        assert sorted(said) == sorted(f"{word} {x} {n} {rule * 80}" for x in (1, 2) for n in range(300))
        labels = {line[: line.index(word)] for line in lines}
        assert len(labels) == 2 and all("talk" in label for label in labels), labels


def test_a_single_container_needs_no_label(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App()

        @app.function()
        def talk():
            print("hello")
    """)
    done = program.upswell("run", "program.py")
    assert (done.out, done.err) == ("hello\n", "")


def test_maps_that_meet_the_limit_together(program: Program) -> None:
    program.write("""
        import threading, time, upswell

        app = upswell.App()

        @app.function(max_containers=2)
        def slow(x):
            time.sleep(0.001)
            return x

        @app.local_entrypoint()
        def main():
            def go(number):
                results[number] = list(slow.map(range(900)))

            results = {}
            threads = [threading.Thread(target=go, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print([results.get(number) == list(range(900)) for number in range(4)])
    """)
    done = program.upswell("run", "program.py")
    assert (done.status, done.out, done.err) == (0, f"{[True] * 4}\n", "")
