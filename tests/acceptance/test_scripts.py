"""`python script.py`: programs that open their app themselves, plain and asynchronous."""

import sys
import textwrap

import pytest

from .processes import Program


def test_with_app_run(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App("script")

        class Pair:
            def __init__(self, left, right):
                self.left, self.right = left, right

        class Odd(Exception):
            pass

        @app.function()
        def total(pair):
            if pair.left % 2:
                raise Odd(pair.left)
            return Pair(pair.left + pair.right, None)

        if __name__ == "__main__":
            with app.run():
                print([type(one).__name__ for one in total.map([Pair(2, 1), Pair(3, 1)], return_exceptions=True)])
                print(total.remote(Pair(4, 5)).left)
                assert isinstance(total.remote(Pair(4, 5)), Pair)
                try:
                    total.remote(Pair(5, 5))
                except Odd as error:
                    print("odd", error)
            with app.run():
                print(total.remote(Pair(6, 1)).left)
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.status, done.err) == (0, "")
    assert done.lines == ["['Pair', 'Odd']", "9", "odd 5", "7"]


def test_async_with_app_run(program: Program) -> None:
    program.write("""
        import asyncio, upswell

        app = upswell.App("script")

        @app.function()
        async def square(x):
            await asyncio.sleep(0)
            return x * x

        async def numbers():
            for x in range(5):
                await asyncio.sleep(0)
                yield x

        async def main():
            async with app.run():
                print([y async for y in square.map.aio(numbers())])
                print(await asyncio.gather(*(square.remote.aio(x) for x in range(4))))
                call = await square.spawn.aio(9)
                print(await call.get.aio())
                async for y in square.map.aio(range(10_000)):
                    if y > 100:
                        break
                print(y)

        asyncio.run(main())
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.status, done.err) == (0, "")
    assert done.lines == ["[0, 1, 4, 9, 16]", "[0, 1, 4, 9]", "81", "121"]


def test_a_call_outside_of_a_run_names_what_is_missing(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App()

        @app.function()
        def square(x):
            return x * x

        print(square.local(3))
        square.remote(3)
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.status, done.out) == (1, "9\n")
    assert "app.run()" in done.err.splitlines()[-1] and "from the next run on" in done.err.splitlines()[-1]


def test_tracebacks_have_the_users_frames_alone(program: Program) -> None:
    program.write("""
        import asyncio, traceback, upswell

        app = upswell.App()

        @app.function()
        def check(x):
            assert x
            return check.remote(0)

        @app.function()
        def stream(x):
            yield 1 / x

        def inputs():
            yield 1 / 0

        async def over(outputs):
            async for _ in outputs:
                pass

        def loop(coroutine):
            asyncio.get_event_loop_policy().new_event_loop().run_until_complete(coroutine)

        ways = {
            "remote": lambda: check.remote(0),
            "remote.aio": lambda: loop(check.remote.aio(0)),
            "within": lambda: check.remote(1),
            "map": lambda: list(check.map([0])),
            "map.aio": lambda: loop(over(check.map.aio([0]))),
            "inputs": lambda: list(check.map(inputs())),
            "for_each": lambda: check.for_each([0]),
            "remote_gen": lambda: list(stream.remote_gen(0)),
            "remote_gen.aio": lambda: loop(over(stream.remote_gen.aio(0))),
            "get": lambda: check.spawn(0).get(),
            "iter": lambda: list(check.spawn_map([0]).iter()),
            "iter.aio": lambda: loop(over(check.spawn_map([0]).iter())),
            "arguments": lambda: check.remote(inputs()),
            "run": lambda: app.run().__enter__(),
        }

        if __name__ == "__main__":
            with app.run():
                for name, way in ways.items():
                    try:
                        way()
                    except Exception as error:
                        text = "".join(traceback.format_exception(error))
                        print(name, text.count("program.py"), text.count("/upswell/"))
    """)
    done = program.run(sys.executable, "program.py")
    assert done.err == ""
    frames = {"remote": 3, "remote.aio": 4, "within": 4, "map": 3, "map.aio": 5, "inputs": 3, "for_each": 3}
    frames |= {"remote_gen": 3, "remote_gen.aio": 5, "get": 3, "iter": 3, "iter.aio": 5, "arguments": 2, "run": 2}
    assert done.lines == [f"{name} {count} 0" for name, count in frames.items()]


def test_serialized_closures(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App()
        OFFSET = 100

        def adder(n):
            @app.function(serialized=True, name=f"add{n}")
            def add(x):
                return x + n + OFFSET
            return add

        def main():
            one, two = adder(1), adder(2)
            with app.run():
                print(list(one.map([1, 2])), two.remote(1), (lambda f: f.remote(5))(one))

        main()
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.out, done.err) == ("[102, 103] 103 106\n", "")


def test_serialized_functions_take_what_the_program_defines(program: Program) -> None:
    """Their containers do not import the program; what comes back is of the program's own class."""
    program.write("""
        import upswell

        app = upswell.App()

        class Pair:
            def __init__(self, left, right):
                self.left, self.right = left, right

        @app.function(serialized=True)
        def swap(pair, *, by=1):
            return type(pair)(by * pair.right, by * pair.left)

        @app.function(serialized=True)
        def both(pair):
            yield from (pair.left, pair.right)

        if __name__ == "__main__":
            pairs = [Pair(x, -x) for x in range(3)]
            with app.run():
                swapped = [swap.remote(pairs[2]), *swap.map(pairs, kwargs={"by": 2}), swap.spawn(pairs[1]).get()]
                swapped += swap.spawn_map(pairs).iter()
                print(all(type(pair) is Pair for pair in swapped), [pair.left for pair in swapped])
                print(list(both.remote_gen(pairs[1])))
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.err, done.lines) == ("", ["True [-2, 0, -2, -4, -1, 0, -1, -2]", "[1, -1]"])


BY_VALUE = """
    import upswell

    app = upswell.App()
    OFFSET = 100

    @app.function(serialized=True)
    def add(x):
        return x + OFFSET

    quick = add.with_options(timeout=60)

    @app.function(serialized=True)
    def names(x):
        return add.remote(x), add.local(x), list(add.map(range(x))), quick.remote(x), list(Box(label="b").say.map([x]))

    @app.function(serialized=True)
    def factorial(n):
        return n * factorial.remote(n - 1) if n else 1

    @app.cls(serialized=True)
    class Box:
        label: str = upswell.parameter(default="box")

        @upswell.method()
        def say(self, x):
            return self.label, add.remote(x)

    @app.function(serialized=True)
    def apply(function, x):
        return function.remote(x)

    if __name__ == "__main__":
        with app.run():
            print(names.remote(2), factorial.remote(4), Box().say.remote(1), apply.remote(add, 5))
"""
BY_VALUE_SAYS = "(102, 102, [100, 101], 102, [('b', 102)]) 24 ('box', 101) 105\n"


def test_functions_that_travel_by_value_use_one_another(program: Program) -> None:
    program.write(BY_VALUE)
    done = program.run(sys.executable, "program.py")
    assert (done.out, done.err) == (BY_VALUE_SAYS, "")


def test_what_is_typed_in_travels_by_value(program: Program) -> None:
    """As in a notebook: in no file, declared anew when it is run again, and with functions within functions."""
    program.write(BY_VALUE.replace("serialized=True", ""))
    again = """
    def scaled_by(n):
        @app.function()
        def scaled(x):
            return n * add.remote(x)
        return scaled

    for n in 2, 3:
        scaled = scaled_by(n)

    with app.run():
        print(scaled.remote(1))

    """
    text = (program.folder / "program.py").read_text()
    done = program.run(sys.executable, "-", given=text + textwrap.dedent(again))
    assert (done.out, done.err) == (BY_VALUE_SAYS + "303\n", "")


def test_a_program_that_is_gone_on_with_at_the_prompt(program: Program) -> None:
    """`python -i` takes the file away from the program that it has run."""
    program.write(BY_VALUE.replace("serialized=True", ""))
    done = program.run(sys.executable, "-i", "program.py", given="with app.run(): print(names.remote(2)[0])\n\n")
    assert done.lines == [BY_VALUE_SAYS.rstrip(), "102"]


HANDLES = """
    import os
    import upswell
    from upswell import Secret

    app = upswell.App()

    @app.function()
    def call(function, x):
        return function.remote(x), function.name

    @app.function(env={"A": "1", "B": "1"}, secrets=[Secret.from_dict({"S": "s"})])
    def seen(x):
        return x, os.environ["A"], os.environ["B"], os.environ["S"]

    @app.function(env={"A": "1"})
    def open_to_all(x):
        return x, os.environ["A"], os.environ.get("B")

    @app.cls(env={"A": "1"})
    class Box:
        label: str = upswell.parameter(default="box")

        @upswell.method()
        def say(self, x):
            return x, self.label, os.environ["A"]

    changed = seen.with_options(env={"B": "2"})
    longer = seen.with_options(timeout=60)

    @app.function()
    def call_them(x):
        return call.remote(changed, x)[0], changed.remote(x), longer.remote(x)

    def told(action):
        try:
            return action()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    if __name__ == "__main__":
        with app.run():
            print(call.remote(seen, 1), call_them.remote(2))
            print(call.remote(longer, 1), call.remote(seen.with_concurrency(max_inputs=2), 1))
            print(call.remote(open_to_all.with_options(env={"A": "3"}).with_options(timeout=50), 1))
            print(call.remote(Box().say, 1), call.remote(Box.with_options(env={"A": "3"})(label="b").say, 1))
            print(told(lambda: call.remote(seen.with_options(secrets=[Secret.from_dict({"S": "t"})]), 1)))
"""


@pytest.mark.parametrize("kind", ["imported", "serialized", "typed in"])
def test_handles_as_arguments_and_in_code(program: Program, kind: str) -> None:
    """With the options and variables that they have here, where those may travel: values of secrets may not.

    What is serialized or typed in travels by value.
    """
    serialized = HANDLES.replace("function(", "function(serialized=True, ").replace("cls(", "cls(serialized=True, ")
    text = program.write(serialized if kind == "serialized" else HANDLES).read_text()
    typed_in = kind == "typed in"
    done = program.run(sys.executable, "-", given=text) if typed_in else program.run(sys.executable, "program.py")
    assert done.err == ""
    *lines, refused = done.lines
    assert lines == [
        "((1, '1', '1', 's'), 'seen') ((2, '1', '2', 's'), (2, '1', '2', 's'), (2, '1', '1', 's'))",
        "((1, '1', '1', 's'), 'seen') ((1, '1', '1', 's'), 'seen')",
        "((1, '3', None), 'open_to_all')",
        "((1, 'box', '1'), 'Box.say') ((1, 'b', '3'), 'Box.say')",
    ]
    assert refused.startswith("SerializationError: an argument of call can't be sent: ")
    words = "Secret.from_dict([S]) can't be pickled: name it in secrets=[...] of the function that needs it"
    assert refused.endswith(words)


def test_a_function_as_an_argument(program: Program) -> None:
    program.write("""
        import upswell
        import library

        app = upswell.App()

        @app.function()
        def double(x):
            return 2 * x

        @app.function()
        def apply(function, x):
            return function.remote(x), function.local(x)

        app.include(library.app)

        if __name__ == "__main__":
            with app.run():
                print(apply.remote(double, 4), apply.remote(library.half, 4))
                nameless, double = double, None
                try:
                    apply.remote(nameless.with_options(timeout=3), 4)
                except upswell.exception.SerializationError as error:
                    print(error)
    """)
    program.write(
        """
        import upswell

        app = upswell.App()

        @app.function()
        def half(x):
            return x // 2
    """,
        "library.py",
    )
    done = program.run(sys.executable, "program.py")
    assert (done.err, done.lines[:1]) == ("", ["(8, 8) (2, 2)"])
    assert done.lines[1].endswith("double can't be pickled: pass its name, or import its module where it is needed")


def test_the_import_is_light(program: Program) -> None:
    done = program.run(sys.executable, "-c", "import upswell.cli, sys; print('click' in sys.modules)")
    assert done.out == "False\n"


def test_a_file_beside_the_program_is_not_taken_for_a_module_of_the_server(program: Program) -> None:
    program.write("raise SystemExit('this is not the argparse that was meant')", "argparse.py")
    program.write("""
        import upswell

        app = upswell.App("shadows")

        @app.function()
        def f(x):
            return x

        if __name__ == "__main__":
            with app.run():
                print(f.remote(1))
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.status, done.err, done.lines) == (0, "", ["1"])
