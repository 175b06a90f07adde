"""What `@app.function`, `@app.cls` and `with_options` take, read once into what a pool declares.

Limits are checked by `spec.py`; here stands which options there are, and what Modal's SDK has besides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
from msgspec.structs import replace

from ..errors import InvalidError
from ..spec import (
    DEFAULT_TIMEOUT_SECONDS,
    Concurrency,
    Cron,
    FunctionSpec,
    Gpu,
    Period,
    Resources,
    Retries,
    SettingsUpdate,
    require,
)
from .variables import Variables, say_of_gpus, say_of_volumes, say_once

if TYPE_CHECKING:
    from .image import Image
    from .secret import Secret

WITHOUT_EFFECT = frozenset(
    "cloud region proxy allow_cross_region_volumes network_file_systems ephemeral_disk enable_memory_snapshot "
    "nonpreemptible block_network experimental_options include_source i6pn rdma "
    "scheduler_placement".split()
)
RENAMED = {  # what earlier releases of that SDK called them
    "keep_warm": "min_containers",
    "concurrency_limit": "max_containers",
    "container_idle_timeout": "scaledown_window",
    "allow_concurrent_inputs": "@upswell.concurrent(max_inputs=...)",
}


class PoolOptions(TypedDict, total=False):
    """What a pool may have of its own; everything may be left out, and `None` leaves it as it is."""

    cpu: float | tuple[float, float] | None
    memory: int | tuple[int, int] | None
    env: Mapping[str, str | None] | None
    secrets: Collection[Secret] | None
    volumes: Mapping[Any, Any] | None
    gpu: str | list[str] | None
    retries: int | Retries | None
    max_containers: int | None
    buffer_containers: int | None
    scaledown_window: int | None
    timeout: float | None
    # Of no effect here:
    region: Any
    cloud: Any


class ClassOptions(PoolOptions, total=False):
    """What a class may be declared with."""

    min_containers: int | None
    startup_timeout: float | None
    single_use_containers: bool
    serialized: bool
    image: Image | None
    # Of no effect here:
    proxy: Any
    include_source: Any
    enable_memory_snapshot: Any
    ephemeral_disk: Any
    network_file_systems: Any
    allow_cross_region_volumes: Any
    nonpreemptible: Any
    block_network: Any
    experimental_options: Any
    i6pn: Any
    rdma: Any
    scheduler_placement: Any


class FunctionOptions(ClassOptions, total=False):
    """What a function may be declared with."""

    name: str | None
    is_generator: bool | None
    schedule: Any


class Declaration(msgspec.Struct, frozen=True):
    """How a pool is to be run: what the control plane needs, and the variables of its containers' environment."""

    spec: FunctionSpec = FunctionSpec()
    variables: Variables = Variables()

    @classmethod
    def read(cls, where: str, variables: Variables, given: Mapping[str, Any], accepted: type) -> Declaration:
        """What is given to the decorator `where`, over an app's variables.

        Raises `InvalidError` for what can't be, `TypeError` for what is unknown.
        """
        startup_timeout = given.get("startup_timeout")
        if startup_timeout is None:
            timeout = given.get("timeout", DEFAULT_TIMEOUT_SECONDS)
            startup_timeout = max(timeout, DEFAULT_TIMEOUT_SECONDS) if type(timeout) in (int, float) else timeout
        return cls(variables=variables)._changed(where, {**given, "startup_timeout": startup_timeout}, accepted)

    def changed(self, where: str, given: Mapping[str, Any]) -> Declaration:
        """The same with what is given in place of what was; `None` leaves it as it is."""
        return self._changed(where, {name: value for name, value in given.items() if value is not None}, PoolOptions)

    def _changed(self, where: str, given: Mapping[str, Any], accepted: type) -> Declaration:
        for name in given:
            if name not in accepted.__annotations__:
                raise TypeError(f"{where} has no parameter {name!r}{_instead(name, accepted.__annotations__)}")
        say_without_effect(given)
        say_of_volumes(given.get("volumes"))
        say_of_gpus(given.get("gpu"))
        spec, resources = self.spec, self.spec.resources
        settings = {name: given.get(name) for name in spec.settings.__struct_fields__}
        try:
            changed = FunctionSpec(
                settings=spec.settings.merge(SettingsUpdate.of(**settings)),
                concurrency=spec.concurrency,
                resources=Resources(
                    cpu=_or(_of_pair(given.get("cpu"), 0), resources.cpu),
                    memory_mib=_or(_of_pair(given.get("memory"), 1), resources.memory_mib),
                    gpus=Gpu.parse(given["gpu"]) if given.get("gpu") is not None else resources.gpus,
                ),
                retries=Retries.parse(given.get("retries", spec.retries)),
                timeout=given.get("timeout", spec.timeout),
                startup_timeout=given.get("startup_timeout", spec.startup_timeout),
                single_use=given.get("single_use_containers", spec.single_use),
            )
            variables = self.variables.over(given.get("image"), given.get("secrets"), given.get("env"))
        except InvalidError as error:
            raise InvalidError(f"{where}: {error}") from None
        return Declaration(changed, variables)

    def with_concurrency(self, concurrency: Concurrency) -> Declaration:
        """The same with so many inputs at once, or in batches."""
        return replace(self, spec=replace(self.spec, concurrency=concurrency, schedule=None))

    def with_schedule(self, schedule: Cron | Period | None) -> Declaration:
        """The same with that schedule, which is of the plain pool and of none that is derived from it."""
        return replace(self, spec=replace(self.spec, schedule=schedule))


def say_without_effect(given: Mapping[str, Any]) -> None:
    """Options of Modal's SDK that a self-hosted system has no use for are accepted, and said once."""
    for name, value in given.items():
        if name in WITHOUT_EFFECT and value:
            say_once(f"{name}= has no effect here")


def concurrency_of(where: str, max_inputs: int, target_inputs: int | None) -> Concurrency:
    """`target_inputs` is `max_inputs` where it is not given; `InvalidError` for what can't be."""
    try:
        return Concurrency(max_inputs=max_inputs, target_inputs=_or(target_inputs, max_inputs))
    except InvalidError as error:
        raise InvalidError(f"{where}: {error}") from None


def batching_of(where: str, concurrency: Concurrency, max_batch_size: int, wait_ms: int) -> Concurrency:
    """`concurrency`, where each place takes a batch; `InvalidError` for what can't be."""
    try:
        require(type(max_batch_size) is int, f"max_batch_size must be a whole number, not {max_batch_size!r}")
        require(max_batch_size >= 1, f"max_batch_size must be at least 1, not {max_batch_size}")
        require(type(wait_ms) is int, f"wait_ms must be a whole number of milliseconds, not {wait_ms!r}")
        return Concurrency(
            max_inputs=concurrency.max_inputs,
            target_inputs=concurrency.target_inputs,
            batch_size=max_batch_size,
            batch_wait_ms=wait_ms,
        )
    except InvalidError as error:
        raise InvalidError(f"{where}: {error}") from None


def _of_pair(value: Any, index: int) -> Any:
    """One of a request and a limit, where both are given: cores are only reserved, and memory is held to its limit."""
    return value[index] if isinstance(value, tuple) and len(value) == 2 else value


def _instead(name: str, accepted: Iterable[str]) -> str:
    if name in RENAMED:
        return f": it is {RENAMED[name]}"
    from difflib import get_close_matches  # by few programs, and late

    close = get_close_matches(name, accepted, 1)
    return f": did you mean {close[0]}?" if close else ""


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
