"""What containers find in their environment, and what is said of options that do not build or mount anything."""

import sys

import pytest

from .processes import Program

VARIABLES = """
    import os
    import upswell
    from upswell import Image, Secret

    common = Secret.from_dict({"COMMON": "app", "TOKEN": "of the app"})
    app = upswell.App("variables", secrets=[common])
    image = Image.debian_slim().env({"FROM_IMAGE": "image", "MODE": "image"})

    def seen():
        names = ("COMMON", "TOKEN", "FROM_IMAGE", "MODE", "LOCAL", "DOTENV")
        return " ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)

    @app.function()
    def plain():
        return seen()

    @app.function(image=image, secrets=[Secret.from_dict({"TOKEN": "s1", "MODE": "secret"})], env={"MODE": "env"})
    def with_secret():
        return seen()

    @app.function(secrets=[Secret.from_local_environ(["LOCAL"]), Secret.from_dotenv(__file__)])
    def with_file():
        return seen()

    @app.function(secrets=[Secret.from_dict({"TOKEN": "hush hush"})])
    def failing():
        raise ValueError(f"seen: {'TOKEN' in os.environ}")

    @app.local_entrypoint()
    def main():
        print(plain.remote())
        print(with_secret.remote())
        print(with_file.remote())
        print(seen() or "nothing here")

    @app.local_entrypoint()
    def fails():
        failing.remote()
"""


def test_variables_reach_the_containers_of_their_function_and_no_others(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL", "local")
    program.write(VARIABLES)
    program.write("DOTENV=file # of the folder\n", ".env")
    done = program.upswell("run", "program.py::main")
    assert done.status == 0
    assert done.lines == [
        "COMMON=app TOKEN=of the app LOCAL=local",
        "COMMON=app TOKEN=s1 FROM_IMAGE=image MODE=env LOCAL=local",
        "COMMON=app TOKEN=of the app LOCAL=local DOTENV=file",
        "LOCAL=local",
    ]
    assert done.err.splitlines() == [
        "upswell: image= is recorded, not built: containers run in this program's own Python environment"
    ]


def test_a_traceback_shows_no_secret(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL", "local")
    program.write(VARIABLES)
    program.write("DOTENV=file\n", ".env")
    done = program.upswell("run", "program.py::fails")
    assert done.status == 1 and "seen: True" in done.err
    assert "hush" not in done.err + done.out


def test_a_missing_secret_is_named_when_the_app_runs(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App("named")

        @app.function(secrets=[upswell.Secret.from_name("openai", required_keys=["OPENAI_API_KEY"])])
        def f(x):
            return x

        @app.local_entrypoint()
        def main():
            f.remote(1)
    """)
    done = program.upswell("run", "program.py")
    assert done.status == 1
    assert "Secret.from_name('openai'): no server keeps secrets" in done.err
    assert "Secret.from_local_environ(['OPENAI_API_KEY'])" in done.err


def test_options_that_mount_and_reserve_nothing_say_so_once(program: Program) -> None:
    program.write("""
        import upswell

        volume = upswell.Volume.from_name("data", create_if_missing=True)
        app = upswell.App("options", volumes={"/no/such/place": volume})

        @app.function(gpu="H100:2", region="eu", volumes={"/no/such/place": volume})
        def f(x):
            volume.commit()
            return x

        @app.function(gpu=["A100", "any"], image=upswell.Image.debian_slim(), region="us")
        def g(x):
            return x

        @app.local_entrypoint()
        def main():
            print(f.remote(1), g.remote(2))
    """)
    done = program.upswell("run", "program.py")
    assert (done.status, done.lines) == (0, ["1 2"])
    assert done.err.splitlines() == [
        "upswell: volumes= are not mounted: '/no/such/place' is this machine's own, "
        "where this directory does not exist",
        "upswell: region= has no effect here",
        "upswell: gpu= reserves nothing on a machine without GPUs: containers run there without",
        "upswell: image= is recorded, not built: containers run in this program's own Python environment",
    ]
    quiet = program.upswell("run", "-q", "program.py")
    assert (quiet.status, quiet.lines, quiet.err) == (0, ["1 2"], "")


def test_gpus_are_reserved_where_there_are_some(program: Program) -> None:
    program.write("""
        import os
        import pathlib
        import time
        import upswell

        app = upswell.App("gpus")

        @app.function(gpu=["H100", "any:2"])
        def pair(x):
            pathlib.Path("kept", str(os.getpid())).touch()
            while len(os.listdir("kept")) < 2:
                time.sleep(0.01)
            return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()

        @app.function(gpu="any:8")
        def many(x):
            return x

        @app.local_entrypoint()
        def main():
            os.mkdir("kept")
            answers = set(pair.map(range(12)))
            print(sorted(devices for devices, _ in answers))
            try:
                many.remote(1)
            except upswell.exception.NotFoundError as error:
                print(error)
    """)
    program.variables["CUDA_VISIBLE_DEVICES"] = "0,1,2,3,4"
    done = program.upswell("run", "program.py")
    assert done.status == 0, done.err
    assert done.lines[0] == "['0,1', '2,3']", "two containers, though there are inputs for twelve"
    assert "many asks for gpu=any:8, and this machine has" in done.lines[1] and "5 GPUs: ask for less" in done.lines[1]
    assert "gpu=" not in done.err


def test_an_import_that_fails_for_an_image_fails_the_functions_that_use_it(program: Program) -> None:
    program.write("""
        import upswell

        app = upswell.App("imports")
        image = upswell.Image.debian_slim().pip_install("no_such_module")
        with image.imports():
            import no_such_module

        @app.function()
        def without(x):
            return x

        @app.function(image=image)
        def using(x):
            return no_such_module.call(x)

        @app.local_entrypoint()
        def main():
            print(without.remote(1))
            try:
                using.remote(1)
            except ModuleNotFoundError as error:
                print(error, *error.__notes__, sep="\\n")
    """)
    done = program.upswell("run", "program.py")
    assert done.status == 0, done.err
    assert done.lines == [
        "1",
        "No module named 'no_such_module'",
        f"An image is recorded, not built: what it is to have is to be installed in {sys.prefix}.",
        "This happened as a container started, before any input ran.",
    ]


@pytest.mark.parametrize("engine", ["local", "spawn"])
def test_what_ps_shows_of_its_processes(program: Program, engine: str) -> None:
    program.variables["UPSWELL_ENGINE"] = engine
    program.write("""
        import os, pathlib, upswell

        app = upswell.App()

        @app.function()
        def above():
            shown, process = [], os.getpid()
            while process != 1:
                words = pathlib.Path(f"/proc/{process}/cmdline").read_text().replace("\\0", " ").strip()
                name = pathlib.Path(f"/proc/{process}/comm").read_text().strip()
                shown.append(f"{words} ({name})")
                process = int(pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
            return shown

        @app.local_entrypoint()
        def main():
            print(*above.remote(), sep="\\n")
    """)
    container, zygote, root, server, *_ = program.upswell("run", "program.py").lines
    assert container == "upswell: above, container 1 (upswell: above,)"
    assert zygote == "upswell: program, zygote (upswell: progra)"
    assert root == "upswell: root zygote (upswell: root z)"
    assert "-m upswell.server" in server
