"""Whatever happens, and whenever the server is killed: what it accepted gets an outcome, and gets it once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from .desk import Desk
from .shell import Client, Shell

ROUNDS = 300  # in which everything must come to an end once nothing goes wrong any more
one_of = st.integers(0, 1000)  # chooses among whatever there is


class Restarts(RuleBasedStateMachine):
    """A history of one server and its restarts, over the store in memory, which outlives them."""

    on_disk: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory() if self.on_disk else None
        self.client = Client()
        self.desk = self.open()
        self.shell = Shell(self.desk, self.client, 0.0)

    def open(self) -> Desk:
        return Desk(Path(self.home.name) if self.home else None)

    def ready(self) -> list[str]:
        shell = self.shell
        return [name for name, ranges in shell.containers.items() if ranges and name not in shell.starting]

    @rule(call=st.sampled_from(["fc-1", "fc-2", "fc-3"]), count=st.integers(1, 25), last=st.booleans())
    def submit(self, call: str, count: int, last: bool) -> None:
        self.shell.submit(call, self.client.function.get(call) or ("f" if call != "fc-3" else "g"), count, last)

    @rule(steps=st.integers(1, 3))
    def write(self, steps: int) -> None:
        self.shell.write(steps)

    @rule(count=st.integers(1, 6), written=st.booleans())
    def work(self, count: int, written: bool) -> None:
        """Time passes, and everybody does something; perhaps the disk keeps up."""
        for container in list(self.shell.starting):
            self.shell.start(container)
        for container in self.ready():
            self.shell.finish(container, count)
        if written:
            self.shell.write(self.shell.unwritten())

    @rule(choice=one_of, happening=st.sampled_from(["fail", "fail", "exit", "end", "cancel", "cancel one", "wait"]))
    def something_else(self, choice: int, happening: str) -> None:
        shell, ready, calls = self.shell, self.ready(), sorted(self.client.function)
        match happening:
            case "fail" if ready:
                shell.fail(ready[choice % len(ready)])
            case "exit" if shell.containers:
                shell.exit(sorted(shell.containers)[choice % len(shell.containers)])
            case "end" if calls and not shell.unwritten():
                shell.end(calls[choice % len(calls)])
            case "cancel" if calls:
                shell.cancel(calls[choice % len(calls)])
            case "cancel one" if calls:
                shell.cancel_input(calls[choice % len(calls)], choice)
            case "wait":
                shell.wait((0.1, 2.0, 70.0)[choice % 3])

    @rule(steps=st.integers(0, 3))
    def kill(self, steps: int) -> None:
        """The server dies. What had not reached the disk never happened; the next one begins with what had."""
        self.shell.write(steps)
        if self.on_disk:
            self.desk.store.close()
            self.desk = self.open()
        self.client.look(self.desk.store)
        self.shell = Shell(self.desk, self.client, self.shell.now)

    def teardown(self) -> None:
        try:
            self.come_to_an_end()
        finally:
            self.desk.store.close()
            if self.home:
                self.home.cleanup()

    def come_to_an_end(self) -> None:
        shell, store = self.shell, self.desk.store
        while shell.unwritten():  # a client knows what became of its inputs before it says that no more come
            shell.write(shell.unwritten())
        for call in self.client.function:
            shell.end(call)
        for _ in range(ROUNDS):
            shell.write(shell.unwritten())
            for container in list(shell.starting):
                shell.start(container)
            for container in list(shell.ending):
                shell.exit(container)
            for container in self.ready():
                shell.finish(container, 100)
            shell.wait(1.0)
            if not (shell.unwritten() or store.load().calls):
                break
        assert store.load().calls == ()
        for call in self.client.function:
            record = store.call(call)
            assert (record.submitted if record else 0) >= self.client.accepted.get(call, 0), f"{call} lost inputs"
            if record is not None:
                assert self.client.seen.get(call, set()) == set(range(record.submitted)), f"{call} lacks outcomes"
                assert record.finished_at is not None


class RestartsOnDisk(Restarts):
    on_disk = True


def examples(number: int) -> Any:
    """The same histories every time. They are not shrunk: a history of forty steps takes minutes to."""
    return settings(
        max_examples=number,
        stateful_step_count=40,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


TestRestarts = Restarts.TestCase
TestRestarts.settings = examples(120)
TestRestartsOnDisk = RestartsOnDisk.TestCase
TestRestartsOnDisk.settings = examples(10)
