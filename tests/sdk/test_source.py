"""Which files an app travels with, and how they lie in its tree."""

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from upswell.errors import ConflictError, InvalidError
from upswell.sdk import source
from upswell.sdk.source import Source, collect
from upswell.spec import Environment


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let it seem that nothing is imported but what is installed: tests are local modules, too."""
    before = dict(sys.modules)
    files = {name: getattr(module, "__file__", None) or "" for name, module in before.items()}
    here = {name: module for name, module in before.items() if source.is_installed(files[name]) or name == "sys"}
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path])
    sys.modules.clear()
    sys.modules.update(here)
    yield
    sys.modules.clear()
    sys.modules.update(before)


pytestmark = pytest.mark.usefixtures("modules")


def write(folder: Path, *paths: str, content: str = "") -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content or f"# {path}\n")
    return folder


def script(path: Path, module: str = "app") -> Environment:
    return Environment(
        kind="script",
        origin=str(path),
        module=module,
        main=False,
        sys_path=tuple(sys.path),
        directory=os.getcwd(),
        arguments=(str(path), "--fast"),
    )


def module(name: str) -> Environment:
    return Environment(
        kind="module", origin=name, module=name, main=False, sys_path=tuple(sys.path), directory=os.getcwd()
    )


def paths(found: Source) -> list[str]:
    return [path for path, _ in found.files]


def test_a_script_travels_with_what_it_could_import(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "project",
        "app.py",
        "beside.py",
        "package/__init__.py",
        "package/words.txt",
        "package/inner/data.bin",
        "package/__pycache__/x.pyc",
        "package/.cache/x",
        "package/inner/environment/pyvenv.cfg",
        "package/inner/environment/lib/module.py",
        "namespace/part.py",
        "namespace/notes.txt",
        "src/inside/__init__.py",
        "not-a-module.py",
        "data.csv",
        ".git/config",
        ".hidden.py",
        "environment/pyvenv.cfg",
        "environment/lib/module.py",
        "documents/letter.txt",
        "documents/deeper/tool.py",
    )
    (folder / "package" / "back").symlink_to(folder / "package")
    assert paths(collect([script(folder / "app.py")])) == [
        "app.py",
        "beside.py",
        "namespace/part.py",
        "package/__init__.py",
        "package/inner/data.bin",
        "package/words.txt",
        "src/inside/__init__.py",
    ]


def test_the_same_code_is_the_same_tree_anywhere(tmp_path: Path) -> None:
    trees = []
    for place in ("here", "there/deeper"):
        folder = write(tmp_path / place, "app.py", "package/__init__.py")
        os.utime(folder / "app.py", (1, 1) if place == "here" else None)
        trees.append(collect([script(folder / "app.py")]))
    assert trees[0].digest == trees[1].digest
    here = trees[0].place(script(tmp_path / "here" / "app.py"))
    there = trees[1].place(script(tmp_path / "there/deeper" / "app.py"))
    assert here == there
    assert (here.kind, here.origin, here.sys_path, here.directory) == ("script", "app.py", ("",), "")
    assert here.arguments == ("app.py", "--fast") and here.code == trees[0].digest and here.main
    assert str(tmp_path) not in repr(here.arguments + here.sys_path)
    (tmp_path / "here" / "package" / "__init__.py").write_text("changed = True\n")
    assert collect([script(tmp_path / "here" / "app.py")]).digest != here.code


def test_a_script_of_any_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "project", "my-script", "helper.py")
    found = collect([script(folder / "my-script", "my_script")])
    assert paths(found) == ["helper.py", "my-script"]
    assert found.place(script(folder / "my-script", "my_script")).origin == "my-script"


def test_what_was_imported_from_elsewhere_travels(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "library_elsewhere/__init__.py", "library_elsewhere/data.txt", "single_elsewhere.py")
    write(tmp_path / "elsewhere", "spaced_elsewhere/part.py", "never_imported.py")
    import library_elsewhere  # type: ignore[import-not-found] # noqa: F401
    import single_elsewhere  # type: ignore[import-not-found] # noqa: F401
    import spaced_elsewhere.part  # type: ignore[import-not-found] # noqa: F401

    folder = write(tmp_path / "project", "app.py", "single_elsewhere.py")
    write(folder, "library_elsewhere/__init__.py", "library_elsewhere/of_another_library.py")
    found = collect([script(folder / "app.py")])
    assert paths(found) == [
        "app.py",
        "library_elsewhere/__init__.py",
        "library_elsewhere/data.txt",
        "single_elsewhere.py",
        "spaced_elsewhere/part.py",
    ]
    contents = {path: found.content(digest) for path, digest in found.files}
    imported = (tmp_path / "elsewhere" / "single_elsewhere.py").read_bytes()
    assert contents["single_elsewhere.py"] == imported, "what was imported wins over what lies beside"


def test_a_module_is_its_whole_package(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "whole_package/__init__.py", "whole_package/app.py", "whole_package/words.txt")
    write(tmp_path / "elsewhere", "beside_package.py")
    import whole_package.app  # type: ignore[import-not-found] # noqa: F401

    found = collect([module("whole_package.app"), module("whole_package")])
    assert paths(found) == ["whole_package/__init__.py", "whole_package/app.py", "whole_package/words.txt"]
    placed = found.place(module("whole_package.app"))
    assert (placed.kind, placed.origin, placed.main) == ("module", "whole_package.app", False)


def test_what_is_installed_stays(tmp_path: Path) -> None:
    import json

    import msgspec
    import numpy

    import upswell

    folder = write(tmp_path / "project", "app.py")
    assert paths(collect([script(folder / "app.py")])) == ["app.py"]
    assert all(source.is_installed(str(one.__file__)) for one in (json, msgspec, numpy, upswell))
    assert source.is_installed("/usr/lib/python3/dist-packages/yaml/__init__.py")


def test_the_folder_that_makes_modal_upswell_travels(tmp_path: Path) -> None:
    from upswell.cli.loading import MODAL_FOLDER

    sys.path.insert(0, str(MODAL_FOLDER))
    folder = write(tmp_path / "project", "app.py")
    assert paths(collect([script(folder / "app.py")])) == ["app.py", "modal.py"]


def test_a_text_becomes_a_file() -> None:
    text = Environment(kind="text", origin="x = 1\n", module="stdin", main=False, sys_path=(), directory="/")
    found = collect([text])
    assert [(path, found.content(digest)) for path, digest in found.files] == [("stdin.py", b"x = 1\n")]
    placed = found.place(text)
    assert (placed.kind, placed.origin, placed.module, placed.arguments) == (
        "script",
        "stdin.py",
        "stdin",
        ("stdin.py",),
    )


def test_functions_that_travel_by_value_need_no_files() -> None:
    by_value = Environment(kind="module", origin="", module="", main=False, sys_path=("/x",), directory="/x")
    found = collect([by_value])
    assert found.files == () and found.size == 0
    placed = found.place(by_value)
    assert (placed.origin, placed.sys_path, placed.directory, placed.code) == ("", ("",), "", found.digest)


def test_a_script_and_a_module_of_one_file_name(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "same_name.py", content="elsewhere = True\n")
    import same_name  # type: ignore[import-not-found] # noqa: F401

    folder = write(tmp_path / "project", "same_name.py")
    found = collect([script(folder / "same_name.py", "same_name_script")])
    assert paths(found) == ["same_name.py", "same_name_script_script.py"]
    assert found.place(script(folder / "same_name.py", "same_name_script")).origin == "same_name_script_script.py"


def test_files_and_folders_are_added(tmp_path: Path) -> None:
    folder = write(tmp_path / "project", "app.py", "assets/style.css", "assets/deep/logo.svg", "notes.txt")
    added = [(str(folder / "assets"), "static"), (str(folder / "notes.txt"), "docs/notes.txt")]
    assert paths(collect([script(folder / "app.py")], added)) == [
        "app.py",
        "docs/notes.txt",
        "static/deep/logo.svg",
        "static/style.css",
    ]


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_CODE_FILES", 5)
    folder = write(tmp_path, "app.py", "package/__init__.py", *(f"package/images/{number}.png" for number in range(7)))
    with pytest.raises(InvalidError) as raised:
        collect([script(folder / "app.py")], where="app.deploy: ")
    said = str(raised.value)
    assert said.startswith(
        "app.deploy: its code has 9 files, and the limit is 5. Most of it: package/images/ (7 files)"
    )


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_CODE_BYTES", 4_000)
    folder = write(tmp_path, "app.py", "package/__init__.py")
    (folder / "package" / "weights.bin").write_bytes(bytes(4_096))
    with pytest.raises(
        InvalidError, match=r"4\.1 kB, and the limit is 4\.0 kB\. .* package/weights\.bin \(4\.1 kB\), "
    ):
        collect([script(folder / "app.py")])


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    folder = write(tmp_path, "app.py")
    found = collect([script(folder / "app.py")])
    (folder / "app.py").write_text(textwrap.dedent("x = 2\n"))
    with pytest.raises(ConflictError, match=r"app\.py was changed"):
        found.content(found.files[0][1])


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (4_100, "4.1 kB"), (268_435_456, "268.4 MB"), (2 * 10**9, "2.0 GB")],
)
def test_sizes_for_people(count: int, words: str) -> None:
    assert source.readable_size(count) == words
