"""At a real terminal: live progress while it runs, container lines above it, and nothing of it afterwards."""

import shutil

import pytest

from .processes import UPSWELL, Program, until
from .tmux import HEIGHT, Tmux

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

PROGRAM = """
    import time, upswell

    app = upswell.App()

    @app.function(max_containers=2)
    def simmer(x):
        if x == 3:
            print("container says", x)
        time.sleep(0.2)
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
    seen: list[list[str]] = []

    def finished() -> bool:
        seen.append(terminal.screen())
        return any(line.startswith("status=") for line in seen[-1])

    assert until(finished), seen[-1]
    live = [screen for screen in seen if any("simmer" in line and "running" in line for line in screen)]
    assert len(live) >= 5, seen
    middle = next(screen for screen in live if "done 9" in screen)
    (line,) = [line for line in middle if "running" in line]
    for words in ("/30", "/s", "pending", "2 containers"):
        assert words in line
    assert middle.index("begin") < middle.index("container says 3") < middle.index("done 9") < middle.index(line)
    last = [line for line in seen[-1] if line]
    assert sorted(last) == sorted(["begin", "container says 3", "done 9", "done 19", "done 29", "status=0"])


def test_ctrl_c_takes_the_progress_away(program: Program, terminal: Tmux) -> None:
    program.write(PROGRAM.replace("time.sleep(0.2)", "time.sleep(60)").replace("x == 3", "x == 0"))
    terminal.type(*UPSWELL, "run", "program.py")
    assert until(lambda: any("running" in line for line in terminal.screen())), terminal.screen()
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
    assert until(lambda: any("running" in line for line in terminal.screen())), terminal.screen()
    assert any(line.startswith("who? ") and "running" not in line for line in terminal.screen())
    assert "to me" in terminal.screen()
    terminal.press("C-c")
    assert until(lambda: "status=130" in terminal.screen()), terminal.screen()
