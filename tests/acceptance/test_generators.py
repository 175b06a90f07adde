"""Generators: values arrive while they are made, never too many ahead, and the generator ends when nobody listens."""

from .processes import Program

GENERATORS = """
    import asyncio, os, pathlib, time
    import upswell
    from upswell.exception import FunctionTimeoutError, InvalidError, RemoteError, SerializationError

    app = upswell.App("generators")

    @app.function()
    def count(stop, seconds=0.0, folder=""):
        try:
            for number in range(stop):
                if folder:
                    with open(os.path.join(folder, "made"), "ab") as made:
                        made.truncate(number + 1)
                yield number
                time.sleep(seconds)
        finally:
            if folder:
                pathlib.Path(folder, "closed").touch()

    @app.function()
    def held(folder):
        yield "first"
        until(pathlib.Path(folder, "got").exists)
        yield pathlib.Path(folder, "got").exists()

    @app.function()
    async def count_async(stop, seconds=0.0, folder=""):
        try:
            for number in range(stop):
                yield number
                await asyncio.sleep(seconds)
        finally:
            if folder:
                pathlib.Path(folder, "closed").touch()

    @app.function()
    def broken():
        yield 1
        yield 2
        raise LookupError("at three")

    @app.function()
    def reused():
        row = []
        for number in range(3):
            row.append(number)
            yield row

    @app.function()
    def unpicklable():
        yield 1
        yield 2
        yield (lock for lock in [1])

    @app.function()
    def large():
        for number in range(40):
            yield bytes([number]) * 5_000_000

    @app.function()
    def dies(folder, after):
        if pathlib.Path(folder, "tried").exists() and not after:
            yield from range(3)
            return
        pathlib.Path(folder, "tried").touch()
        yield from range(after)
        if after:
            until(pathlib.Path(folder, "seen").exists)
        os._exit(5)

    @app.function(timeout=2)
    def stuck():
        yield 1
        time.sleep(30)

    @app.function(timeout=2)
    def steady(stop):
        yield from range(stop)

    @app.function(max_containers=1)
    def doubled(depth):
        if depth:
            for number in doubled.remote_gen(depth - 1):
                yield 2 * number
        else:
            yield from range(5000)

    def until(condition):
        deadline = time.monotonic() + 45
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        return condition()

    @app.local_entrypoint()
    def plain():
        print(list(count.remote_gen(5)), list(count.remote_gen(0)), sum(count.remote_gen(8_000)))
        print(list(count_async.remote_gen(5)), sum(count_async.remote_gen(8_000)))
        print(list(reused.remote_gen()))
        print([len(value) for value in large.remote_gen()] == [5_000_000] * 40)
        os.mkdir("kept")
        values = held.remote_gen("kept")
        print(next(values))
        pathlib.Path("kept", "got").touch()
        print(list(values))

    @app.local_entrypoint()
    def never_begun():
        import numpy

        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        before = descriptors()
        for _ in range(5):
            count.remote_gen(numpy.zeros(100_000))
        print(descriptors() - before)

    @app.local_entrypoint()
    async def asynchronous():
        print([x async for x in count.remote_gen.aio(5)], [x async for x in count_async.remote_gen.aio(5)])

    @app.local_entrypoint()
    def errors():
        seen = []
        try:
            for value in broken.remote_gen():
                seen.append(value)
        except LookupError as error:
            print(seen, error)
        seen = []
        try:
            for value in unpicklable.remote_gen():
                seen.append(value)
        except SerializationError as error:
            print(len(seen), "of unpicklable can't be sent" in str(error))
        for wrong in (lambda: count.remote(1), lambda: count.spawn(1), lambda: list(count.map([1]))):
            try:
                wrong()
            except InvalidError as error:
                print(".remote_gen" in str(error))
        try:
            steady.local(1)
            doubled.remote_gen
            plain_function.remote_gen()
        except InvalidError as error:
            print(error)

    @app.function()
    def plain_function():
        return 1

    @app.local_entrypoint()
    def closing(folder: str):
        for function in (count, count_async):
            place = os.path.join(folder, function.name)
            os.makedirs(place)
            closed = pathlib.Path(place, "closed")
            for value in function.remote_gen(10**9, folder=place):
                if value == 20:
                    break
            print(value, until(closed.exists))
            closed.unlink()
            values = function.remote_gen(10**9, folder=place, seconds=0.05)
            print(next(values))
            values.close()
            print(until(closed.exists))

    @app.local_entrypoint()
    def ahead(folder: str):
        os.makedirs(folder)
        def made():
            return os.path.getsize(os.path.join(folder, "made"))
        values = count.remote_gen(10**9, folder=folder)
        next(values)
        print(until(lambda: made() > 900))
        for other in count.remote_gen(20_000):  # time enough for many more
            pass
        print(made() <= 1001)
        for value in values:
            if value > 6000:
                break
        values.close()
        print(until(pathlib.Path(folder, "closed").exists))

    @app.local_entrypoint()
    def deaths(folder: str):
        os.makedirs(folder)
        print(list(dies.remote_gen(folder, 0)))
        seen = []
        try:
            for value in dies.remote_gen(folder, 2):
                seen.append(value)
                if value == 1:
                    pathlib.Path(folder, "seen").touch()
        except RemoteError as error:
            print(seen, error)

    @app.local_entrypoint()
    def late():
        seen = []
        try:
            for value in stuck.remote_gen():
                seen.append(value)
        except FunctionTimeoutError as error:
            print(seen, error)
        taken = 0
        for value in steady.remote_gen(3000):
            taken += 1
            if value in (10, 1500):
                time.sleep(2.5)  # its consumer's time is not the generator's
        print(taken)

    @app.local_entrypoint()
    def nested():
        print(sum(doubled.remote_gen(3)) == 8 * sum(range(5000)))
"""


def out(program: Program, name: str, *arguments: str, told: str = "") -> list[str]:
    program.write(GENERATORS)
    done = program.upswell("run", f"program.py::{name}", *arguments)
    assert (done.status, done.err) == (0, told)
    return done.lines


def test_values_stream(program: Program) -> None:
    assert out(program, "plain") == [
        "[0, 1, 2, 3, 4] [] 31996000",
        "[0, 1, 2, 3, 4] 31996000",
        "[[0], [0, 1], [0, 1, 2]]",
        "True",
        "first",
        "[True]",
    ]


def test_values_stream_into_async_for(program: Program) -> None:
    assert out(program, "asynchronous") == ["[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]"]


def test_an_exception_comes_after_the_values_before_it(program: Program) -> None:
    assert out(program, "errors") == [
        "[1, 2] at three",
        "2 True",
        "True",
        "True",
        "True",
        "plain_function is no generator: use plain_function.remote(...), not .remote_gen",
    ]


def test_leaving_the_loop_closes_the_generator(program: Program) -> None:
    assert out(program, "closing", "--folder", "kept") == ["20 True", "0", "True"] * 2


def test_a_generator_is_not_too_far_ahead(program: Program) -> None:
    assert out(program, "ahead", "--folder", "kept") == ["True", "True", "True"]


def test_a_generator_is_not_begun_again_half_way(program: Program) -> None:
    told = "upswell: a container of dies died, and what it ran is tried again: exited with status 5\n"
    whole, part = out(program, "deaths", "--folder", "kept", told=told)
    assert whole == "[0, 1, 2]"
    assert part.startswith("[0, 1]") and "after 2 values were passed on" in part and "status 5" in part


def test_a_generator_has_a_time_limit_that_its_consumer_does_not_use_up(program: Program) -> None:
    assert out(program, "late") == ["[1] the input ran longer than timeout=2 s", "3000"]


def test_generators_that_consume_generators_in_one_container(program: Program) -> None:
    assert out(program, "nested") == ["True"]


def test_a_generator_that_is_never_begun_keeps_nothing(program: Program) -> None:
    assert out(program, "never_begun") == ["0"]
