"""Dicts and Queues between a program and its containers."""

import sys

from .processes import Program

OBJECTS = """
    import asyncio, os, queue, time
    import upswell
    from upswell import Dict, Queue
    from upswell.exception import (
        AlreadyExistsError, InvalidError, NotFoundError, RequestSizeError, SerializationError
    )

    app = upswell.App("objects")
    results = Dict.from_name("results", create_if_missing=True)
    work = Queue.from_name("work", create_if_missing=True)

    @app.function()
    def square(x):
        results[x] = x * x
        work.put(x)

    @app.function()
    async def cube(x):
        await results.put.aio(x, x ** 3)
        return await results.get.aio(x)

    @app.function(max_containers=1)
    def take(n):
        return [work.get() for _ in range(n)]

    @app.function()
    def move(source, target):
        target["moved"] = source.get()

    @app.function(max_containers=1)
    def meet(name, other, places):
        places.put(name, partition=name)
        return places.get(partition=other)

    @app.function(max_containers=1)
    def count(x, counts):
        counts["n"] = counts.get("n", 0) + 1

    @app.function(max_containers=1)
    def die_waiting(doors):
        doors.put("here", partition="door")
        doors.get()

    @app.local_entrypoint()
    def together():
        taken = take.spawn(100)
        square.for_each(range(100))
        print(sorted(taken.get()) == list(range(100)), results.len(), sum(results.values()))
        print(results[7], 7 in results, 700 in results, dict(results.items()) == {x: x * x for x in range(100)})
        print(sorted(cube.map(range(3))), sorted(results.keys())[-1])

    @app.local_entrypoint()
    def ephemeral():
        with Queue.ephemeral() as source, Dict.ephemeral() as target:
            source.put({"a": [1]})
            move.remote(source, target)
            print(target["moved"], source.len(), Queue.from_id(source.object_id).len())
            target.update({"x": 1}, y=2)
            print(target.put("x", 3, skip_if_exists=True), target.pop("x"), target.pop("x", None), target.len())
            del target["y"]
            target.clear()
            print(list(target.keys()), target.get("y"), target.get("y", 5))
        try:
            target.len()
        except NotFoundError as error:
            print(target.object_id in str(error))

    @app.function()
    def with_its_own(x):
        with Dict.ephemeral() as own:
            own["x"] = x
        with Queue.ephemeral() as other:
            other.put(x)
            return [next(iter(cube.map([x]))), other.get(), results.get(x)]

    @app.local_entrypoint()
    def inside():
        print(list(with_its_own.map([2, 3])))

    @app.local_entrypoint()
    def waiting_lends():
        with Queue.ephemeral() as places:
            print(sorted(meet.starmap([("a", "b", places), ("b", "a", places)])))

    @app.local_entrypoint()
    def what_is_quick_does_not_lend():
        with Dict.ephemeral() as counts:
            count.for_each(range(200), kwargs={"counts": counts})
            print(counts["n"])

    @app.local_entrypoint()
    def forgotten():
        with Queue.ephemeral() as doors:
            call = die_waiting.spawn(doors)
            doors.get(partition="door")
            call.cancel()
            try:
                call.get()
            except Exception as error:
                print(type(error).__name__)
            doors.put("kept")
            print(doors.get(timeout=60))

    @app.local_entrypoint()
    async def cancelled():
        async with Queue.ephemeral() as q:
            for pause in [0] * 20 + [0.001] * 20:
                getting = asyncio.create_task(q.get.aio())
                await asyncio.sleep(0)
                putting = asyncio.create_task(q.put.aio(pause))
                await asyncio.sleep(pause)
                getting.cancel()
                try:
                    await getting
                except asyncio.CancelledError:
                    await putting
                    assert await q.get.aio(timeout=60) == pause, "the item is lost"
                else:
                    await putting
            print(await q.len.aio(), [item async for item in q.iterate.aio()])

    @app.local_entrypoint()
    def queues():
        with Queue.ephemeral() as q:
            print(q.get(block=False), q.get_many(3, block=False))
            for failing in (lambda: q.get(timeout=0.05), lambda: q.get_many(3, timeout=0)):
                try:
                    failing()
                except queue.Empty as error:
                    print("empty", error)
            q.put_many(range(5000))
            for failing in (lambda: q.put(1, block=False), lambda: q.put(1, timeout=0.05)):
                try:
                    failing()
                except queue.Full as error:
                    print("full", "5,000 items" in str(error))
            print(q.get_many(3), q.len(), sum(1 for _ in q.iterate()))
            q.put("other", partition="side", partition_ttl=60)
            print(q.len(partition="side"), q.len(total=True), q.get(partition="side"))
            q.clear(all=True)
            print(q.len(total=True), list(q.iterate()))

    @app.local_entrypoint()
    def misuse():
        with Queue.ephemeral() as q, Dict.ephemeral() as d:
            for wrong in (
                lambda: Dict(),
                lambda: Dict.from_name("no such name!"),
                lambda: Dict.from_name("missing").get(1),
                lambda: Queue.delete("missing"),
                lambda: Dict.objects.create("results", allow_existing=False) or Dict.objects.create("results"),
                lambda: d["absent"],
                lambda: d.pop("absent"),
                lambda: d.put("k", (x for x in [])),
                lambda: q.put(b"x" * (1 << 20)),
                lambda: q.put(1, partition=""),
                lambda: q.put(1, partition_ttl=0),
                lambda: q.get_many(0),
                lambda: d.put("k", b"x" * (101 << 20)),
            ):
                try:
                    wrong()
                except Exception as error:
                    print(type(error).__name__, "-", error)
        Queue.objects.create("made")
        print([one.name for one in Queue.objects.list()], [one.name for one in Dict.objects.list()])
        made = Queue.from_name("made")
        made.put(1)
        Queue.delete("made")
        try:
            made.put(2)
        except NotFoundError as error:
            print(error)
        Queue.from_name("made", create_if_missing=True).put(3)
        print(made.get())
        Queue.delete("made")
        Queue.objects.delete("made", allow_missing=True)
        print(Queue.objects.list())
"""


def out(program: Program, name: str) -> list[str]:
    program.write(OBJECTS)
    done = program.upswell("run", f"program.py::{name}")
    assert (done.status, done.err) == (0, "")
    return done.lines


def test_a_program_and_its_containers_share_named_objects(program: Program) -> None:
    assert out(program, "together") == ["True 100 328350", "49 True False True", "[0, 1, 8] 99"]


def test_ephemeral_objects_are_passed_to_functions_and_end_with_their_block(program: Program) -> None:
    assert out(program, "ephemeral") == ["{'a': [1]} 0 0", "False 1 None 2", "[] None 5", "True"]


def test_a_container_may_have_its_own(program: Program) -> None:
    assert out(program, "inside") == ["[[8, 2, 8], [27, 3, 27]]"]


def test_an_input_that_waits_at_a_queue_lends_its_place(program: Program) -> None:
    assert out(program, "waiting_lends") == ["['a', 'b']"]


def test_what_is_answered_at_once_lets_no_other_input_in_between(program: Program) -> None:
    assert out(program, "what_is_quick_does_not_lend") == ["200"]


def test_who_dies_waiting_takes_no_item_along(program: Program) -> None:
    assert out(program, "forgotten") == ["RemoteError", "kept"]


def test_an_item_whose_getter_was_cancelled_is_not_lost(program: Program) -> None:
    assert out(program, "cancelled") == ["0 []"]


def test_queues_as_their_page_says(program: Program) -> None:
    lines = out(program, "queues")
    assert lines[0] == "None []"
    assert all(line.startswith("empty nothing came to Queue") for line in lines[1:3])
    assert lines[3:] == ["full True", "full True", "[0, 1, 2] 4997 4997", "1 4998 other", "0 []"]


def test_misuse_is_named(program: Program) -> None:
    lines = out(program, "misuse")
    expected = [
        "InvalidError - Dict(...) makes nothing: use Dict.from_name(name) or Dict.ephemeral()",
        "InvalidError - Dict name 'no such name!' is not valid",
        "NotFoundError - there is no Dict named 'missing': Dict.from_name('missing', create_if_missing=True) makes it",
        "NotFoundError - there is no Queue named 'missing'",
        "AlreadyExistsError - there is a Dict named 'results' already",
        "KeyError - \"'absent' is not in Dict.from_id(",
        "KeyError - \"'absent' is not in Dict.from_id(",
        "SerializationError - the value of 'k' can't be stored in Dict.from_id(",
        "RequestSizeError - an item of 1,048,",
        "InvalidError - a partition's name has 1 to 64 bytes, not 0",
        "InvalidError - partition_ttl must be a number of seconds above 0, not 0",
        "InvalidError - get_many takes a number of values from 1 on, not 0",
        "RequestSizeError - a value of 105,906,",
    ]
    for line, beginning in zip(lines, expected, strict=False):
        assert line.startswith(beginning)
    assert lines[len(expected) :] == [
        "['made'] ['results']",
        "Queue.from_name('made') was deleted, or belongs to another server",
        "3",
        "[]",
    ]


def test_named_objects_live_as_long_as_the_program(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App("plain")
        seen = upswell.Dict.from_name("seen", create_if_missing=True)

        @app.function()
        def see(x):
            seen[x] = True

        if __name__ == "__main__":
            seen["before"] = True
            with app.run():
                see.for_each(range(3))
            print(sorted(map(str, seen.keys())))
            with app.run():
                see.remote(3)
            print(seen.len())
    """)
    done = program.run(sys.executable, "program.py")
    assert (done.status, done.err, done.lines) == (0, "", ["['0', '1', '2', 'before']", "5"])


def test_use_while_a_container_imports_is_refused(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App("early")
        upswell.Dict.from_name("seen", create_if_missing=True)["x"] = 1

        @app.function()
        def f(x):
            return x

        @app.local_entrypoint()
        def main():
            f.remote(1)
    """)
    done = program.upswell("run", "program.py")
    assert done.status == 1
    assert "Dict.from_name('seen') was used while a container imported this module" in done.err
