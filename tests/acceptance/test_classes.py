"""Classes, from programs as users write them: lifecycle, pools, local use, options, and how containers end."""

import os
import signal
import subprocess
import sys

import pytest

from .processes import SECONDS_TO_RUN, UPSWELL, Program

MODELS = """
    from __future__ import annotations

    import asyncio, os, time
    import upswell as modal

    app = modal.App("models")

    class Base:
        @modal.enter()
        def first(self):
            self.order = ["first"]

        @modal.exit()
        def last(self):
            print("exit last", self.size, flush=True)

    @app.cls(max_containers=1)
    class Model(Base):
        size: int = modal.parameter(default=3)
        name: str = modal.parameter(default="plain")
        LEVEL = 7

        @modal.enter()
        async def second(self):
            self.order.append("second")
            self.loop = asyncio.get_running_loop()

        @modal.enter()
        def third(self):
            self.order.append("third")

        @modal.method()
        def scale(self, x: int, times: int = 1) -> int:
            return x * self.size * times

        @modal.method()
        async def about(self):
            return os.getpid(), self.order, self.loop is asyncio.get_running_loop()

        @modal.method()
        def nested(self, x):
            return self.scale.remote(x), Model(size=100).scale.remote(x), self.scale.local(x)

        def plain(self):
            return self.size * self.LEVEL

        @modal.exit()
        async def later(self):
            print("exit later", self.size, flush=True)

    @app.cls()
    @modal.concurrent(max_inputs=20)
    class Many:
        @modal.method()
        def nap(self, x):
            time.sleep(0.3)
            return os.getpid()

    @app.function()
    def apply(model, x):
        return model.scale.remote(x), model.size

    @app.function(max_containers=1, env={"WHO": "plain"})
    def where(_):
        return os.getpid(), os.environ["WHO"]

    @app.function()
    @modal.concurrent(max_inputs=10)
    def together(x):
        time.sleep(0.3)
        return os.getpid()

    @app.local_entrypoint()
    def verbs():
        model = Model()
        print(model.scale.remote(4), model.scale.remote(4, times=2), list(model.scale.map(range(4))))
        print(list(model.scale.starmap([(1, 1), (1, 2)])), model.scale.for_each(range(3)))
        print(model.scale.spawn(5).get(), list(model.scale.spawn_map(range(3)).iter()))
        print(asyncio.run(model.scale.remote.aio(6)), model.about.remote()[1:])

    @app.local_entrypoint()
    def pools():
        def pid(model):
            return model.about.remote()[0]
        plain = pid(Model())
        print(pid(Model(size=3)) == plain, pid(Model(name="plain", size=3)) == plain)
        others = [pid(Model(size=4)), pid(Model(name="x")), pid(Model.with_options(timeout=9)()),
                  pid(Model.with_concurrency(max_inputs=2)(size=4))]
        print(len({plain, *others}), pid(Model(size=4)) == others[0])
        functions = [where.remote(0), where.with_options(env={"WHO": "derived"}).remote(0), where.remote(0)]
        print([who for _, who in functions], functions[0] == functions[2])

    @app.local_entrypoint()
    def inside():
        print(Model(size=2).nested.remote(3), apply.remote(Model(size=5), 3))

    @app.local_entrypoint()
    def local():
        model = Model(size=2)
        print(model.plain(), model.LEVEL, hasattr(model, "order"))
        print(model.scale.local(4), model.order, asyncio.run(model.about.local())[1], isinstance(model, Model))

    @app.local_entrypoint()
    def concurrent():
        print(len(set(together.map(range(10)))), len(set(Many().nap.map(range(20)))))

    @app.local_entrypoint()
    def scaling():
        model, other = Model(), Model(size=4)
        print(model.update_autoscaler(max_containers=3, buffer_containers=1).max_containers)
        print(model.update_autoscaler(min_containers=2).buffer_containers, other.autoscaler.settings())
        print(model.autoscaler.update(max_containers=None, buffer_containers=None))
        try:
            where.autoscaler.update(min_containers=2)
        except modal.exception.InvalidError as error:
            print(error)
        while model.get_current_stats().num_total_runners < 2:
            time.sleep(0.01)
        print(other.get_current_stats(), where.update_autoscaler(scaledown_window=9).scaledown_window)
"""


def out(program: Program, name: str) -> list[str]:
    program.write(MODELS)
    done = program.upswell("run", f"program.py::{name}")
    assert (done.status, done.err) == (0, "")
    return [line for line in done.lines if "exit l" not in line]


def test_every_verb(program: Program) -> None:
    assert out(program, "verbs") == [
        "12 24 [0, 3, 6, 9]",
        "[3, 6] None",
        "15 [0, 3, 6]",
        "18 (['first', 'second', 'third'], True)",
    ]


def test_each_set_of_parameters_and_options_has_a_pool(program: Program) -> None:
    assert out(program, "pools") == ["True True", "5 True", "['plain', 'derived', 'plain'] True"]


def test_objects_inside_containers(program: Program) -> None:
    assert out(program, "inside") == ["(6, 300, 6) (15, 5)"]


def test_local_calls_run_the_hooks_once(program: Program) -> None:
    order = "['first', 'second', 'third']"
    assert out(program, "local") == ["14 7 False", f"8 {order} {order} True"]


def test_inputs_at_once_in_one_container(program: Program) -> None:
    assert out(program, "concurrent") == ["1 1"]


def test_settings_of_one_object_leave_the_others_alone(program: Program) -> None:
    defaults = "AutoscalerSettings(min_containers=0, max_containers=1, buffer_containers=0, scaledown_window=60)"
    reset = "AutoscalerSettings(min_containers=2, max_containers=None, buffer_containers=0, scaledown_window=60)"
    assert out(program, "scaling") == [
        "3",
        f"1 {defaults}",
        reset,
        "where.autoscaler.update: min_containers (2) must not exceed max_containers (1)",
        "FunctionStats(backlog=0, num_total_runners=0, num_running_inputs=0, input_headroom=0) 9",
    ]


def test_exit_hooks_run_as_the_app_ends(program: Program) -> None:
    program.write(MODELS)
    done = program.upswell("run", "program.py::Model.scale", "--x", "4", "--size", "10")
    assert (done.status, done.lines, done.err) == (0, ["40", "exit last 10", "exit later 10"], "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["Model.scale"], "Missing option '--x'"),
        (["Model.scale", "--x", "4", "--size", "y"], "'y' is not a valid integer"),
        (["Model.plain"], "nothing named 'Model.plain'"),
        (["Model"], "nothing named 'Model'; there are"),
    ],
)
def test_a_wrong_command_line(program: Program, arguments: list[str], told: str) -> None:
    program.write(MODELS)
    done = program.upswell("run", f"program.py::{arguments[0]}", *arguments[1:])
    assert done.status == 2 and told in done.err


SERIALIZED = """
    import upswell

    app = upswell.App()

    def declare(factor):
        @app.cls(serialized=True)
        class Scaled:
            by: int = upswell.parameter(default=2)

            @upswell.enter()
            def set_up(self):
                self.ready = True

            @upswell.method()
            def scale(self, x):
                return x * factor * self.by if self.ready else None

            @upswell.method()
            def twice(self, x):
                return self.scale.remote(self.scale.local(x))

        return Scaled

    Scaled = declare(3)

    if __name__ == "__main__":
        with app.run():
            print(Scaled().scale.remote(1), Scaled(by=5).twice.remote(1))
            print(Scaled.with_options(cpu=0.5)().scale.remote(2))
"""


def test_a_class_by_value(program: Program) -> None:
    program.write(SERIALIZED)
    done = program.run(sys.executable, "program.py")
    assert (done.out, done.err) == ("6 225\n12\n", "")


ENDINGS = """
    import asyncio, os, time
    import upswell

    app = upswell.App("endings")

    class Common:
        @upswell.exit()
        def bye(self):
            time.sleep(0.2)
            print("bye", type(self).__name__, flush=True)

    @app.cls()
    class Plain(Common):
        @upswell.method()
        def wait(self):
            try:
                print("started", flush=True)
                time.sleep(100)
            finally:
                print("let go", flush=True)

        @upswell.method()
        def crash(self):
            os._exit(3)

    @app.cls()
    class Asynchronous(Common):
        @upswell.method()
        async def wait(self):
            try:
                print("started", flush=True)
                await asyncio.sleep(100)
            finally:
                print("let go", flush=True)

    @app.cls(scaledown_window=2)
    class Brief(Common):
        @upswell.exit()
        def leave(self):
            os.mkdir("kept")

        @upswell.method()
        def one(self):
            return 1

    @app.cls(startup_timeout=1)
    class Slow(Common):
        @upswell.enter()
        def set_up(self):
            time.sleep(100)

        @upswell.method()
        def one(self):
            return 1

    @app.cls()
    class Broken(Common):
        @upswell.enter()
        async def set_up(self):
            raise LookupError("no such model")

        @upswell.method()
        def one(self):
            return 1

    @app.local_entrypoint()
    def plain():
        Plain().wait.remote()

    @app.local_entrypoint()
    def spawned():
        Plain().wait.spawn().get()

    @app.local_entrypoint()
    async def asynchronous():
        await Asynchronous().wait.remote.aio()

    @app.local_entrypoint()
    def scaled_down():
        print(Brief().one.remote())
        while not os.path.exists("kept"):
            time.sleep(0.05)
        print("end")

    @app.local_entrypoint()
    def starts():
        for kind in (Slow, Broken):
            try:
                kind().one.remote()
            except Exception as error:
                print(type(error).__name__, str(error).partition(": ")[2] or error, getattr(error, "__notes__", ""))

    @app.local_entrypoint()
    def crashed():
        try:
            Plain().crash.remote()
        except upswell.exception.RemoteError as error:
            print("status 3" in str(error))
"""


@pytest.mark.parametrize(("name", "kind"), [("plain", "Plain"), ("spawned", "Plain"), ("asynchronous", "Asynchronous")])
def test_ctrl_c_lets_inputs_go_and_runs_exit_hooks(program: Program, name: str, kind: str) -> None:
    program.write(ENDINGS)
    process = program.start([*UPSWELL, "run", f"program.py::{name}"])
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)
    rest, err = process.communicate(timeout=SECONDS_TO_RUN)
    assert (process.returncode, rest, err) == (130, f"let go\nbye {kind}\n", "")
    program.assert_all_gone()


def test_exit_hooks_run_on_scale_down(program: Program) -> None:
    program.write(ENDINGS)
    lines = program.upswell("run", "program.py::scaled_down").lines
    assert sorted(lines) == ["1", "bye Brief", "end"], "the program ends when a hook has run, whose line may come later"


def test_exit_hooks_do_not_run_after_a_crash(program: Program) -> None:
    program.write(ENDINGS)
    assert program.upswell("run", "program.py::crashed").lines == ["True"]


def test_what_start_up_hooks_do_wrong_reaches_the_caller(program: Program) -> None:
    program.write(ENDINGS)
    assert program.upswell("run", "program.py::starts").lines == [
        "RemoteError it exceeded startup_timeout=1 s ",
        "LookupError no such model ['This happened as a container started, before any input ran.']",
    ]


def test_a_second_ctrl_c_does_not_wait_for_exit_hooks(program: Program) -> None:
    program.write(ENDINGS.replace("time.sleep(0.2)", "print('leaving', flush=True); time.sleep(20)"))
    process = program.start([*UPSWELL, "run", "program.py::plain"])
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)
    assert [process.stdout.readline() for _ in range(2)] == ["let go\n", "leaving\n"]
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=SECONDS_TO_RUN)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    program.assert_all_gone()
