"""Several inputs in one container: threads for plain code, tasks of one loop for asynchronous code."""

from .processes import Program

CONCURRENT = """
    import asyncio, collections, os, pathlib, threading, time
    import upswell
    from upswell.exception import FunctionTimeoutError

    app = upswell.App("concurrent")

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=1000)
    async def gather(x):
        \"\"\"Returns only when a thousand inputs are here at once.\"\"\"
        here.add(x)
        if len(here) == 1000:
            all_are_here.set()
        await asyncio.wait_for(all_are_here.wait(), 60)
        return os.getpid()

    here, all_are_here = set(), asyncio.Event()

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=10)
    def meet(x):
        \"\"\"Returns only when ten inputs are here at once.\"\"\"
        barrier.wait(timeout=60)
        main = threading.current_thread() is threading.main_thread()
        return os.getpid(), main, upswell.current_input_id()

    barrier = threading.Barrier(10)

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=50)
    async def identify(x):
        before = upswell.current_input_id()
        await asyncio.sleep(0.05)
        assert before == upswell.current_input_id()
        return int(before.rpartition("-")[2]) == x

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=3)
    async def counted(x):
        \"\"\"The first ones wait until there are three.\"\"\"
        global now, most
        now += 1
        most = max(most, now)
        if now == 3:
            three.set()
        await asyncio.wait_for(three.wait(), 60)
        await asyncio.sleep(0.01)
        now -= 1
        return most

    now = most = 0
    three = asyncio.Event()

    @app.function()
    @upswell.concurrent(max_inputs=6, target_inputs=2)
    def spread(x, folder):
        pathlib.Path(folder, str(x)).touch()
        while not os.path.exists(folder + "/go"):
            time.sleep(0.05)
        return os.getpid()

    @app.function(max_containers=1, timeout=4)
    @upswell.concurrent(max_inputs=8)
    def threaded(seconds, folder):
        pathlib.Path(folder, f"{seconds}-{time.time_ns()}").touch()
        time.sleep(seconds)
        return seconds

    @app.function(max_containers=1, timeout=3)
    @upswell.concurrent(max_inputs=8)
    async def awaited(seconds):
        await asyncio.sleep(seconds)
        return os.getpid()

    @app.function(max_containers=1, timeout=2)
    @upswell.concurrent(max_inputs=3)
    async def blocking(x, folder):
        \"\"\"The one begins when both others are there, and none of them ends before it blocks them.\"\"\"
        pathlib.Path(folder, f"{x}").touch()
        while len(os.listdir(folder)) < (3 if x == 1 else 4):
            await asyncio.sleep(0.01)
        if x == 1:
            pathlib.Path(folder, "blocked").touch()
            time.sleep(30)
        return x

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=2)
    def tree(depth):
        return 1 + sum(tree.map([depth - 1] * 2)) if depth else 1

    @app.function(max_containers=1)
    @upswell.concurrent(max_inputs=2)
    async def forest(depth):
        if not depth:
            return 1
        return 1 + sum(await asyncio.gather(*(forest.remote.aio(depth - 1) for _ in range(3))))

    @app.function(max_containers=2, single_use_containers=True)
    def alone(x):
        return os.getpid()

    @app.function(max_containers=1, memory=200)
    @upswell.concurrent(max_inputs=200)
    async def hold(name, folder):
        \"\"\"All are there before the first is cancelled, and `stays` goes on.\"\"\"
        pathlib.Path(folder, f"{name}-{time.time_ns()}").touch()
        while not (name == "stays" and os.path.exists(folder + "/go")):
            await asyncio.sleep(0.05)
        return name

    @app.local_entrypoint()
    def cancelled(folder: str):
        os.makedirs(folder)
        many, stays = hold.spawn_map(range(150), kwargs={"folder": folder}), hold.spawn("stays", folder)
        while len(os.listdir(folder)) < 151:
            time.sleep(0.05)
        many.cancel()
        time.sleep(0.5)
        pathlib.Path(folder, "go").touch()
        print(stays.get(), len(os.listdir(folder)))

    @app.local_entrypoint()
    def thousand():
        print(len(set(gather.map(range(1000)))))

    @app.local_entrypoint()
    def threads():
        seen = list(meet.map(range(10)))
        ids = {input_id for _, _, input_id in seen}
        print(len({pid for pid, _, _ in seen}), sum(main for _, main, _ in seen), len(ids))

    @app.local_entrypoint()
    def ids():
        print(all(identify.map(range(200))))

    @app.local_entrypoint()
    def limit():
        print(max(counted.map(range(100))))

    @app.local_entrypoint()
    def target(folder: str):
        os.makedirs(folder)
        call = spread.spawn_map(range(12), kwargs={"folder": folder})
        while len(os.listdir(folder)) < 12:
            time.sleep(0.05)
        pathlib.Path(folder, "go").touch()
        pids = collections.Counter(call.iter())
        print(len(pids) > 1, max(pids.values()))

    @app.local_entrypoint()
    def late(folder: str):
        os.makedirs(folder)
        inputs = [1.0, 30, 1.1, 1.2, 0.1]
        results = list(threaded.map(inputs, kwargs={"folder": folder}, return_exceptions=True))
        print([one if isinstance(one, float) else type(one).__name__ for one in results])
        results = list(awaited.map([0.5, 30, 0.5, 0.1], return_exceptions=True))
        print(len({one for one in results if isinstance(one, int)}), type(results[1]).__name__)

    @app.local_entrypoint()
    def blocked(folder: str):
        os.makedirs(folder)
        results = list(blocking.map([0, 1, 2], kwargs={"folder": folder}, return_exceptions=True))
        print([one if isinstance(one, int) else type(one).__name__ for one in results])

    @app.local_entrypoint()
    def nested():
        print(tree.remote(4), forest.remote(3))

    @app.local_entrypoint()
    def once():
        print(len(set(alone.map(range(6)))))
"""


def out(program: Program, name: str, *arguments: str) -> list[str]:
    program.write(CONCURRENT)
    done = program.upswell("run", f"program.py::{name}", *arguments)
    assert done.status == 0, done.err
    return done.lines


def test_a_thousand_sleeping_tasks_share_a_container(program: Program) -> None:
    assert out(program, "thousand") == ["1"]


def test_plain_code_runs_in_threads_of_which_the_main_thread_is_one(program: Program) -> None:
    assert out(program, "threads") == ["1 1 10"]


def test_each_task_knows_its_own_input(program: Program) -> None:
    assert out(program, "ids") == ["True"]


def test_never_more_than_max_inputs(program: Program) -> None:
    assert out(program, "limit") == ["3"]


def test_containers_are_started_for_the_target(program: Program) -> None:
    several, most = out(program, "target", "--folder", "kept")[0].split()
    assert several == "True" and int(most) <= 6


def test_an_input_that_takes_too_long_fails_alone(program: Program) -> None:
    assert out(program, "late", "--folder", "kept") == [
        "[1.0, 'FunctionTimeoutError', 1.1, 1.2, 0.1]",
        "1 FunctionTimeoutError",
    ]


def test_who_blocks_the_loop_fails_and_not_who_was_blocked(program: Program) -> None:
    assert out(program, "blocked", "--folder", "kept") == ["[0, 'FunctionTimeoutError', 2]"]


def test_nested_calls_lend_their_places(program: Program) -> None:
    assert out(program, "nested") == ["31 40"]


def test_single_use_containers_run_one_input(program: Program) -> None:
    assert out(program, "once") == ["6"]


def test_many_inputs_of_a_small_container_are_cancelled_at_once(program: Program) -> None:
    assert out(program, "cancelled", "--folder", "kept") == ["stays 152"]
