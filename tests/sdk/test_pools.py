"""Which handles share a pool: equal parameters and options do, however they are said; different ones never do."""

from collections.abc import Callable
from typing import Any

import pytest

import upswell
from upswell.exception import InvalidError
from upswell.sdk.cls import link_of
from upswell.sdk.pool import Home
from upswell.spec import AutoscalerSettings, Concurrency, SettingsUpdate

app = upswell.App("pools")


@app.function(timeout=60, retries=1, env={"A": "1"})
def function(x: int) -> int:
    return x


@app.function()
@upswell.concurrent(max_inputs=10, target_inputs=8)
@upswell.batched(max_batch_size=4, wait_ms=5)
def several(xs: list[int]) -> list[int]:
    return xs


@app.cls(max_containers=4)
@upswell.concurrent(max_inputs=3)
class Model(upswell.Obj):
    size: int = upswell.parameter(default=3)
    name: str = upswell.parameter(default="size")

    @upswell.method()
    def scale(self, x: int) -> int:
        return x * self.size


@app.cls()
class Batches(upswell.Obj):
    @upswell.batched(max_batch_size=7, wait_ms=9)
    async def run(self, xs: list[int]) -> list[int]:
        return xs


def key(handle: Any) -> str:
    pool = handle.pool if isinstance(handle, upswell.Function) else link_of(handle).pool
    return str(pool.key)


EQUAL: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: Model(), lambda: Model(size=3)),
    (lambda: Model(), lambda: Model(size=3, name="si" + "ze")),
    (lambda: Model().scale, lambda: Model()),
    (lambda: Model(size=4, name="a"), lambda: Model(name="a", size=4)),
    (lambda: Model.with_options(max_containers=4)(), lambda: Model()),
    (lambda: Model.with_options(cpu=1)(size=4), lambda: Model.with_options(cpu=1)(size=4)),
    (
        lambda: Model.with_options(cpu=1, timeout=9)(),
        lambda: Model.with_options(timeout=9).with_options(cpu=1)(size=3),
    ),
    (lambda: Model.with_concurrency(max_inputs=3)(), lambda: Model()),
    (lambda: function.with_options(cpu=None), lambda: function),
    (lambda: function.with_options(gpu="T4").with_options(gpu=[]), lambda: function),
    (lambda: function.with_options(gpu="t4:2"), lambda: function.with_options(gpu=["T4!:2"])),
    (lambda: function.with_options(env={"B": "2"}), lambda: function.with_options(env={"A": "1", "B": "2"})),
]
DIFFERENT: list[Callable[[], Any]] = [
    lambda: Model(),
    lambda: Model(size=4),
    lambda: Model(size=4, name="4"),
    lambda: Model(name="4"),
    lambda: Model.with_options(cpu=1)(),
    lambda: Model.with_options(cpu=1)(size=4),
    lambda: Model.with_options(env={"A": "1"})(),
    lambda: Model.with_concurrency(max_inputs=4)(),
    lambda: Model.with_concurrency(max_inputs=4, target_inputs=3)(),
    lambda: Model.with_batching(max_batch_size=2, wait_ms=0)(),
    lambda: function,
    lambda: function.with_options(retries=2),
    lambda: function.with_options(timeout=61),
    lambda: function.with_options(memory=100),
    lambda: function.with_options(gpu="T4"),
    lambda: function.with_options(gpu=["T4", "any"]),
    lambda: function.with_options(env={"A": "2"}),
    lambda: function.with_concurrency(max_inputs=2),
    lambda: function.with_batching(max_batch_size=2, wait_ms=0),
]


@pytest.mark.parametrize("one", range(len(EQUAL)))
def test_equal_ones_are_one_pool(one: int) -> None:
    left, right = EQUAL[one]
    assert key(left()) == key(right())


def test_different_ones_never_are() -> None:
    assert len({key(make()) for make in DIFFERENT}) == len(DIFFERENT)
    assert key(Model()) == "Model" and key(function) == "function"


def test_people_are_shown_the_parameters_that_differ() -> None:
    home = Home("ap-1", "pools")
    shown = [
        link_of(made).pool.record(home).described
        for made in (
            Model(),
            Model.with_options(cpu=1)(),
            Model(size=4),
            Model(name="a\n" + 100 * "b", size=4),
        )
    ]
    assert shown == ["", "", "size=4", "size=4, name='a\\n" + 19 * "b" + "…"]


def test_options_lie_over_what_was_declared_and_leave_it_alone() -> None:
    changed = function.with_options(retries=0, cpu=2, env={"B": "2"}, max_containers=5).pool.declaration
    assert changed.variables.resolve() == {"A": "1", "B": "2"}
    assert (changed.spec.timeout, changed.spec.resources.cpu, changed.spec.settings.max_containers) == (60, 2, 5)
    assert changed.spec.retries is not None and changed.spec.retries.max_retries == 0
    plain = function.pool.declaration
    assert plain.variables.resolve() == {"A": "1"} and plain.spec.resources.cpu == 0
    with pytest.raises(InvalidError, match=r"min_containers \(3\) must not exceed max_containers \(2\)"):
        app_with_floor().with_options(max_containers=2)


def app_with_floor() -> upswell.Function[..., Any]:
    return upswell.App().function(name="f", min_containers=3, serialized=True)(lambda x: x)


def test_what_the_decorators_say_is_what_is_declared() -> None:
    assert several.pool.spec.concurrency == Concurrency(max_inputs=10, target_inputs=8, batch_size=4, batch_wait_ms=5)
    assert link_of(Model()).pool.spec.concurrency == Concurrency(max_inputs=3, target_inputs=3)
    assert link_of(Batches()).pool.spec.concurrency == Concurrency(batch_size=7, batch_wait_ms=9)
    assert function.with_concurrency(max_inputs=9).pool.spec.concurrency == Concurrency(max_inputs=9, target_inputs=9)


def test_of_a_request_and_a_limit_cores_are_reserved_and_memory_is_held_to() -> None:
    resources = function.with_options(cpu=(0.5, 2), memory=(256, 512)).pool.spec.resources
    assert (resources.cpu, resources.memory_mib) == (0.5, 512)


def test_a_change_of_settings_sets_resets_or_keeps() -> None:
    settings = AutoscalerSettings(min_containers=2, max_containers=5, scaledown_window=20)
    changed = settings.merge(SettingsUpdate(min_containers=None, buffer_containers=1))
    assert changed == AutoscalerSettings(max_containers=5, buffer_containers=1, scaledown_window=20)
    assert changed.in_force == AutoscalerSettings(
        min_containers=0, max_containers=5, buffer_containers=1, scaledown_window=20
    )
    assert settings.merge(SettingsUpdate.of(min_containers=None)) == settings
    with pytest.raises(InvalidError, match=r"min_containers \(6\) must not exceed max_containers \(5\)"):
        settings.merge(SettingsUpdate(min_containers=6))
    with pytest.raises(InvalidError, match="scaledown_window must be between 2 and 3600"):
        SettingsUpdate(scaledown_window=1)


def test_the_class_stays_what_it_was() -> None:
    class Child(Model):
        LEVEL = 3

    upswell.App().cls(serialized=True)(Child)
    child = Child(size=4)
    assert issubclass(Child, Model)
    assert (child.size, child.name, child.LEVEL, child.scale.local(2)) == (4, "size", 3, 8)
    assert isinstance(Model.with_options(cpu=1)(size=3), Model)


def test_hooks_run_here_once_before_the_first_local_call() -> None:
    class Kept(Hooked):
        @upswell.enter()
        def last(self) -> None:
            self.entered.append("last")

    upswell.App().cls(serialized=True)(Kept)
    kept = Kept()
    assert kept.first.local() == ["base", "asynchronous", "last"]
    assert kept.first.local() == ["base", "asynchronous", "last"]
    assert Kept().entered == []  # made, and nothing has run


async def test_hooks_run_here_before_asynchronous_methods_too() -> None:
    class Kept(Hooked):
        pass

    upswell.App().cls(serialized=True)(Kept)
    kept = Kept()
    assert await kept.second.local() == ["base", "asynchronous"]
    assert kept.first.local() == ["base", "asynchronous"]


class Hooked:
    entered: list[str] = []  # noqa: RUF012 - what an object has before its hooks have run

    @upswell.enter()
    def base(self) -> None:
        self.entered = ["base"]

    @upswell.enter()
    async def asynchronous(self) -> None:
        self.entered.append("asynchronous")
        assert self.third.local() == 3  # a hook may use methods

    @upswell.method()
    def first(self) -> list[str]:
        return self.entered

    @upswell.method()
    async def second(self) -> list[str]:
        return self.entered

    @upswell.method()
    def third(self) -> int:
        return 3
