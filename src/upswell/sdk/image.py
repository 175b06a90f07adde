"""`Image`: the recipe of an environment, recorded as a value. Building it is a later step, and containers run in the
program's own Python environment, which is said once. What holds of it today: `env` and `imports`.

The bodies of the methods below check their arguments, and the decorators record the call.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, Concatenate, ParamSpec

from ..spec import require

P = ParamSpec("P")
Path = str | PathLike[str]
Packages = str | list[str]
Variables = Mapping[str, str | None] | None
Ignored = Sequence[str] | Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the recipe: a method of `Image` and what it was given."""

    method: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]


def source(method: Callable[P, None]) -> Callable[P, Image]:
    """A way to begin an image."""

    @functools.wraps(method)
    def record(*args: P.args, **kwargs: P.kwargs) -> Image:
        method(*args, **kwargs)
        return Image((_step(method.__name__, args, kwargs),))

    return record


def builder(method: Callable[Concatenate[Image, P], None]) -> Callable[Concatenate[Image, P], Image]:
    """A step that leads to another image."""

    @functools.wraps(method)
    def record(self: Image, /, *args: P.args, **kwargs: P.kwargs) -> Image:
        method(self, *args, **kwargs)
        return Image((*self.steps, _step(method.__name__, args, kwargs)), self)

    return record


def _step(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Step:
    return Step(name, tuple(map(_frozen, args)), tuple((key, _frozen(value)) for key, value in kwargs.items()))


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, Mapping):
        return tuple((key, _frozen(one)) for key, one in value.items())
    return value


@dataclass(frozen=True, slots=True)
class Image:
    """The recipe of an environment, as in `Image.debian_slim().pip_install("numpy").env({"MODE": "fast"})`.

    Every method gives another image. Containers run in this program's own environment: variables of `env` are set in
    them, and what fails in `with image.imports():` fails the functions that use the image; all else is recorded.
    """

    steps: tuple[Step, ...] = ()
    base: Image | None = field(default=None, compare=False, repr=False)
    _failures: list[ImportError] = field(default_factory=list, init=False, compare=False, repr=False)

    # -- what holds today --------------------------------------------------------------------------

    @property
    def variables(self) -> dict[str, str]:
        """What the `env` steps set, the later over the earlier."""
        pairs = [dict(step.arguments[0]) for step in self.steps if step.method == "env" and step.arguments]
        pairs += [dict(dict(step.options)["vars"]) for step in self.steps if step.method == "env" and step.options]
        return {name: value for one in pairs for name, value in one.items()}

    @contextmanager
    def imports(self) -> Iterator[None]:
        """A block for imports that only containers of this image need: one that fails is theirs to complain of."""
        try:
            yield
        except ImportError as error:
            error.add_note(f"An image is recorded, not built: what it is to have is to be installed in {sys.prefix}.")
            self._failures.append(error)

    def local_files(self) -> Iterator[tuple[str, str, str]]:
        """What the recipe takes from this machine: the method, the local path or module, and the path in containers."""
        for step in self.steps:
            options = dict(step.options)
            if step.method == "add_local_python_source":
                yield from ((step.method, module, "") for module in step.arguments)
            elif step.method.partition("_local_")[0] in ("add", "copy"):
                given = dict(zip(("local_path", "remote_path"), step.arguments, strict=False)) | options
                remote = given.get("remote_path", ".")
                yield step.method, fspath(given["local_path"]), fspath(remote)

    def check_imports(self) -> None:
        """Raise what failed in an `imports` block of this image, or of one it is based on."""
        for error in self._failures:
            raise error
        if self.base is not None:
            self.base.check_imports()

    @builder
    def env(self, vars: Mapping[str, str]) -> None:
        """Set environment variables, which map text to text."""
        given: Mapping[Any, Any] = vars
        for name, value in given.items():
            require(
                isinstance(name, str) and isinstance(value, str),
                f"Image.env maps text to text, and {name!r} is given {type(value).__name__}",
            )

    def pipe(self, func: Callable[Concatenate[Image, P], Image], *args: P.args, **kwargs: P.kwargs) -> Image:
        """What `func(image, ...)` gives, so that a chain can go on behind it."""
        return func(self, *args, **kwargs)

    # -- where an image begins ---------------------------------------------------------------------

    @staticmethod
    @source
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> None:
        """Debian with Python."""

    @staticmethod
    @source
    def micromamba(python_version: str | None = None, force_build: bool = False) -> None:
        """Conda's packages, by micromamba."""

    @staticmethod
    @source
    def from_registry(
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
        **kwargs: Any,
    ) -> None:
        """An image of a registry."""

    @staticmethod
    @source
    def from_aws_ecr(tag: str, secret: Any = None, **kwargs: Any) -> None:
        """An image of a private registry at AWS."""

    @staticmethod
    @source
    def from_gcp_artifact_registry(tag: str, secret: Any = None, **kwargs: Any) -> None:
        """An image of a private registry at Google."""

    @staticmethod
    @source
    def from_dockerfile(
        path: Path,
        *,
        force_build: bool = False,
        context_dir: Path | None = None,
        ignore: Ignored = (),
        build_args: Mapping[str, str] | None = None,
        registry_secret: Any = None,
        secrets: Collection[Any] | None = None,
        env: Variables = None,
        gpu: Any = None,
        add_python: str | None = None,
    ) -> None:
        """What a Dockerfile builds."""

    @staticmethod
    @source
    def from_scratch(force_build: bool = False) -> None:
        """Nothing at all."""

    @staticmethod
    @source
    def from_id(image_id: str, client: Any = None) -> None:
        """An image that was built before."""

    # -- packages ----------------------------------------------------------------------------------

    @builder
    def pip_install(
        self,
        *packages: Packages,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Variables = None,
        secrets: Collection[Any] | None = None,
        gpu: Any = None,
    ) -> None:
        """Packages, by pip."""

    @builder
    def pip_install_from_requirements(
        self, /, requirements_txt: Path, find_links: str | None = None, **options: Any
    ) -> None:
        """Packages of a requirements file, by pip."""

    @builder
    def pip_install_from_pyproject(
        self, /, pyproject_toml: Path, optional_dependencies: Sequence[str] = (), **options: Any
    ) -> None:
        """The dependencies of a project, by pip."""

    @builder
    def pip_install_private_repos(self, /, *repositories: str, git_user: str, **options: Any) -> None:
        """Packages of private repositories, by pip."""

    @builder
    def uv_pip_install(
        self,
        *packages: Packages,
        requirements: list[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: str | None = None,
        env: Variables = None,
        secrets: Collection[Any] | None = None,
        gpu: Any = None,
    ) -> None:
        """Packages, by uv."""

    @builder
    def uv_sync(
        self,
        /,
        uv_project_dir: Path = "./",
        *,
        groups: list[str] | None = None,
        extras: list[str] | None = None,
        frozen: bool = True,
        **options: Any,
    ) -> None:
        """The environment of a project's lock file, by uv."""

    @builder
    def poetry_install_from_file(
        self,
        /,
        poetry_pyproject_toml: Path,
        poetry_lockfile: Path | None = None,
        *,
        ignore_lockfile: bool = False,
        with_: Sequence[str] = (),
        without: Sequence[str] = (),
        only: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """The dependencies of a project, by poetry."""

    @builder
    def micromamba_install(
        self, /, *packages: Packages, spec_file: Path | None = None, channels: Sequence[str] = (), **options: Any
    ) -> None:
        """Packages of conda's channels."""

    @builder
    def apt_install(
        self,
        *packages: Packages,
        force_build: bool = False,
        env: Variables = None,
        secrets: Collection[Any] | None = None,
        gpu: Any = None,
    ) -> None:
        """Packages of Debian."""

    # -- commands and files ------------------------------------------------------------------------

    @builder
    def run_commands(
        self,
        *commands: Packages,
        env: Variables = None,
        secrets: Collection[Any] | None = None,
        volumes: Mapping[Any, Any] | None = None,
        gpu: Any = None,
        force_build: bool = False,
    ) -> None:
        """Shell commands."""

    @builder
    def run_function(
        self,
        /,
        raw_f: Callable[..., Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """A call of a Python function as the image is built; the function is not called here."""
        require(callable(raw_f), f"Image.run_function takes a function, not {raw_f!r}")

    @builder
    def dockerfile_commands(self, /, *dockerfile_commands: Packages, **options: Any) -> None:
        """Lines of a Dockerfile."""

    @builder
    def add_local_file(self, local_path: Path, remote_path: str, *, copy: bool = False) -> None:
        """A file of this machine."""

    @builder
    def add_local_dir(self, local_path: Path, remote_path: str, *, copy: bool = False, ignore: Ignored = ()) -> None:
        """A folder of this machine."""

    @builder
    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Ignored = ()) -> None:
        """Python modules of this program."""

    @builder
    def copy_local_file(self, local_path: Path, remote_path: str = "./") -> None:
        """A file of this machine, copied."""

    @builder
    def copy_local_dir(self, local_path: Path, remote_path: str = ".", ignore: Ignored = ()) -> None:
        """A folder of this machine, copied."""

    @builder
    def workdir(self, path: Path) -> None:
        """The working directory; containers run in the program's own."""

    @builder
    def entrypoint(self, entrypoint_commands: list[str]) -> None:
        """What the image starts."""

    @builder
    def shell(self, shell_commands: list[str]) -> None:
        """The shell of later commands."""

    @builder
    def cmd(self, cmd: list[str]) -> None:
        """What the image runs by default."""
