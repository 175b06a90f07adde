"""The GPUs of a machine: which there are, what they are called, and who has which."""

from pathlib import Path

import pytest

from upswell.engines.devices import Devices, found, kinds_of
from upswell.spec import Gpu

GPUS = {"0000:07:00.0": ("NVIDIA A100-SXM4-80GB", 1), "0000:0a:00.0": ("Tesla T4", 0)}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two GPUs, whose order by bus is not that of their device files."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    for bus, (model, minor) in GPUS.items():
        (tmp_path / f"dev/nvidia{minor}").touch()
        folder = tmp_path / "proc/driver/nvidia/gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t 75\nDevice Minor: \t {minor}\n")
    return tmp_path


def test_what_the_driver_says(machine: Path, tmp_path: Path) -> None:
    devices = found({}, machine)
    assert devices.counts() == {"": 2, "A100": 1, "A100-80GB": 1, "T4": 1}
    assert devices.take("a", Gpu("T4")) == ("1",), "they are numbered by bus, as CUDA is told to"
    (machine / "dev/nvidia0").unlink()
    assert found({}, machine).counts() == {"": 1, "A100": 1, "A100-80GB": 1}, "in a box that has one of them"
    assert not found({}, tmp_path / "elsewhere")


def test_device_files_alone(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia3"):
        (tmp_path / "dev" / name).touch()
    assert found({}, tmp_path).counts() == {"": 2}


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("", ()),
        ("NoDevFiles", ()),
        ("-1", ()),
        ("1", ("1",)),
        ("1,0", ("1", "0")),
        ("GPU-8932f937, 5,-1,7", ("GPU-8932f937", "5")),
    ],
)
def test_what_the_environment_says(machine: Path, visible: str, names: tuple[str, ...]) -> None:
    devices = found({"CUDA_VISIBLE_DEVICES": visible}, machine)
    assert devices.counts()[""] == len(names)
    assert not names or devices.take("a", Gpu(count=len(names))) == names
    assert devices.take("b", Gpu()) is None


def test_each_is_one_container_s() -> None:
    t4 = frozenset({"T4"})
    devices = Devices({"0": t4, "1": frozenset({"A100"}), "2": t4})
    assert devices.take("a", Gpu("T4", 3)) is None and devices.take("a", Gpu("H100")) is None
    assert devices.take("a", Gpu("T4", 2)) == ("0", "2")
    assert devices.take("b", Gpu("T4")) is None and devices.take("b", Gpu()) == ("1",)
    devices.give_back("a")
    devices.give_back("never there")
    assert devices.take("c", Gpu()) == ("0",)
    devices.hold("found", ("2", "1"))
    assert devices.take("d", Gpu()) is None


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        ("NVIDIA A10G", {"A10G"}),
        ("NVIDIA H100 80GB HBM3", {"H100", "H100-80GB"}),
        ("NVIDIA GeForce RTX 4090", {"GEFORCE-RTX-4090"}),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", {"RTX-PRO-6000"}),
        ("Unknown", set()),
    ],
)
def test_kinds(model: str, kinds: set[str]) -> None:
    assert kinds_of(model) == kinds
