"""What a map promises where it is hard: odd inputs, odd outputs, failing iterators, threads and loops."""

import sys

from .processes import Program

MAPS = """
    import asyncio, collections, gc, itertools, os, sqlite3, threading, time
    import upswell
    from upswell.exception import DeserializationError, InvalidError, SerializationError

    app = upswell.App("maps")

    class Stays:
        def __reduce__(self):
            return leave, ()

    def leave():
        assert not upswell.is_local(), "stays where it is"
        return Stays()

    @app.function(max_containers=2)
    def same(x):
        return x

    @app.function()
    def join(*parts, sep=""):
        return sep.join(map(str, parts))

    @app.function()
    def odd(x):
        return Stays() if x % 3 == 2 else x

    def told(outputs):
        seen = []
        try:
            for output in outputs:
                seen.append(output)
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}"[:60])
        return seen

    @app.local_entrypoint()
    def inputs():
        print(told(same.map([0, 1, threading.Lock(), 3]))[:2], told(same.map([0, threading.Lock()]))[-1][:28])
        print(len(told(same.map(itertools.chain(range(3000), [threading.Lock()])))))
        print(told(join.starmap([(1,), [1, 2], "abc", 5, (6,)], kwargs={"sep": "-"})))
        def failing():
            yield from range(100)
            raise LookupError("the caller's own")
        print(len(told(same.map(failing()))), told(same.map(failing(), order_outputs=False))[-1])
        cursor = lambda: sqlite3.connect(":memory:").execute("select 1 union select 2")
        print(told(same.map(same.map(cursor()))), told(join.map(cursor(), letters())))
        print(sum(same.map(same.map(same.map(range(3000))))))

    async def letters():
        for letter in "abc":
            await asyncio.sleep(0)
            yield letter

    @app.local_entrypoint()
    def outputs():
        print(told(odd.map(range(6))))
        mixed = list(odd.map(range(6), return_exceptions=True))
        print([type(one).__name__ for one in mixed], str(mixed[5])[:61])
        again = same.map([1])
        print(told(again), told(again))

    @app.local_entrypoint()
    def ahead():
        pulled = 0
        async def endless():
            nonlocal pulled
            while True:
                pulled += 1
                yield pulled
        for output in same.map(endless()):
            if output == 2500:
                time.sleep(0.2)
                break
        print(pulled - output <= 1000)
        async def main():
            async for output in same.map.aio(endless()):
                if output >= 2500:
                    await asyncio.sleep(0.2)
                    return pulled - output <= 1000
        pulled = 0
        print(asyncio.run(main()))

    @app.local_entrypoint()
    def brisk():
        pulled = furthest = 0
        def endless():
            nonlocal pulled
            while True:
                pulled += 1
                yield pulled
        for output in same.map(endless()):
            furthest = max(furthest, pulled - output)
            if output == 50_000:
                break
        print(furthest <= 2000, furthest)
        failing = iter(same.map(itertools.chain(range(30_000), (1 / 0 for _ in range(1)))))
        print(collections.Counter(map(type, told(failing)))[int])
        unpicklable = itertools.chain(range(30_123), [threading.Lock()], range(5))
        print(told(same.map(unpicklable))[-1][:32])

    @app.local_entrypoint()
    def threads():
        sums = []
        def one(first):
            sums.append(sum(same.map(range(first, first + 10_000))))
        def another():
            sums.append(asyncio.run(asynchronous()))
        async def asynchronous():
            maps = [collect(same.map.aio(range(1000))) for _ in range(4)]
            return sum(await asyncio.gather(*maps))
        async def collect(outputs):
            return sum([output async for output in outputs])
        targets = [lambda first=first: one(first) for first in range(5)] + [another, another]
        threads = [threading.Thread(target=target) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = [sum(range(first, first + 10_000)) for first in range(5)] + [4 * sum(range(1000))] * 2
        print(sorted(sums) == sorted(expected))
        outputs = iter(same.map(itertools.count()))
        next(outputs)
        closing = threading.Thread(target=outputs.close)
        closing.start()
        closing.join()
        print(list(outputs), same.remote(3))
        outputs = iter(same.map(range(5000)))
        taken = [next(outputs) for _ in range(2100)]
        outputs.close()
        print(list(outputs), same.remote(4))

    @app.function(max_containers=1)
    def wait_at_the_end(x):
        until = time.monotonic() + 60
        while x == 40 and not os.path.exists("seen") and time.monotonic() < until:
            time.sleep(0.01)
        return x if x < 40 else os.path.exists("seen")

    @app.local_entrypoint()
    def hostage():
        for output in wait_at_the_end.map(range(41)):
            if output == 39:
                open("seen", "w").close()
        print(output)
        os.remove("seen")
"""


def out(program: Program, name: str) -> list[str]:
    program.write(MAPS)
    done = program.upswell("run", f"program.py::{name}")
    assert (done.status, done.err) == (0, "")
    return done.lines


def test_inputs_that_fail_come_after_what_was_before_them(program: Program) -> None:
    assert out(program, "inputs") == [
        "[0, 1] SerializationError: input 1:",
        "3001",
        "['1', '1-2', 'a-b-c', 'TypeError: starmap takes tuples of arguments, as in [(1, 2),']",
        "101 LookupError: the caller's own",
        "[(1,), (2,)] ['(1,)a', '(2,)b']",
        "4498500",
    ]


def test_outputs_that_cannot_be_loaded_fail_alone(program: Program) -> None:
    assert out(program, "outputs") == [
        "[0, 1, 'DeserializationError: the output of input 2 arrived, but it ']",
        "['int', 'int', 'DeserializationError', 'int', 'int', 'DeserializationError'] "
        "the output of input 5 arrived, but it can't be unpickled here",
        "[1] ['InvalidError: this map of same has ended: call .map again fo']",
    ]


def test_asynchronous_inputs_are_pulled_only_as_needed(program: Program) -> None:
    assert out(program, "ahead") == ["True", "True"]


def test_a_segment_goes_ahead_while_one_is_on_its_way(program: Program) -> None:
    """Where messages take longer than the work; the inputs before one that fails are all of them run."""
    bounded, *failed = out(program, "brisk")
    assert bounded.split()[0] == "True", bounded
    assert failed == ["30000", "SerializationError: input 30123:"]


def test_many_maps_at_once_share_the_limit(program: Program) -> None:
    assert out(program, "threads") == ["True", "[] 3", "[] 4"]


def test_no_output_waits_for_a_slow_input_behind_it(program: Program) -> None:
    assert out(program, "hostage") == ["True"]


def test_who_watches_sees_how_many_inputs_there_will_be(program: Program) -> None:
    """As far as the iterable says, and as soon as it is known better what there is."""
    program.write("""
        import time, upswell

        app = upswell.App()

        @app.function()
        def same(x, _=None):
            return x

        class Said:
            def __init__(self, length, inputs):
                self.length, self.inputs = length, inputs

            def __len__(self):
                return self.length() if callable(self.length) else self.length

            def __iter__(self):
                return iter(range(self.inputs))

        if __name__ == "__main__":
            totals = []

            def watch(progress):
                for one in progress.functions:
                    totals.append(one.pending + one.running + one.succeeded + one.failed)

            def until(least, most):
                while not totals or not least <= totals[-1] <= most:
                    time.sleep(0.01)

            with app.run():
                app.watch(watch)
                before = 0
                pulled = 1, 1000  # by a map whose first output was taken
                for inputs, (least, most) in [
                    (range(3000), (3000, 3000)),
                    (Said(9000, 3000), (9000, 9000)),
                    (Said(9, 3000), pulled),
                    (Said(lambda: 1 / 0, 3000), pulled),
                    ((x for x in range(3000)), pulled),
                ]:
                    outputs = iter(same.map(inputs))
                    next(outputs)
                    until(before + least, before + most)
                    print(1 + sum(1 for _ in outputs))
                    before += 3000
                    until(before, before)
                outputs = iter(same.map(range(5000), (None for _ in range(3000))))
                next(outputs)
                until(before + 5000, before + 5000)
                outputs.close()
                until(before + 1, before + 1000)
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.err, done.lines) == ("", ["3000"] * 5)
