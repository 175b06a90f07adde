"""Images and volumes: chains are values, and what holds of them today holds."""

import pytest

from upswell import Image, Volume
from upswell.exception import InvalidError


def test_a_chain_is_a_value() -> None:
    def chain() -> Image:
        return (
            Image.debian_slim(python_version="3.12")
            .apt_install("git", "curl")
            .pip_install("numpy", ["scipy"], pre=True)
            .uv_pip_install("polars")
            .run_commands("echo hello", env={"A": "b"})
            .add_local_dir("data", "/data", ignore=["*.tmp"])
            .add_local_python_source("package")
            .run_function(print, args=(1,))
            .workdir("/work")
            .dockerfile_commands("RUN true")
        )

    assert chain() == chain() and hash(chain()) == hash(chain())
    assert chain() != chain().env({"A": "b"})
    first = chain().steps[2]
    assert (first.method, first.arguments, first.options) == ("pip_install", ("numpy", ("scipy",)), (("pre", True),))


def test_every_beginning_gives_an_image() -> None:
    beginnings = [
        Image.debian_slim(),
        Image.micromamba("3.12").micromamba_install("cuda", channels=["nvidia"]),
        Image.from_registry("nvidia/cuda:12", add_python="3.12").entrypoint([]),
        Image.from_dockerfile("Dockerfile").cmd(["true"]),
        Image.from_scratch().shell(["bash"]).copy_local_file("a").copy_local_dir("b"),
        Image.debian_slim().pip_install_from_requirements("requirements.txt", gpu="any"),
        Image.debian_slim().pip_install_from_pyproject("pyproject.toml").uv_sync(),
        Image.debian_slim().poetry_install_from_file("pyproject.toml", without=["dev"]).add_local_file("a", "/a"),
        Image.debian_slim().pip_install_private_repos("example.com/a/b", git_user="me"),
    ]
    assert all(isinstance(image, Image) for image in beginnings)


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(TypeError):
        Image.debian_slim().pip_install("numpy", indeks="x")  # type: ignore[call-arg]
    with pytest.raises(InvalidError, match=r"Image\.env maps text to text"):
        Image.debian_slim().env({"A": 1})  # type: ignore[dict-item]
    with pytest.raises(InvalidError, match=r"Image\.run_function"):
        Image.debian_slim().run_function("print")  # type: ignore[arg-type]


def test_variables_of_the_steps() -> None:
    image = Image.debian_slim().env({"A": "1", "B": "1"}).pip_install("numpy").env(vars={"B": "2"})
    assert image.variables == {"A": "1", "B": "2"}
    assert image.pipe(lambda base, name: base.env({name: "3"}), "C").variables == {"A": "1", "B": "2", "C": "3"}


def test_failed_imports_are_those_of_the_image_and_what_is_based_on_it() -> None:
    image, other = Image.debian_slim(), Image.debian_slim()
    with image.imports():
        import no_such_module  # type: ignore[import-not-found]

        print(no_such_module)
    other.check_imports()
    for failing in (image, image.pip_install("x").env({})):
        with pytest.raises(ImportError, match="no_such_module"):
            failing.check_imports()
    with pytest.raises(ZeroDivisionError), image.imports():
        print(1 / 0)


def test_volumes_refuse_what_would_be_lost() -> None:
    volume = Volume.from_name("data", create_if_missing=True)
    volume.commit()
    volume.reload()
    with pytest.raises(InvalidError, match=r"Volume\.from_name\('data'\) keeps no files"):
        volume.batch_upload()
    with Volume.ephemeral() as other:
        assert other.name is None
