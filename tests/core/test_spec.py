"""What a declaration may say, and the words for what it may not."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from upswell.errors import InvalidError
from upswell.spec import (
    AutoscalerSettings,
    Concurrency,
    Environment,
    FunctionRecord,
    FunctionSpec,
    Gpu,
    Interface,
    Period,
    Resources,
    Retries,
    SettingsUpdate,
    check_name,
)


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: AutoscalerSettings(min_containers=-1), "min_containers must be at least 0, not -1"),
        (lambda: AutoscalerSettings(max_containers=1 << 64), "max_containers must be at most 2,147,483,648, not"),
        (lambda: AutoscalerSettings(max_containers=0), "max_containers must be at least 1, not 0"),
        (lambda: AutoscalerSettings(buffer_containers=-2), "buffer_containers must be at least 0, not -2"),
        (lambda: AutoscalerSettings(min_containers=True), "min_containers must be a whole number, not True"),
        (lambda: AutoscalerSettings(max_containers=2.5), "max_containers must be a whole number, not 2.5"),  # type: ignore[arg-type]
        (
            lambda: AutoscalerSettings(min_containers=3, max_containers=2),
            "min_containers (3) must not exceed max_containers (2)",
        ),
        (lambda: AutoscalerSettings(scaledown_window=1), "scaledown_window must be between 2 and 3600 seconds, not 1"),
        (lambda: AutoscalerSettings(scaledown_window=3601), "scaledown_window must be between 2 and 3600 seconds"),
        (lambda: Concurrency(max_inputs=2, target_inputs=3), "target_inputs (3) must not exceed max_inputs (2)"),
        (lambda: Concurrency(max_inputs=0), "max_inputs must be at least 1, not 0"),
        (lambda: Retries(max_retries=-1), "max_retries must be at least 0, not -1"),
        (lambda: Retries(max_retries=1, max_delay=61), "max_delay must be between 1 and 60 seconds, not 61"),
        (lambda: Retries(max_retries=1, initial_delay=61), "initial_delay must be between 0 and 60 seconds, not 61"),
        (lambda: Retries(max_retries=1, backoff_coefficient=0.5), "backoff_coefficient must be between 1.0 and 10.0"),
        (lambda: Retries.parse("3"), "retries must be a whole number or upswell.Retries, not '3'"),
        (lambda: Resources(cpu=-1), "cpu must be a number of cores >= 0, not -1"),
        (lambda: Gpu.parse("A10G:0"), "gpu must be a kind such as 'A10G', 'A10G:2' for two, 'any', or a list, not"),
        (lambda: Gpu.parse(["A10G", 2]), "'any', or a list, not 2"),
        (lambda: Resources(memory_mib=-1), "memory must be at least 0, not -1"),
        (lambda: FunctionSpec(timeout=0), "timeout must be a number of seconds from 1 to 86400, not 0"),
        (lambda: FunctionSpec(startup_timeout=90_000), "startup_timeout must be a number of seconds from 1 to 86400"),
        (lambda: check_name("App", "a b"), "App name 'a b' is not valid: use 1 to 64 letters"),
        (lambda: check_name("App", "a" * 65), "is not valid"),
    ],
)
def test_what_can_not_be_declared(declare: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidError) as refused:
        declare()
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        (None, ()),
        ("a10g", (Gpu("A10G"),)),
        ("A100-80GB:8", (Gpu("A100-80GB", 8),)),
        ("any", (Gpu(),)),
        ("H100!:2", (Gpu("H100", 2),)),
        (["H100", "A100:2", "any"], (Gpu("H100"), Gpu("A100", 2), Gpu())),
    ],
)
def test_what_gpu_may_be(given: object, gpus: tuple[Gpu, ...]) -> None:
    assert Gpu.parse(given) == gpus


def test_resources_in_words() -> None:
    assert str(Resources(cpu=0.5, memory_mib=512, gpus=(Gpu("H100", 2), Gpu()))) == (
        "cpu=0.5, memory=512, gpu=H100:2 or any"
    )
    assert str(Resources()) == ""


def test_settings_merge_field_by_field() -> None:
    before = AutoscalerSettings(min_containers=1, max_containers=4)
    after = before.merge(SettingsUpdate(max_containers=8, buffer_containers=0))
    assert (after.floor, after.ceiling, after.buffer, after.window_seconds) == (1, 8, 0, 60.0)
    with pytest.raises(InvalidError, match="min_containers \\(5\\) must not exceed max_containers \\(4\\)"):
        before.merge(SettingsUpdate(min_containers=5))


@pytest.mark.parametrize(
    ("retries", "delays"),
    [
        (Retries(max_retries=4), [1, 2, 4, 8]),
        (Retries(max_retries=4, initial_delay=30), [30, 60, 60, 60]),
        (Retries(max_retries=4, initial_delay=0), [0, 0, 0, 0]),
        (Retries.parse(4), [1, 1, 1, 1]),
    ],
)
def test_delays_between_attempts(retries: Retries, delays: list[float]) -> None:
    assert [retries.delay_seconds(retry) for retry in (1, 2, 3, 4)] == delays


def test_no_container_is_kept_for_a_class_without_parameters() -> None:
    spec = FunctionSpec(settings=AutoscalerSettings(min_containers=1), timeout=7)
    environment = Environment(kind="module", origin="m", module="m", main=False, sys_path=(), directory="/")
    whole = FunctionRecord(id="ap-1/C", app_name="a", name="C", spec=spec, environment=environment, kind="class")
    assert whole.standing_spec is spec
    lacking = replace(whole, interface=Interface(is_complete=False))
    assert lacking.standing_spec == replace(spec, settings=AutoscalerSettings())


SPEC = FunctionSpec(timeout=7)
HERE = Environment(kind="module", origin="m", module="m", main=False, sys_path=(), directory="/")
BEFORE = FunctionRecord(id="ap-1/f", app_name="a", name="f", spec=SPEC, environment=HERE, version=3)


@pytest.mark.parametrize(
    ("now", "version"),
    [
        (BEFORE, 3),
        (replace(BEFORE, spec=replace(SPEC, settings=AutoscalerSettings(max_containers=2))), 3),
        (replace(BEFORE, spec=replace(SPEC, retries=Retries(max_retries=1), schedule=Period(days=1))), 3),
        (replace(BEFORE, interface=Interface(is_generator=True)), 3),
        (replace(BEFORE, spec=replace(SPEC, timeout=8)), 5),
        (replace(BEFORE, spec=replace(SPEC, concurrency=Concurrency(max_inputs=2))), 5),
        (replace(BEFORE, spec=replace(SPEC, resources=Resources(memory_mib=100))), 5),
        (replace(BEFORE, environment=replace(HERE, code="of another tree")), 5),
        (replace(BEFORE, environment=replace(HERE, variables=(("KEY", "another"),))), 5),
        (replace(BEFORE, parameters=b"others"), 5),
        (replace(BEFORE, serialized=b"another"), 5),
    ],
)
def test_containers_are_others_only_where_what_they_are_made_of_has_changed(now: FunctionRecord, version: int) -> None:
    assert replace(now, version=0).follows(BEFORE, 5) == replace(now, version=version)
    assert now.follows(None, 5).version == 5
