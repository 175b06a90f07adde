"""`Volume`, accepted by signature. Containers run on this machine and share its files, so nothing is mounted, and
`commit` and `reload` have nothing to do; what would lose data in silence is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..errors import InvalidError
from ..spec import check_name
from .dual import dual


class Volume:
    """A handle for `@app.function(volumes={"/data": volume})`; containers find this machine's own files at the path."""

    def __init__(self, name: str = "") -> None:
        self.name = name or None

    @classmethod
    def from_name(
        cls,
        name: str,
        *,
        environment_name: str | None = None,
        create_if_missing: bool = False,
        version: int | None = None,
        create_options: object = None,
    ) -> Volume:
        """The volume of that name."""
        return cls(check_name("volume", name))

    @classmethod
    @contextmanager
    def ephemeral(cls, **options: Any) -> Iterator[Volume]:
        """One without a name."""
        yield cls()

    def read_only(self) -> Volume:
        """The same, for reading."""
        return self

    def with_mount_options(self, **options: Any) -> Volume:
        """The same."""
        return self

    @dual
    async def commit(self) -> None:
        """Nothing: what a container writes is on this machine at once."""

    @dual
    async def reload(self) -> None:
        """Nothing: what others have written is there."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise InvalidError(
            f"{self!r} keeps no files of its own in this version: read and write this machine's files directly"
        )

    listdir = iterdir = read_file = read_file_into_fileobj = remove_file = copy_files = batch_upload = _refuse

    def __repr__(self) -> str:
        return f"Volume.from_name({self.name!r})" if self.name else "Volume.ephemeral()"
