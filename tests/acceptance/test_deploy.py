"""Apps that a server keeps: what is sent, what is served, and how it is called by name from anywhere."""

import json
import os
import shutil
import signal
import socket
import sys
import time

import pytest

from upswell.server.tokens import TokenFile

from .processes import SECONDS_TO_RUN, UPSWELL, Program, kept_server, reserve_port, until

pytestmark = pytest.mark.usefixtures("keeper")

CENSUS = """
    import os
    import helper
    import upswell

    app = upswell.App("census")

    @app.function()
    def square(x: int) -> int:
        return helper.times(x, x)

    @app.function()
    def where():
        return os.path.basename(__file__), os.getcwd() == os.path.dirname(__file__), upswell.is_local()

    @app.function()
    def count(stop: int):
        yield from range(stop)

    @app.function()
    async def slowly(x: int) -> int:
        return x

    @app.function()
    def fail():
        raise helper.Mistake("on purpose")

    @app.cls()
    class Model:
        size: int = upswell.parameter()
        name: str = upswell.parameter(default="plain")

        @upswell.enter()
        def load(self):
            self.loaded = self.size * 10

        @upswell.method()
        def predict(self, x: int):
            return self.name, self.loaded + x

        @upswell.method()
        def stream(self, stop: int):
            yield from range(stop)
"""
HELPER = """
    def times(x, y):
        return x * y

    class Mistake(Exception):
        pass
"""


def deployed(program: Program, *options: str, text: str = CENSUS) -> None:
    """Deploy from a folder that is gone afterwards."""
    program.write(text, "project/app.py")
    program.write(HELPER, "project/helper.py")
    done = program.upswell("deploy", "project/app.py", *options)
    assert (done.status, done.err) == (0, "")
    shutil.rmtree(program.folder / "project")


def python(program: Program, text: str, *arguments: str) -> list[str]:
    """What a program prints that knows nothing of the app but its names."""
    path = program.write(text, "caller.py")
    done = program.run(sys.executable, str(path), *arguments)
    path.unlink()
    assert (done.status, done.err) == (0, ""), done.err
    return done.lines


def test_it_is_called_by_name_when_its_files_are_gone(program: Program) -> None:
    deployed(program)
    text = """
        from upswell import Cls, Function, FunctionCall

        square = Function.from_name("census", "square")
        print(square.remote(4), list(square.map(range(4))), list(square.starmap([(5,), (6,)])))
        call = square.spawn(7)
        print(call.get(), FunctionCall.from_id(call.object_id).get(), list(square.spawn_map([8, 9]).iter()))
        print(Function.from_name("census", "where").remote(), Function.from_name("census", "slowly").remote(1))
        print(list(Function.from_name("census", "count").remote_gen(3)))
        Model = Cls.from_name("census", "Model")
        print(Model(size=1).predict.remote(2), Model(size=1, name="other").predict.remote(2))
        print(list(Model(size=1).stream.remote_gen(2)))
        print(square.with_options(max_containers=1).remote(2), Model.with_options(timeout=9)(size=3).predict.remote(1))
    """
    assert python(program, text) == [
        "16 [0, 1, 4, 9] [25, 36]",
        "49 49 [64, 81]",
        "('app.py', True, False) 1",
        "[0, 1, 2]",
        "('plain', 12) ('other', 12)",
        "[0, 1]",
        "4 ('plain', 31)",
    ]


def test_from_asynchronous_code(program: Program) -> None:
    deployed(program)
    text = """
        import asyncio
        from upswell import App, Cls, Function

        async def main():
            square = Function.from_name("census", "square")
            print(await asyncio.gather(*(square.remote.aio(x) for x in range(3))))
            print([y async for y in square.map.aio([3, 4])], await square.hydrate.aio() is square.hydrate())
            print([y async for y in Function.from_name("census", "count").remote_gen.aio(2)])
            print(await (await square.spawn.aio(5)).get.aio())
            print(await Cls.from_name("census", "Model")(size=1).predict.remote.aio(1))
            settings = await square.update_autoscaler.aio(max_containers=3)
            print(settings.max_containers, (await square.get_current_stats.aio()).backlog)
            print((await App.lookup.aio("census")).name)

        asyncio.run(main())
    """
    assert python(program, text) == ["[0, 1, 4]", "[9, 16] True", "[0, 1]", "25", "('plain', 11)", "3 0", "census"]


def test_from_a_container_of_another_app(program: Program) -> None:
    """That of a deployed one asks its own server; that of one that runs for a program, the one that keeps apps."""
    deployed(program)
    text = """
        import upswell
        from upswell import Cls, Function

        app = upswell.App("other")

        @app.function()
        def through(x: int):
            square, Model = Function.from_name("census", "square"), Cls.from_name("census", "Model")
            return square.remote(x), sum(square.map(range(x))), Model(size=x).predict.remote(0)

        @app.function()
        def elsewhere(x: int):
            return Function.from_name("other", "through").remote(x)

        @app.local_entrypoint()
        def main():
            print(through.remote(3), elsewhere.remote(3), Function.from_name("other", "elsewhere").remote(3))
    """
    path = program.write(text, "project/app.py")
    assert program.upswell("deploy", str(path)).status == 0
    done = program.upswell("run", str(path))
    assert (done.out, done.err) == (" ".join(["(9, 5, ('plain', 30))"] * 3) + "\n", "")


def test_what_is_wrong_is_said_at_first_use(program: Program) -> None:
    deployed(program)
    text = """
        from upswell import App, Cls, Function, exception

        Model, Missing = Cls.from_name("census", "Model"), Cls.from_name("census", "M")
        nothing = Function.from_name("census", "cube"), Function.from_name("cens", "square")
        for wrong in (
            lambda: nothing[0].remote(1),
            lambda: nothing[1].map([1]),
            lambda: nothing[0].hydrate(),
            lambda: Missing.hydrate(),
            lambda: Missing(size=1),
            lambda: Function.from_name("census", "Model.predict").remote(1),
            lambda: Function.from_name("census", "square", version=7).remote(1),
            lambda: Function.from_name("census", "Model").remote(1),
            lambda: Cls.from_name("census", "square")(),
            lambda: Function.from_name("census", "square").local(1),
            lambda: Model(size=1).predict.local(1),
            lambda: Function.from_name("census", "count").remote(1),
            lambda: Function.from_name("census", "square").remote_gen(1),
            lambda: Function.from_name("census", "square").update_autoscaler(min_containers=2, max_containers=1),
            lambda: Model(),
            lambda: Model(size="1"),
            lambda: Model(size=1, sise=1),
            lambda: Model(size=1).cube,
            lambda: App.lookup("cens"),
        ):
            try:
                wrong()
            except (exception.Error, AttributeError) as error:
                print(f"{type(error).__name__}: {error}")
    """
    expected = [
        "NotFoundError: census has no function or class 'cube': it has Model, count, fail, slowly, square",
        "NotFoundError: there is no app 'cens' here (there is census): deploy it first",
        "NotFoundError: census has no function or class 'cube': it has",
        "NotFoundError: census has no function or class 'M': it has",
        "NotFoundError: census has no function or class 'M': it has Model, count, fail, slowly, square, …",
        "NotFoundError: census has no function or class 'Model.predict': methods are those of an object, as in upswell",
        "NotFoundError: census is served in version 1, not in version 7",
        "InvalidError: Model of the app census is a class: use upswell.Cls.from_name('census', 'Model')",
        "InvalidError: square of the app census is a function: use upswell.Function.from_name('census', 'square')",
        "ExecutionError: square of the app census is known here by its name, so it can't run here: use .remote(...), ",
        "ExecutionError: Model.predict of the app census is known here by its name, so it can't run here: ",
        "InvalidError: count is a generator: use count.remote_gen(...), not .remote",
        "InvalidError: square is no generator: use square.remote(...), not .remote_gen",
        "InvalidError: square.update_autoscaler: min_containers (2) must not exceed max_containers (1)",
        "ParameterError: Model: parameter 'size' is missing, and it has no default",
        "ParameterError: Model: parameter 'size' must be int, not '1'",
        "ParameterError: Model has no parameter 'sise'; there are: size, name",
        "AttributeError: 'Model' object has no attribute 'cube'",
        "NotFoundError: there is no app 'cens' here (there is census): deploy it first",
    ]
    for said, words in zip(python(program, text), expected, strict=True):
        assert said.startswith(words)


def test_handles_travel_into_containers(program: Program) -> None:
    deployed(program)
    text = """
        import upswell
        from upswell import Cls, Function

        app = upswell.App("passing")

        @app.function(serialized=True)
        def apply(function, model, call):
            return function.remote(3), model.predict.remote(1), call.get()

        @app.function(serialized=True)
        def call(method, x):
            return method.remote(x)

        if __name__ == "__main__":
            square = Function.from_name("census", "square")
            model = Cls.from_name("census", "Model").with_options(timeout=20)(size=2)
            with app.run():
                print(apply.remote(square, model, square.spawn(5)))
                print(apply.remote(square.with_options(timeout=20), model, square.spawn(5)))
                print(call.remote(model.predict, 1))
    """
    assert python(program, text) == ["(9, ('plain', 21), 25)", "(9, ('plain', 21), 25)", "('plain', 21)"]


def test_an_exception_has_the_lines_of_the_code(program: Program) -> None:
    deployed(program)
    text = """
        import traceback
        from upswell import Function

        try:
            Function.from_name("census", "fail").remote()
        except Exception as error:
            print(type(error).__name__, error)
            traceback.print_exc(file=__import__("sys").stdout)
    """
    said = "\n".join(python(program, text))
    assert 'raise helper.Mistake("on purpose")' in said and "/app.py" in said


def test_an_unchanged_deploy_makes_no_version(program: Program) -> None:
    program.write(HELPER, "project/helper.py")
    program.write(CENSUS, "project/app.py")
    first = program.upswell("deploy", "project/app.py", "--json")
    told = json.loads(first.out)
    assert {name: told[name] for name in ("name", "version", "unchanged", "files", "sent")} == {
        "name": "census",
        "version": 1,
        "unchanged": False,
        "files": 2,
        "sent": 2,
    }
    assert [one["name"] for one in told["functions"]] == ["square", "where", "count", "slowly", "fail", "Model"]
    again = program.upswell("deploy", "project/app.py")
    assert again.out == "census is unchanged: version 1 is served, with the settings that it was deployed with\n"
    # The same code is the same version, wherever it is deployed from.
    shutil.move(program.folder / "project", program.folder / "moved")
    done = program.run("/bin/sh", "-c", 'cd moved && exec "$0" "$@"', *UPSWELL, "deploy", "app.py", "--json")
    told |= {"unchanged": True, "sent": 0}
    assert json.loads(done.out) == told
    program.write(HELPER + "\n    more = 1\n", "moved/helper.py")
    changed = program.upswell("deploy", "moved/app.py", "--tag", "more")
    assert changed.lines[0].startswith("census, version 2: 2 files of code, ")
    assert changed.lines[0].endswith(", 1 of them sent")


def test_a_new_version_is_what_is_called(program: Program) -> None:
    text = """
        import upswell
        app = upswell.App("version")

        @app.function()
        def told():
            return {version}

        @app.function()
        def only_in_{version}():
            return True
    """
    call = """
        from upswell import Function
        print(Function.from_name("version", "told").remote())
        try:
            print(Function.from_name("version", "only_in_1").remote())
        except Exception as error:
            print(error)
    """
    deployed(program, text=text.format(version=1))
    assert python(program, call) == ["1", "True"]
    deployed(program, "--strategy", "recreate", text=text.format(version=2))
    assert python(program, call) == ["2", "version has no function or class 'only_in_1': it has only_in_2, told"]


def test_an_app_under_another_name(program: Program) -> None:
    deployed(program, "--name", "staging")
    text = """
        from upswell import App, Cls, Function
        print(Function.from_name("staging", "square").remote(3))
        print(Cls.from_name("staging", "Model")(size=1).predict.remote(3))
        App.lookup("staging").stop()
        try:
            Function.from_name("staging", "square").remote(3)
        except Exception as error:
            print(type(error).__name__)
    """
    assert python(program, text) == ["9", "('plain', 13)", "NotFoundError"]


def test_a_package_with_its_data(program: Program) -> None:
    program.write("", "project/package/__init__.py")
    program.write("words = 'of the package'", "project/package/inner/part.py")
    program.write("", "project/package/inner/__init__.py")
    program.write("data", "project/package/data.txt")
    program.write(
        """
        from pathlib import Path
        import upswell
        from .inner.part import words

        app = upswell.App("package")

        @app.function()
        def read():
            return words, (Path(__file__).parent / "data.txt").read_text()
        """,
        "project/package/app.py",
    )
    done = program.run("/bin/sh", "-c", 'cd project && exec "$0" "$@"', *UPSWELL, "deploy", "-m", "package.app")
    assert (done.status, done.err) == (0, "")
    assert done.lines[0].startswith("package, version 1: 5 files of code")
    shutil.rmtree(program.folder / "project")
    text = "from upswell import Function\nprint(Function.from_name('package', 'read').remote())"
    assert python(program, text) == ["('of the package', 'data')"]


def test_functions_of_several_modules(program: Program) -> None:
    program.write("import upswell\napp = upswell.App('parts')\n", "project/common.py")
    for name in ("left", "right"):
        text = f"from common import app\n@app.function()\ndef {name}():\n    return __name__\n"
        program.write(text, f"project/{name}.py")
    program.write("import left, right\nfrom common import app\n", "project/main.py")
    assert program.upswell("deploy", "project/main.py").status == 0
    shutil.rmtree(program.folder / "project")
    text = "from upswell import Function\nprint(*(Function.from_name('parts', x).remote() for x in ('left', 'right')))"
    assert python(program, text) == ["left right"]


def test_a_program_from_standard_input(program: Program) -> None:
    text = "import upswell\napp = upswell.App('typed')\n@app.function()\ndef f(): raise KeyError('typed')\n"
    done = program.upswell("deploy", "-", given=text)
    assert (done.status, done.err) == (0, "") and "1 file of code" in done.out
    call = """
        import traceback, sys
        from upswell import Function
        try:
            Function.from_name('typed', 'f').remote()
        except KeyError:
            traceback.print_exc(file=sys.stdout)
    """
    assert "def f(): raise KeyError('typed')" in "\n".join(python(program, call))


def test_functions_that_travel_by_value(program: Program) -> None:
    """As of a notebook: there is no file."""
    text = """
        import upswell
        app = upswell.App("notebook")
        scale = 7

        @app.function(serialized=True)
        def scaled(x):
            return x * scale

        print(app.deploy().name, scaled.remote(6))
        print(upswell.Function.from_name("notebook", "scaled").remote(3))
    """
    path = program.write(text)
    done = program.run(sys.executable, "-c", path.read_text())
    assert (done.err, done.lines) == ("", ["notebook 42", "21"])


def test_a_program_that_deploys_itself_needs_no_guard(program: Program) -> None:
    text = """
        import upswell
        app = upswell.App("itself")

        @app.function()
        def f(x):
            return x + 1

        app.deploy()
        print(f.remote(1), app)
        app.deploy()
        with app.run():
            print(f.remote(2), app)
        print(f.remote(3), f.with_options(timeout=5).remote(3), app)
        app.stop()
        print(app)
    """
    program.write(text)
    done = program.run(sys.executable, "program.py")
    shown = "App('itself', 1 functions, {})"
    assert done.err == "upswell: itself is unchanged: version 1 is served\n"
    assert done.lines == [
        f"2 {shown.format('deployed')}",
        f"3 {shown.format('running')}",
        f"4 4 {shown.format('deployed')}",
        shown.format("not running"),
    ]


def test_a_private_server_and_the_one_that_keeps_apps(program: Program) -> None:
    deployed(program)
    text = """
        import upswell
        app = upswell.App("mine")

        @app.function()
        def double(x):
            return 2 * x

        if __name__ == "__main__":
            square = upswell.Function.from_name("census", "square")
            with app.run():
                print(list(double.map(square.map(range(4)))), list(square.map(double.map(range(4)))))
                calls = double.spawn(4), square.spawn(4)
                print(upswell.FunctionCall.gather(*calls))
                print([upswell.FunctionCall.from_id(call.object_id).get() for call in calls])
            print(square.remote(5))
    """
    assert python(program, text) == ["[0, 2, 8, 18] [0, 4, 16, 36]", "[8, 16]", "[8, 16]", "25"]


def test_who_looks_at_the_wrong_server_for_what_deployed_apps_share_is_told(program: Program) -> None:
    deployed(program)
    program.write("""
        import upswell

        upswell.Function.from_name("census", "square").remote(1)
        upswell.Queue.from_name("todo", create_if_missing=True).put(1)
        upswell.Dict.from_name("seen")["today"]
    """)
    done = program.run(sys.executable, "program.py")
    place = f"at this program's own server: that of deployed apps is UPSWELL_SERVER=unix:{program.home}/server.sock"
    first, *_, last = done.err.splitlines()
    assert first == f"upswell: Queue.from_name('todo') is {place}"
    assert last.startswith("upswell.errors.NotFoundError: there is no Dict named 'seen'") and last.endswith(place)
    assert "/upswell/sdk/" not in done.err


def test_settings_changed_by_name(program: Program) -> None:
    deployed(program)
    text = """
        from upswell import Cls, Function
        square = Function.from_name("census", "square")
        print(square.update_autoscaler(min_containers=1, max_containers=4))
        print(square.autoscaler.update(min_containers=None))
        model = Cls.from_name("census", "Model")(size=1)
        model.update_autoscaler(scaledown_window=3)
        print(model.autoscaler.settings().scaledown_window)
        print(Function.from_name("census", "square").autoscaler.settings().max_containers)
    """
    shown = "AutoscalerSettings(min_containers={}, max_containers=4, buffer_containers=0, scaledown_window=60)"
    assert python(program, text) == [shown.format(1), shown.format(0), "3", "4"]
    listed = {one["name"]: one["parameters"] for one in json.loads(program.upswell("function", "list", "--json").out)}
    assert [listed["square"], *(listed[name] for name in listed if name.startswith("Model@"))] == [
        "", "size=1, name='plain'",
    ]  # fmt: skip
    assert "PARAMETERS" in program.upswell("function", "list").lines[0]
    program.write(CENSUS, "project/app.py")
    program.write(HELPER, "project/helper.py")
    assert program.upswell("deploy", "project/app.py").status == 0
    text = """
        from upswell import Function
        print(Function.from_name("census", "square").autoscaler.settings().max_containers)
    """
    assert python(program, text) == ["None"], "the next deploy goes back to what is declared"


def test_schedules_fire_once_deployed(program: Program) -> None:
    text = """
        import os, pathlib, upswell
        app = upswell.App("clock")

        @app.function(schedule=upswell.Period(seconds=0.2), max_containers=1)
        def tick():
            with open(os.environ["UPSWELL_HOME"] + "/ticks", "a") as file:
                file.write("tick\\n")

        @app.function(schedule=upswell.Cron("0 6 * * 1-5", timezone="Europe/Berlin"))
        def rise():
            pass

        @app.local_entrypoint()
        def main():
            print("here")
    """
    program.write(text)
    done = program.upswell("run", "program.py")
    assert (done.out, done.err) == (
        "here\n",
        "upswell: schedule= has no effect while a program runs its app: deploy it\n",
    )
    done = program.upswell("deploy", "program.py")
    assert done.lines[1:3] == ["  tick  every 0.2 seconds", '  rise  at "0 6 * * 1-5" (Europe/Berlin)']


def test_a_detached_run_goes_on(program: Program) -> None:
    text = """
        import time, upswell
        app = upswell.App("detached")

        @app.function()
        def slow(x):
            time.sleep(1)
            return x

        @app.local_entrypoint()
        def main():
            print(slow.remote(1), slow.spawn(2).object_id)
    """
    program.write(text)
    done = program.upswell("run", "-d", "program.py")
    assert done.status == 0
    value, call = done.lines[0].split()
    assert value == "1"
    program.folder.joinpath("program.py").unlink()
    assert "goes on" in done.err and "upswell app stop" in done.err
    assert python(program, f"from upswell import FunctionCall\nprint(FunctionCall.from_id({call!r}).get())") == ["2"]


def test_too_much_code(program: Program) -> None:
    program.write("import upswell\napp = upswell.App('large')\n@app.function()\ndef f(): ...\n", "project/app.py")
    program.write("", "project/package/__init__.py")
    with (program.folder / "project" / "package" / "weights.bin").open("wb") as file:
        file.truncate(300_000_000)
    done = program.upswell("deploy", "project/app.py")
    assert done.status == 1
    assert done.err.startswith("upswell: large can't be deployed: its code has 300.0 MB, and the limit is 268.4 MB")
    assert "package/weights.bin (300.0 MB)" in done.err


def test_files_that_an_image_names(program: Program) -> None:
    program.write("a {color: red}", "project/assets/style.css")
    program.write("notes", "project/notes.txt")
    program.write("words = 'elsewhere'", "libraries/library_of_image.py")
    text = """
        import sys, upswell
        sys.path.append("libraries")
        image = (
            upswell.Image.debian_slim()
            .add_local_dir("project/assets", "static")
            .add_local_file("project/notes.txt", "docs/")
            .add_local_python_source("library_of_image")
            .add_local_file("project/notes.txt", "/data/notes.txt")
        )
        app = upswell.App("files", image=image)

        @app.function()
        def read():
            import library_of_image
            return open("static/style.css").read(), open("docs/notes.txt").read(), library_of_image.words
    """
    program.write(text, "project/app.py")
    done = program.upswell("deploy", "project/app.py")
    assert done.status == 0
    assert "Image.add_local_file: nothing is put at /data/notes.txt of the server's machine" in done.err
    shutil.rmtree(program.folder / "project")
    shutil.rmtree(program.folder / "libraries")
    text = "from upswell import Function\nprint(Function.from_name('files', 'read').remote())"
    assert python(program, text) == ["('a {color: red}', 'notes', 'elsewhere')"]


def test_an_app_that_is_only_looked_up(program: Program) -> None:
    text = """
        from upswell import App
        app = App.lookup("new", create_if_missing=True)
        print(app.app_id == App.lookup("new").app_id, app)
    """
    assert python(program, text) == ["True App('new', 0 functions, deployed)"]


@pytest.mark.parametrize("target", ["app.py::nothing", "two.py", "empty.py"])
def test_what_is_no_app(program: Program, target: str) -> None:
    program.write("import upswell\napp = upswell.App('app')\n", "app.py")
    program.write("import upswell\none = upswell.App('one')\nanother = upswell.App('two')\n", "two.py")
    program.write("", "empty.py")
    done = program.upswell("deploy", target)
    words = {
        "app.py::nothing": "app.py has no app named 'nothing'",
        "two.py": "two.py has 2 apps ('one', 'two'): name one with two.py::NAME",
        "empty.py": "empty.py has no app: make one at its top level",
    }
    assert (done.status, done.out) == (2, "") and words[target] in done.err
    deployed, warned = program.upswell("deploy", "two.py::another").lines
    assert deployed.startswith("two, version 1") and warned == "  it has no function, so there is nothing to call"


def test_a_server_that_does_not_see_our_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As one on another machine: what runs for as long as its program is sent there, too."""
    program = Program(tmp_path_factory.mktemp("elsewhere"))
    reserved = socket.socket()
    place = f"127.0.0.1:{reserve_port(reserved)}"
    text = """
        import upswell
        import helper
        app = upswell.App("elsewhere")

        @app.function()
        def where(x):
            return __file__.partition("/code/trees/")[2][64:], helper.times(x, x)

        @app.cls()
        class Model:
            size: int = upswell.parameter()

            @upswell.method()
            def predict(self, x):
                return self.size + x, __file__.partition("/code/trees/")[2][64:]

        @app.local_entrypoint()
        def main():
            print(where.remote(3), where.with_options(timeout=9).remote(4), Model(size=1).predict.remote(2))
    """
    program.write(text, "project/app.py")
    program.write(HELPER, "project/helper.py")
    with reserved, kept_server(program, "--listen", place):
        _, token = TokenFile(program.home).create("client", time.time())
        program.variables |= {"UPSWELL_SERVER": f"tcp://{place}", "UPSWELL_TOKEN": token}
        done = program.upswell("run", "project/app.py")
        assert (done.out, done.err) == ("('/app.py', 9) ('/app.py', 16) (3, '/app.py')\n", "")
        deployed(program)
        text = "from upswell import Function\nprint(Function.from_name('census', 'square').remote(3))"
        assert python(program, text) == ["9"]


def test_the_first_deploy_starts_a_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    program = Program(tmp_path_factory.mktemp("first"))
    program.write(CENSUS, "project/app.py")
    program.write(HELPER, "project/helper.py")
    call = "from upswell import Function; print(Function.from_name('census', 'square').remote(3))"
    try:
        first = program.start([*UPSWELL, "deploy", "project/app.py"])
        out, err = first.communicate(timeout=SECONDS_TO_RUN)
        assert out.startswith("census, version 1") and "started a server in the background" in err
        again = program.start([*UPSWELL, "deploy", "project/app.py"])
        out, err = again.communicate(timeout=SECONDS_TO_RUN)
        assert out.startswith("census is unchanged") and err == ""
        caller = program.start([sys.executable, "-c", call])
        assert caller.communicate(timeout=SECONDS_TO_RUN) == ("9\n", "")
    finally:
        os.kill(int((program.home / "lock").read_text()), signal.SIGTERM)
        assert until(lambda: not program.processes())


def test_it_is_served_again_after_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    program = Program(tmp_path_factory.mktemp("restart"))
    text = """
        from upswell import Cls, Function
        print(Function.from_name("census", "square").remote(3))
        print(Cls.from_name("census", "Model")(size=1).predict.remote(1))
    """
    with kept_server(program):
        deployed(program)
    with kept_server(program):
        assert python(program, text) == ["9", "('plain', 11)"]
