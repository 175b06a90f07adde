"""At a real terminal: live progress while it runs, container lines above it, and nothing of it afterwards."""

import shutil

import pytest

from .processes import UPSWELL, Program, until
from .tmux import HEIGHT, Tmux

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

PROGRAM = """
    import os, time, upswell

    app = upswell.App()

    @app.function(max_containers=2)
    def simmer(x):
        if x == 3:
            print("container says", x)
        while x >= 10 and not os.path.exists("kept"):
            time.sleep(0.05)
        return x

    @app.local_entrypoint()
    def main():
        print("begin")
        for x in simmer.map(range(30)):
            if x % 10 == 9:
                print("done", x)
"""


def test_progress_while_it_runs_and_nothing_afterwards(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM)
    terminal.type(*UPSWELL, "run", "program.py")
    shown: list[str] = []

    def held() -> bool:
        """Whether all is shown that comes before the inputs that wait."""
        shown[:] = terminal.screen()
        words = ("container says 3", "done 9", "10/30", "2 running", "2 containers")
        return all(word in "\n".join(shown) for word in words)

    assert until(held), shown
    (line,) = [line for line in shown if "running" in line]
    for words in ("simmer", "10/30", "/s", "18 pending", "2 containers"):
        assert words in line
    assert shown.index("begin") < shown.index("done 9") < shown.index(line)
    assert shown.index("container says 3") < shown.index(line)
    (program.folder / "kept").mkdir()
    assert until(lambda: any(line.startswith("status=") for line in terminal.screen())), terminal.screen()
    last = [line for line in terminal.screen() if line]
    assert sorted(last) == sorted(["begin", "container says 3", "done 9", "done 19", "done 29", "status=0"])


def test_progress_is_of_all_inputs_that_there_will_be(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM.replace("range(30)", "range(2500)"))
    terminal.type(*UPSWELL, "run", "program.py")
    assert until(lambda: "10/2,500" in (shown := "".join(terminal.screen())) and "2,488 pending" in shown)
    terminal.press("C-c")
    assert until(lambda: "status=130" in terminal.screen()), terminal.screen()


def test_a_terminal_that_is_narrowed_keeps_nothing_of_the_progress(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM)
    terminal.type(*UPSWELL, "run", "program.py")
    assert until(lambda: "10/30" in (shown := "".join(terminal.screen())) and "2 containers" in shown)
    terminal.narrow(40)
    lines = ["begin", "container says 3", "done 9"]
    assert until(lambda: (shown := [line for line in terminal.screen() if line])[:3] == lines and len(shown) == 4), (
        terminal.screen()
    )
    (program.folder / "kept").mkdir()
    assert until(lambda: "status=0" in terminal.screen()), terminal.screen()
    assert [line for line in terminal.screen() if line] == [*lines, "done 19", "done 29", "status=0"]


def test_ctrl_c_takes_the_progress_away(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM.replace("x >= 10", "True").replace("x == 3", "x == 0"))
    terminal.type(*UPSWELL, "run", "program.py")
    assert until(lambda: "running" in (shown := "".join(terminal.screen())) and "container says 0" in shown)
    terminal.press("C-c")
    assert until(lambda: "status=130" in terminal.screen()), terminal.screen()
    assert [line for line in terminal.screen() if line not in ("", "^C")] == ["begin", "container says 0", "status=130"]


def test_quiet(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM.replace("range(30)", "range(10)"))
    terminal.type(*UPSWELL, "run", "-q", "program.py")
    seen: list[str] = []

    def finished() -> bool:
        seen.extend(terminal.screen())
        return "status=0" in seen

    assert until(finished), seen[-HEIGHT:]
    assert not any("running" in line for line in seen)


def test_a_question_is_not_drawn_over(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM.replace('print("begin")', 'call = simmer.spawn_map(range(40)); print("to", input("who? "))'))
    terminal.type(*UPSWELL, "run", "program.py")
    assert until(lambda: "container says 3" in "".join(terminal.screen())), terminal.screen()
    assert not any("running" in line for line in terminal.screen())
    terminal.press("me")
    terminal.press("Enter")
    assert until(lambda: "running" in (shown := "\n".join(terminal.screen())) and "\nto me\n" in shown)
    assert any(line.startswith("who? ") and "running" not in line for line in terminal.screen())
    terminal.press("C-c")
    assert until(lambda: "status=130" in terminal.screen()), terminal.screen()


def test_help_for_the_options_of_the_program(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM.replace("def main()", "def main(pots: int = 2)"))
    terminal.type(*UPSWELL, "run", "program.py", "--help")
    assert until(lambda: "status=0" in terminal.screen()), terminal.screen()
    assert terminal.screen()[0] == "Usage: upswell run program.py [OPTIONS]"
    assert any("--pots INTEGER" in line for line in terminal.screen())
