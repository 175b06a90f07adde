"""`python script.py`: programs that open their app themselves, plain and asynchronous."""

import sys

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
    assert "app.run()" in done.err.splitlines()[-1]


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
