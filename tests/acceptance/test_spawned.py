"""Spawned calls: handles on them may be many, in threads, on loops and in containers."""

from .processes import Program


def test_handles(program: Program) -> None:
    program.write("""
        import asyncio, os, threading, time
        import upswell
        from upswell import FunctionCall
        from upswell.exception import InvalidError, NotFoundError

        app = upswell.App("spawned")

        @app.function()
        def square(x):
            return x * x

        @app.function()
        def wait(x):
            while not os.path.exists("kept"):
                time.sleep(0.01)
            return x

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
            call = wait.spawn(0.7)
            print(told(lambda: call.get(timeout=0)), "|", told(lambda: FunctionCall.from_id(call.object_id).get(0.1)))
            got = []
            def get(handle):
                got.append(handle.get(timeout=60))
            async def await_it():
                got.extend(await asyncio.gather(*(call.get.aio(timeout=60) for _ in range(3))))
            targets = [lambda: get(call), lambda: get(call), lambda: get(FunctionCall.from_id(call.object_id)),
                       lambda: get(FunctionCall.from_id(call.object_id)), lambda: asyncio.run(await_it())]
            threads = [threading.Thread(target=target, daemon=True) for target in targets]
            for thread in threads:
                thread.start()
            os.mkdir("kept")
            for thread in threads:
                thread.join(60)
            print(got)
            another = FunctionCall.from_id(call.object_id)
            print(call.get(timeout=float("inf")), another.get(timeout=0), fetch.remote(call))

            print(told(lambda: call.get(index=1)), "|", told(lambda: call.get(index=-1)))
            for unknown in (FunctionCall.from_id("fc-0").get, FunctionCall.from_id("fc-0").num_inputs):
                print(told(unknown))
            print(told(lambda: FunctionCall.from_id(5)))
            call = square.spawn_map([])
            print(call.num_inputs(), list(call.iter()), told(call.get))
            another = FunctionCall.from_id(call.object_id)
            print(another.num_inputs(), list(another.iter()), told(another.get), call.get_call_graph())
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
        "NotFoundError: there is no call fc-0: it never was, or has ended with its app",
        "NotFoundError: there is no call fc-0: it never was, or has ended with its app",
        "TypeError: FunctionCall.from_id takes the object_id of a call, which is a str, not 5",
        "0 [] IndexError: ID has 0 inputs, counted from 0, and none at 0",
        "0 [] IndexError: ID has 0 inputs, counted from 0, and none at 0 []",
        "[3992004, 3996001] [9, 16] []",
        "3 LookupError: 2 LookupError: 2",
        "SerializationError: input 1",
        "True",
    ]


def test_inputs_that_are_waited_for(program: Program) -> None:
    """Asynchronous iterables, where the call is awaited on its loop, and where it is not in a thread of upswell's."""
    program.write("""
        import asyncio, threading
        import upswell

        app = upswell.App("spawned")

        @app.function()
        def total(x, y=0, *, z=0):
            return x + y + z

        async def numbers(count):
            where = threading.current_thread()
            for number in range(count):
                if number % 700 == 0:
                    await asyncio.sleep(0.001)
                assert threading.current_thread() is where
                yield number
            seen.append(where is threading.main_thread())

        async def failing():
            yield 1
            raise LookupError("no more")

        async def told(awaitable):
            try:
                return await awaitable
            except Exception as error:
                return f"{type(error).__name__}: {error}"

        async def asynchronous():
            call = await total.spawn_map.aio(numbers(2500), kwargs={"z": 5})
            print(await call.num_inputs.aio(), await call.get.aio(index=2499))
            call = await total.spawn_map.aio(numbers(3), [10, 20, 30, 40])
            print([output async for output in call.iter()])
            print([output async for output in total.starmap.aio(zip_of(numbers(3), 7))])
            await total.for_each.aio(numbers(1001))
            print(await told(total.spawn_map.aio(failing())))
            print(await told(total.spawn_map.aio(number async for number in numbers(9) if 8 / (number - 4))))
            print(seen)
            seen.clear()
            plain()  # which blocks the loop, and needs another

        async def zip_of(numbers, other):
            async for number in numbers:
                yield number, other

        def plain():
            call = total.spawn_map(numbers(2000))
            print(call.num_inputs(), call.get(index=1999))
            total.for_each(numbers(1001), ignore_exceptions=True)
            print(list(total.spawn_map(range(2), numbers(3)).iter()), seen)

        seen = []

        @app.local_entrypoint()
        def main():
            asyncio.run(asynchronous())
            seen.clear()
            plain()
    """)
    done = program.upswell("run", "program.py")
    assert (done.status, done.err) == (0, "")
    plain = ["2000 1999", "[0, 2] [False, False]"]
    assert done.lines == [
        "2500 2504",
        "[10, 21, 32]",
        "[7, 8, 9]",
        "LookupError: no more",
        "ZeroDivisionError: division by zero",
        "[True, True, True, True]",
        *plain,
        *plain,
    ]


TOGETHER = """
    import asyncio, os, pathlib, signal, time
    import upswell
    from upswell import FunctionCall, current_function_call_id, current_input_id
    from upswell.exception import NotFoundError, RemoteError, SerializationError

    app = upswell.App("together")

    @app.function(max_containers=2)
    def divide(x, by=1, *, plus=0):
        return x / by + plus

    @app.function(max_containers=1, retries=2)
    def name():
        return current_function_call_id(), current_input_id()

    @app.function(max_containers=1)
    def held(x, folder):
        while x == 1 and not os.path.exists(folder + "/go"):
            pathlib.Path(folder, "begun").touch()
            time.sleep(0.01)
        return x

    @app.function(max_containers=1)
    async def held_async(x, folder):
        while x == 1 and not os.path.exists(folder + "/go"):
            pathlib.Path(folder, "begun").touch()
            await asyncio.sleep(0.01)
        return x

    @app.function()
    async def nested(numbers):
        calls = await asyncio.gather(*(divide.spawn.aio(number) for number in range(numbers)))
        return [call.object_id for call in calls]
"""


def test_spawns_that_travel_together(program: Program) -> None:
    program.write(
        TOGETHER
        + """
    async def each():
        spawns = [divide.spawn.aio(x, x % 5, plus=x) if x % 2 else divide.spawn.aio(x) for x in range(100)]
        spawns[33] = divide.spawn.aio(lambda: open(os.devnull), time.sleep)  # fails there
        spawns[44] = divide.spawn.aio((n for n in "generators can't be pickled"))
        calls = await asyncio.gather(*spawns, return_exceptions=True)
        assert isinstance(calls.pop(44), SerializationError)
        assert len({call.object_id for call in calls}) == 99
        outputs = await asyncio.gather(*(call.get.aio() for call in calls), return_exceptions=True)
        outputs.insert(44, None)
        for x, output in enumerate(outputs):
            match x:
                case 44: pass
                case 33: assert isinstance(output, TypeError), output
                case _ if x % 2 and x % 5 == 0: assert isinstance(output, ZeroDivisionError), output
                case _: assert output == (x / (x % 5) + x if x % 2 else x), (x, output)
        last = FunctionCall.from_id(calls[-1].object_id)
        assert await last.num_inputs.aio() == 1 and [one async for one in last.iter()] == [await last.get.aio()]
        assert list(last.iter(start=1)) == []
        try:
            await last.get.aio(index=1)
        except IndexError as error:
            assert last.object_id in str(error)
        server = upswell.sdk.clients.get_client()._private._process
        os.kill(server, signal.SIGSTOP)  # it answers none of them before all have been made
        try:
            spawns = [asyncio.create_task(name.spawn.aio()) for _ in range(20)]
            await asyncio.sleep(0)
        finally:
            os.kill(server, signal.SIGCONT)
        names = await asyncio.gather(*spawns)
        together = [call for call in names if call.object_id.count("-") == 2]
        assert len(together) > 1, "while the first is on its way the others gather"
        for call in together:
            assert await call.get.aio() == (call.object_id, "in-" + call.object_id.removeprefix("fc-"))
        (info,) = await together[-1].get_call_graph.aio()
        assert (info.function_call_id, info.input_id) == await together[-1].get.aio()
        unknown = FunctionCall.from_id(calls[-1].object_id.rpartition("-")[0] + "-999")
        try:
            await unknown.get.aio(timeout=60)
        except NotFoundError as error:
            assert unknown.object_id in str(error)
        ids = await nested.remote.aio(30)
        assert await FunctionCall.gather.aio(*map(FunctionCall.from_id, ids)) == list(range(30))

    @app.local_entrypoint()
    def main():
        asyncio.run(each())
        print("right")
    """
    )
    done = program.upswell("run", "program.py")
    assert (done.status, done.lines[-1:]) == (0, ["right"]), done.err


def test_one_of_them_is_cancelled(program: Program) -> None:
    """Wherever it is: it runs, or waits, in a thread or as a task; and with its container."""
    program.write(
        TOGETHER
        + """
    async def each(function, which, terminate):
        folder = f"kept/{function.name}-{which}-{terminate}"
        os.makedirs(folder)
        calls = await asyncio.gather(*(function.spawn.aio(x, folder) for x in range(40)))
        while which == 1 and not os.path.exists(folder + "/begun"):
            await asyncio.sleep(0.01)
        await calls[which].cancel.aio(terminate_containers=terminate)
        await asyncio.gather(calls[which].get.aio(timeout=60), return_exceptions=True)
        pathlib.Path(folder, "go").touch()
        outputs = await asyncio.gather(*(call.get.aio(timeout=60) for call in calls), return_exceptions=True)
        assert isinstance(outputs[which], RemoteError) and "cancelled" in str(outputs[which]), outputs[which]
        assert sum(isinstance(output, Exception) for output in outputs) == 1, outputs
        await calls[which].cancel.aio()
        (info,) = await calls[which].get_call_graph.aio()
        assert info.status.name == "TERMINATED", info

    @app.local_entrypoint()
    def main():
        for function in (held, held_async):
            for which in (1, 39):
                for terminate in (False, True):
                    function.remote(0, "")
                    asyncio.run(each(function, which, terminate))
        print("right")
    """
    )
    done = program.upswell("run", "program.py")
    assert (done.status, done.lines[-1:]) == (0, ["right"]), done.err
