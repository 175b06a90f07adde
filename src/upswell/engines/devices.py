"""The GPUs of this machine, and which container has which. A container sees those that it has, and no others.

They are found without a driver's library, which would cost a start seconds: by the device files, or by what the
environment says, which is how a lease is told by Ray what it may use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..spec import Gpu

if TYPE_CHECKING:
    from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Devices:
    """Hands them out. Each has a name, as in CUDA_VISIBLE_DEVICES, and is of one kind or of several."""

    def __init__(self, kinds: Mapping[str, frozenset[str]]) -> None:
        self._kinds = dict(kinds)
        self._free = dict.fromkeys(self._kinds)  # in their order, so that neighbours stay together
        self._of: dict[str, tuple[str, ...]] = {}  # container → what it has

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def counts(self) -> dict[str, int]:
        """How many there are of each kind, and under "" of all."""
        counts = {"": len(self._kinds)}
        for kinds in self._kinds.values():
            for kind in kinds:
                counts[kind] = counts.get(kind, 0) + 1
        return counts

    def take(self, container: str, gpu: Gpu) -> tuple[str, ...] | None:
        """Give so many to the container; `None` where so many are not free."""
        fitting = [name for name in self._free if not gpu.kind or gpu.kind in self._kinds[name]][: gpu.count]
        if len(fitting) < gpu.count:
            return None
        self.hold(container, tuple(fitting))
        return self._of[container]

    def hold(self, container: str, names: tuple[str, ...]) -> None:
        """The container has these."""
        self._of[container] = names
        for name in names:
            self._free.pop(name, None)

    def give_back(self, container: str) -> None:
        """The container is gone."""
        held = self._of.pop(container, ())
        self._free = {name: None for name in self._kinds if name in self._free or name in held}


def found(environment: Mapping[str, str], machine: str | os.PathLike[str] = "/") -> Devices:
    """The GPUs that this process may use: those that the environment names, or else those that have a device file."""
    if VISIBLE not in environment and not os.path.exists(os.path.join(machine, "dev/nvidiactl")):
        return Devices({})
    from pathlib import Path  # by few, and engines are made early

    root = Path(machine)
    of_minor = {minor: kinds for minor, kinds in _models(root) if (root / f"dev/nvidia{minor}").exists()}
    if not of_minor:
        numbers = sorted(int(path.name[6:]) for path in (root / "dev").glob("nvidia[0-9]*") if path.name[6:].isdigit())
        of_minor = dict.fromkeys(numbers, frozenset())
    kinds = {str(position): kinds for position, kinds in enumerate(of_minor.values())}
    if (visible := environment.get(VISIBLE)) is None:
        return Devices(kinds)
    names = [name.strip() for name in visible.split(",")]
    if "NoDevFiles" in names:
        names = []
    ended = next((position for position, name in enumerate(names) if name in ("", "-1")), len(names))
    return Devices({name: kinds.get(name, frozenset()) for name in names[:ended]})


def _models(root: Path) -> list[tuple[int, frozenset[str]]]:
    """Number of the device file and kinds of each GPU that the driver knows, in the order of their buses."""
    models = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        said = dict(re.findall(r"^([^:\n]+):\s*(.*?)\s*$", path.read_text(errors="replace"), re.MULTILINE))
        if said.get("Device Minor", "").isdigit():
            models.append((int(said["Device Minor"]), kinds_of(said.get("Model", ""))))
    return models


def kinds_of(model: str) -> frozenset[str]:
    """What `gpu=` may call a model: "NVIDIA A100-SXM4-80GB" is an "A100", and an "A100-80GB"."""
    words = model.removeprefix("NVIDIA ").removeprefix("Tesla ").split()
    length = next((count for count, word in enumerate(words, 1) if re.search(r"\d", word)), 0)
    if not length:
        return frozenset()
    name = "-".join([*words[: length - 1], words[length - 1].partition("-")[0]]).upper()
    memory = re.search(r"(\d+) ?GB\b", model)
    return frozenset({name, f"{name}-{memory[1]}GB"} if memory else {name})
