"""A user's program, for the type checker: `# is:` says what mypy must find there, `# error:` what is wrong."""

from collections.abc import AsyncIterator, Generator, Iterator
from typing import reveal_type

import upswell

app = upswell.App("typed")


class Point:
    x: float


@app.function(max_containers=2, secrets=[upswell.Secret.from_dict({"A": "b"})], image=upswell.Image.debian_slim())
def shout(times: int, word: str = "hey") -> str:
    return word * times


@app.function()
async def fetch(address: str, *, timeout: float = 1.0) -> Point:
    return Point()


@app.function()
def quiet(x: int) -> None:
    pass


@app.function()
@upswell.concurrent(max_inputs=10, target_inputs=8)
def count(stop: int) -> Iterator[int]:
    yield from range(stop)


@app.function()
def words() -> Generator[str, None, None]:
    yield "a"


@app.function()
async def ticks(stop: int) -> AsyncIterator[float]:
    yield 1.0


def plain() -> None:
    reveal_type(shout)  # is: Function[[times: int, word: str =], str]
    reveal_type(shout.remote(3))  # is: str
    reveal_type(shout.remote(3, word="x"))  # is: str
    reveal_type(shout.local(3))  # is: str
    reveal_type(shout.remote.aio(3))  # is: Coroutine[Any, Any, str]
    reveal_type(shout.map(range(3)))  # is: Mapped[str]
    reveal_type(list(shout.map(range(3))))  # is: list[str]
    reveal_type(list(shout.starmap([(1, "a")])))  # is: list[str]
    reveal_type(shout.for_each(range(3)))  # is: None
    reveal_type(shout.spawn(3))  # is: FunctionCall[str]
    reveal_type(shout.spawn(3).get())  # is: str
    reveal_type(shout.spawn(3).get(timeout=0, index=0))  # is: str
    reveal_type(list(shout.spawn(3).iter()))  # is: list[str]
    reveal_type(shout.spawn.aio(3))  # is: Coroutine[Any, Any, FunctionCall[str]]
    reveal_type(shout.spawn_map(range(3)))  # is: FunctionCall[str]
    reveal_type(shout.get_current_stats().backlog)  # is: int
    reveal_type(shout.update_autoscaler(min_containers=1).min_containers)  # is: int | None
    reveal_type(quiet.remote(1))  # is: None
    reveal_type(upswell.FunctionCall.from_id("fc-1").get())  # is: Any
    reveal_type(upswell.FunctionCall.gather(shout.spawn(1), fetch.spawn("a")))  # is: list[Any]


def generators() -> None:
    reveal_type(list(count.remote_gen(3)))  # is: list[int]
    reveal_type(list(words.remote_gen()))  # is: list[str]
    reveal_type(list(ticks.remote_gen(stop=3)))  # is: list[float]
    count.remote_gen("3")  # error: arg-type


def asynchronous_functions() -> None:
    reveal_type(fetch.remote("a"))  # is: Point
    reveal_type(fetch.remote.aio("a", timeout=2))  # is: Coroutine[Any, Any, Point]
    reveal_type(fetch.local("a"))  # is: Coroutine[Any, Any, Point]
    reveal_type(list(fetch.map(["a"])))  # is: list[Point]
    reveal_type(fetch.spawn("a").get())  # is: Point
    reveal_type(fetch.spawn_map(["a"]).get())  # is: Point


async def asynchronous_code() -> None:
    reveal_type(await shout.remote.aio(3))  # is: str
    reveal_type(await fetch.remote.aio("a"))  # is: Point
    reveal_type([one async for one in shout.map.aio(range(3))])  # is: list[str]
    reveal_type([one async for one in fetch.starmap.aio([("a",)])])  # is: list[Point]
    reveal_type(await (await fetch.spawn.aio("a")).get.aio())  # is: Point
    reveal_type([one async for one in shout.spawn(3).iter()])  # is: list[str]
    reveal_type([one async for one in shout.spawn(3).iter.aio(start=0)])  # is: list[str]
    reveal_type([one async for one in count.remote_gen.aio(3)])  # is: list[int]
    reveal_type([one async for one in ticks.remote_gen.aio(3)])  # is: list[float]
    async with app.run() as running:
        reveal_type(running)  # is: App
    async with upswell.Queue.ephemeral() as queue:
        reveal_type(queue)  # is: Queue
        reveal_type(await queue.len.aio())  # is: int


def objects() -> None:
    shared = upswell.Dict.from_name("shared", create_if_missing=True)
    reveal_type(shared)  # is: Dict
    reveal_type(shared.put("k", 1))  # is: bool
    reveal_type(shared.len())  # is: int
    reveal_type(shared.contains("k"))  # is: bool
    reveal_type(list(shared.items()))  # is: list[tuple[Any, Any]]
    reveal_type(upswell.Dict.objects.list())  # is: list[Dict]
    with upswell.Queue.ephemeral() as queue:
        reveal_type(queue.get_many(3))  # is: list[Any]
        queue.put(1, partition_ttl=60)
        queue.put(1, partition_tll=60)  # error: call-arg


def wrong() -> None:
    shout.remote("three")  # error: arg-type
    shout.remote()  # error: call-arg
    shout.remote(3, loud=True)  # error: call-arg
    shout.remote.aio("three")  # error: arg-type
    shout.spawn(3, 4)  # error: arg-type
    shout.local("three")  # error: arg-type
    fetch.remote("a", timeout="soon")  # error: arg-type
    shout.spawn(3).get(timeout="soon")  # error: arg-type
    app.function(max_containers="many")  # error: arg-type
    upswell.Image.debian_slim().pip_install("numpy", indeks="x")  # error: call-arg


@app.function()
@upswell.concurrent(max_inputs=3)
async def together(x: int) -> str:
    return ""


@app.function()
@upswell.batched(max_batch_size=3, wait_ms=3)
def several(xs: list[int]) -> list[str]:
    return []


@app.cls(min_containers=1)
@upswell.concurrent(max_inputs=10)
class Plain:
    @upswell.enter()
    def set_up(self) -> None:
        self.ready = True

    @upswell.method()
    def text(self, x: int) -> str:
        return str(self.number.local(x))

    @upswell.method()
    async def number(self, x: int) -> int:
        return x

    @upswell.exit()
    async def close(self) -> None: ...


@app.cls()
class Sized(upswell.Obj):
    size: int = upswell.parameter(default=3)
    name: str = upswell.parameter()
    kept: object = upswell.parameter(init=False)

    @upswell.method()
    def text(self, x: int) -> str:
        return str(x)


@app.cls()
class Batches:
    @upswell.batched(max_batch_size=3, wait_ms=3)
    async def run(self, xs: list[int]) -> list[str]:
        return []


def changed_and_marked_functions() -> None:
    reveal_type(shout.with_options(cpu=2).remote(3))  # is: str
    reveal_type(shout.with_concurrency(max_inputs=2).with_batching(max_batch_size=2, wait_ms=0).remote(3))  # is: str
    reveal_type(shout.autoscaler.update(max_containers=None).max_containers)  # is: int | None
    reveal_type(together.remote(3))  # is: str
    reveal_type(several.remote(3))  # is: str
    reveal_type(list(several.map([3])))  # is: list[str]
    shout.with_options(cpus=2)  # error: call-arg


def objects_of_classes() -> None:
    plain_object = Plain()
    reveal_type(plain_object)  # is: Plain
    reveal_type(plain_object.text)  # is: Function[[x: int], str]
    reveal_type(plain_object.text.remote(3))  # is: str
    reveal_type(plain_object.number.remote(3))  # is: int
    reveal_type(plain_object.number.local(3))  # is: Coroutine[Any, Any, int]
    reveal_type(plain_object.number.remote.aio(3))  # is: Coroutine[Any, Any, int]
    reveal_type(list(plain_object.text.map([3])))  # is: list[str]
    reveal_type(plain_object.text.spawn(3).get())  # is: str
    reveal_type(Batches().run.remote(3))  # is: str
    plain_object.text.remote("3")  # error: arg-type

    sized = Sized(name="x")
    reveal_type(sized.size)  # is: int
    reveal_type(sized.text.remote(3))  # is: str
    reveal_type(Sized.with_options(cpu=1))  # is: type[Sized]
    reveal_type(Sized.with_concurrency(max_inputs=2)(name="x", size=3))  # is: Sized
    reveal_type(sized.update_autoscaler(min_containers=3).min_containers)  # is: int | None
    reveal_type(sized.get_current_stats().backlog)  # is: int
    Sized()  # error: call-arg
    Sized(name=3)  # error: arg-type
