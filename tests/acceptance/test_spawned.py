"""Spawned calls: handles on them may be many, in threads, on loops and in containers."""

from .processes import Program


def test_handles(program: Program) -> None:
    program.write("""
        import asyncio, threading, time
        import upswell
        from upswell import FunctionCall
        from upswell.exception import InvalidError, NotFoundError

        app = upswell.App("spawned")

        @app.function()
        def square(x):
            return x * x

        @app.function()
        def nap(seconds):
            time.sleep(seconds)
            return seconds

        @app.function()
        def check(x):
            if x == 2:
                raise LookupError(x)
            return x

        @app.function()
        def fetch(call):
            return call.get()

        def told(action):
            try:
                return action()
            except Exception as error:
                return f"{type(error).__name__}: {error}".replace(call.object_id, "ID")

        @app.local_entrypoint()
        def main():
            global call
            call = nap.spawn(0.7)
            print(told(lambda: call.get(timeout=0)), "|", told(lambda: FunctionCall.from_id(call.object_id).get(0.1)))
            got = []
            def wait(handle):
                got.append(handle.get(timeout=20))
            async def await_it():
                got.extend(await asyncio.gather(*(call.get.aio(timeout=20) for _ in range(3))))
            targets = [lambda: wait(call), lambda: wait(call), lambda: wait(FunctionCall.from_id(call.object_id)),
                       lambda: wait(FunctionCall.from_id(call.object_id)), lambda: asyncio.run(await_it())]
            threads = [threading.Thread(target=target, daemon=True) for target in targets]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(25)
            print(got)
            another = FunctionCall.from_id(call.object_id)
            print(call.get(timeout=float("inf")), another.get(timeout=0), fetch.remote(call))

            print(told(lambda: call.get(index=1)), "|", told(lambda: call.get(index=-1)))
            for unknown in (FunctionCall.from_id("fc-0").get, FunctionCall.from_id("fc-0").num_inputs):
                print(told(unknown))
            print(told(lambda: FunctionCall.from_id(5)))
            call = square.spawn_map([])
            print(call.num_inputs(), list(call.iter()), told(call.get))
            call = square.spawn_map(range(2000))
            print(list(call.iter(start=1998)), list(call.iter(start=3, end=5)), list(call.iter(start=5, end=3)))
            call = check.spawn_map(range(4))
            print(call.get(index=3), told(lambda: list(call.iter())), told(lambda: call.get(index=2)))
            print(told(lambda: square.spawn_map([1, threading.Lock()]))[:27])

            calls = [square.spawn(x) for x in range(1000)]
            print(FunctionCall.gather(*calls) == [x * x for x in range(1000)])
    """)
    done = program.upswell("run", "program.py")
    assert (done.status, done.err) == (0, "")
    assert done.lines == [
        "TimeoutError: ID has no result yet | TimeoutError: ID has no result yet",
        "[0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]",
        "0.7 0.7 0.7",
        "IndexError: ID has 1 inputs, counted from 0, and none at 1 | "
        "InvalidError: results are counted from 0, and -1 is less",
        "NotFoundError: there is no call fc-0: its app is stopped, or it never was",
        "NotFoundError: there is no call fc-0: its app is stopped, or it never was",
        "TypeError: FunctionCall.from_id takes the object_id of a call, which is a str, not 5",
        "0 [] IndexError: ID has 0 inputs, counted from 0, and none at 0",
        "[3992004, 3996001] [9, 16] []",
        "3 LookupError: 2 LookupError: 2",
        "SerializationError: input 1",
        "True",
    ]
