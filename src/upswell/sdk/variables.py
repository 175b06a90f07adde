"""What a container finds in its environment beside user code: the variables of its image, its secrets and its `env`.

Values of secrets are read as the app runs, and never before, so that nothing that is declared holds them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..spec import MAX_VARIABLES_BYTES, require
from . import context

if TYPE_CHECKING:
    from .image import Image
    from .secret import Secret

_said: set[str] = set()


class Variables(NamedTuple):
    """Where variables come from; a later source wins over an earlier one: image, secrets in their order, `env`."""

    image: Image | None = None
    secrets: tuple[Secret, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    def over(self, image: Any, secrets: Any, env: Any) -> Variables:
        """These sources with what is given over them; `InvalidError` for what can't be."""
        if image is not None:
            from .image import Image

            require(isinstance(image, Image), f"image must be an upswell.Image, not {image!r}")
            say_once("image= is recorded, not built: containers run in this program's own Python environment")
        if secrets:
            from .secret import Secret

            listed = isinstance(secrets, Iterable)
            require(listed, f"secrets must be a list of upswell.Secret, not {type(secrets).__name__}")
            for one in secrets:
                require(
                    isinstance(one, Secret), f"secrets must be a list of upswell.Secret, not of {type(one).__name__}"
                )
        given = {**dict(self.env), **checked_variables(env)}
        return Variables(image or self.image, (*self.secrets, *(secrets or ())), tuple(given.items()))

    def resolve(self) -> dict[str, str]:
        """The names and values. Raises what a secret raises that can't be read."""
        resolved = dict(self.image.variables) if self.image else {}
        for secret in self.secrets:
            resolved.update(secret.variables())
        resolved.update(self.env)
        size = sum(len(name.encode()) + len(value.encode()) for name, value in resolved.items())
        require(
            size <= MAX_VARIABLES_BYTES,
            f"env and secrets have {size:,} bytes, and a container takes {MAX_VARIABLES_BYTES:,}: pass files instead",
        )
        return resolved


def checked_variables(env: Mapping[str, str | None] | None) -> dict[str, str]:
    """The environment variables, if they map text to text; else `InvalidError`. `None` leaves one out."""
    require(isinstance(env or {}, Mapping), f"env must be a dict of text to text, not {type(env).__name__}")
    given: dict[Any, Any] = {name: value for name, value in dict(env or {}).items() if value is not None}
    for name, value in given.items():
        require(isinstance(name, str) and isinstance(value, str), f"env must map text to text, not {name!r}: {value!r}")
    return given


def say_of_volumes(volumes: Mapping[Any, Any] | None) -> None:
    """Say once that nothing is mounted, and what containers find in its place."""
    for path in volumes or {}:
        there = "" if os.path.isdir(path) else ", where this directory does not exist"
        say_once(f"volumes= are not mounted: {os.fspath(path)!r} is this machine's own{there}")


def say_of_gpus(gpu: str | Collection[str] | None) -> None:
    """Say once what a container has of them where there are none."""
    if gpu and not (os.path.exists("/dev/nvidiactl") or os.environ.get("CUDA_VISIBLE_DEVICES")):
        say_once("gpu= reserves nothing on a machine without GPUs: containers run there without")


def say_once(words: str) -> None:
    """Tell the user of the program something about an option, once a program and not again in its containers."""
    if words not in _said and context.is_local():
        from .output import say  # by few programs, and late

        _said.add(words)
        say(words)
