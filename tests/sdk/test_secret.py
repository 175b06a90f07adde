"""Secrets where they are declared: what they read, what they refuse, and that they show nothing."""

import pickle
from pathlib import Path

import pytest

from upswell import Secret
from upswell.exception import InvalidError, NotFoundError
from upswell.sdk.secret import parse_variables
from upswell.sdk.variables import Variables
from upswell.spec import Environment

FILE = """
# comment
PLAIN=1
export EXPORTED = two words  # note
SINGLE='as it is: ${PLAIN} # no comment' # comment
DOUBLE="line\\nbreak ${PLAIN} \\"quoted\\""
EMPTY=
BARE
  INDENTED=a#b
MULTIPLE="first
second"
OTHERWISE=${NOWHERE:-else} ${OUTSIDE} ${NOWHERE}
ADDRESS=postgres://user:pass@host/db?x=y#z
what is no entry
"""


def test_a_file_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTSIDE", "from outside")
    assert parse_variables(FILE) == {
        "PLAIN": "1",
        "EXPORTED": "two words",
        "SINGLE": "as it is: ${PLAIN} # no comment",
        "DOUBLE": 'line\nbreak 1 "quoted"',
        "EMPTY": "",
        "BARE": "",
        "INDENTED": "a#b",
        "MULTIPLE": "first\nsecond",
        "OTHERWISE": "else from outside ",
        "ADDRESS": "postgres://user:pass@host/db?x=y#z",
    }


def test_a_file_is_found_upwards_and_read_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    here, beside = Secret.from_dotenv(filename=".env-test"), Secret.from_dotenv(inner / "x.py", filename=".env-test")
    monkeypatch.chdir(inner)
    here = Secret.from_dotenv(filename=".env-test")
    with pytest.raises(NotFoundError, match=r"no file \.env-test"):
        beside.variables()
    (tmp_path / ".env-test").write_text("KEY=outer\n")
    assert here.variables() == beside.variables() == {"KEY": "outer"}
    (inner / ".env-test").write_text("KEY=inner\n")
    assert here.variables() == {"KEY": "inner"}


def test_local_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENT", "hush")
    assert Secret.from_local_environ(["PRESENT"]).variables() == {"PRESENT": "hush"}
    with pytest.raises(InvalidError, match="ABSENT"):
        Secret.from_local_environ(["PRESENT", "ABSENT"])


def test_named_secrets_say_what_to_use_instead() -> None:
    secret = Secret.from_name("huggingface", required_keys=["HF_TOKEN"])
    with pytest.raises(NotFoundError, match=r"'huggingface'.*from_local_environ\(\['HF_TOKEN'\]\)"):
        secret.variables()


@pytest.mark.parametrize("wrong", [{"A": 5_318_008}, {1: "5318008"}, {"A=B": "5318008"}, {"A": "53\x0018008"}, ["A"]])
def test_what_is_refused_is_not_shown(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidError) as caught:
        Secret.from_dict(wrong)
    assert "18008" not in str(caught.value)


def test_values_stand_in_no_repr_and_no_pickle() -> None:
    secret = Secret.from_dict({"TOKEN": "hush", "LEFT_OUT": None})
    variables = Variables().over(None, [secret], {"A": "b"})
    environment = Environment(
        kind="module",
        origin="m",
        module="m",
        main=False,
        sys_path=(),
        directory="/",
        variables=tuple(variables.resolve().items()),
    )
    assert repr(secret) == "Secret.from_dict([TOKEN])"
    assert dict(environment.variables) == {"TOKEN": "hush", "A": "b"}
    assert "hush" not in f"{secret} {variables} {environment!r} {environment}" and "TOKEN" in repr(environment)
    with pytest.raises(TypeError, match="secrets="):
        pickle.dumps(secret)


def test_the_later_wins_and_env_wins_over_secrets() -> None:
    first, second = Secret.from_dict({"A": "1", "B": "1", "C": "1"}), Secret.from_dict({"B": "2", "C": "2"})
    assert Variables().over(None, [first, second], {"C": "3"}).resolve() == {"A": "1", "B": "2", "C": "3"}


def test_variables_have_a_limit() -> None:
    with pytest.raises(InvalidError, match="70,001 bytes"):
        Variables().over(None, [Secret.from_dict({"A": "x" * 70_000})], None).resolve()
