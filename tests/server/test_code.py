"""Files and trees of code as a server keeps them: whole, as their digests say, and nowhere but in their folder."""

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from upswell.code import KEPT_SECONDS, CodeStore
from upswell.errors import InvalidError, NotFoundError, StoreError
from upswell.spec import code_digest
from upswell.wire.codec import ProtocolError


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


@pytest.fixture
def code(tmp_path: Path) -> CodeStore:
    return CodeStore(tmp_path / "code")


def put(code: CodeStore, files: dict[str, bytes]) -> list[tuple[str, str]]:
    for content in files.values():
        code.put(digest(content), content)
    return sorted((path, digest(content)) for path, content in files.items())


def test_a_tree_is_made_of_its_files(code: CodeStore) -> None:
    files = {"app.py": b"x = 1\n", "package/__init__.py": b"", "package/data/words.txt": b"words"}
    pairs = put(code, files)
    name = code.make_tree(pairs)
    assert name == code_digest(pairs)
    tree = code.path(name)
    assert {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()} == files
    assert all(not path.stat().st_mode & 0o222 for path in tree.rglob("*") if path.is_file()), "files are read-only"
    assert code.make_tree(pairs) == name, "once more is the same"


def test_where_there_is_no_room_nothing_is_left(code: CodeStore, tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    content, unfinished = bytes(1 << 20), tmp_path / "code" / "unfinished"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, hard))
    try:
        with pytest.raises(StoreError, match=r"code can't be kept in .*: File too large: make room"):
            code.put(digest(content), content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert not list(unfinished.iterdir())
    pairs = put(code, {"app.py": content})
    unfinished.rmdir()
    with pytest.raises(StoreError, match="make room"):
        code.make_tree([*pairs, ("more.py", pairs[0][1])])


def test_the_digest_is_of_paths_and_contents(code: CodeStore) -> None:
    one, other = put(code, {"a.py": b"1"}), put(code, {"b.py": b"1"})
    assert len({code_digest(one), code_digest(other), code_digest(put(code, {"a.py": b"2"})), code_digest([])}) == 4


def test_a_tree_goes_from_one_store_to_another(code: CodeStore, tmp_path: Path) -> None:
    name = code.make_tree(put(code, {"app.py": b"x = 1\n", "package/__init__.py": b"", "package/empty.py": b""}))
    other, rounds = CodeStore(tmp_path / "other", is_shared=True), 0
    while lacking := other.lacking(name):
        rounds += 1
        for one in lacking:
            other.put(one, code.content(one))
    assert rounds == 2, "the list, and what it names"
    other.make(name)
    assert (other.path(name) / "app.py").read_bytes() == b"x = 1\n"
    assert (other.path(name) / "package" / "empty.py").read_bytes() == b""


@pytest.mark.parametrize("content", [b"", b"{}", b'[["a.py", "no digest"]]', b'[["../a.py", "%s"]]' % (b"0" * 64)])
def test_what_is_no_list_of_files_is_no_tree(code: CodeStore, content: bytes) -> None:
    code.put(digest(content), content)
    with pytest.raises(InvalidError):
        code.lacking(digest(content))


def test_no_files_are_a_tree_too(code: CodeStore) -> None:
    assert list(code.path(code.make_tree([])).iterdir()) == []


def test_what_is_missing_is_told(code: CodeStore) -> None:
    code.put(digest(b"here"), b"here")
    assert code.missing([digest(b"here"), digest(b"not"), digest(b"not"), "../../etc/passwd"]) == [
        digest(b"not"),
        "../../etc/passwd",
    ]
    with pytest.raises(NotFoundError, match=r"not\.py was not sent"):
        code.make_tree([("not.py", digest(b"not"))])


def test_content_must_be_what_its_digest_says(code: CodeStore) -> None:
    with pytest.raises(ProtocolError, match="which they are not"):
        code.put(digest(b"one"), b"another")
    with pytest.raises(ProtocolError, match="which they are not"):
        code.put("../escaped", b"another")
    assert code.missing([digest(b"one")]) == [digest(b"one")]


@pytest.mark.parametrize(
    "paths",
    [
        ["../outside.py"],
        ["/etc/cron.d/job"],
        ["package/../../outside.py"],
        ["package//x.py"],
        ["./x.py"],
        [""],
        ["a\0b"],
        ["x" * 2000],
        ["b.py", "a.py"],
        ["a.py", "a.py"],
        ["a", "a/b.py"],
        ["a/b", "a/b.py", "a/b/c.py"],
    ],
)
def test_paths_stay_within_their_tree(code: CodeStore, tmp_path: Path, paths: list[str]) -> None:
    code.put(digest(b""), b"")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InvalidError, match=r"path|place|folder"):
        code.make_tree([(path, digest(b"")) for path in paths])
    assert set(tmp_path.rglob("*")) == before


def test_a_digest_that_is_a_path_is_none(code: CodeStore) -> None:
    with pytest.raises(InvalidError, match="no digest"):
        code.make_tree([("a.py", "../../../etc/passwd")])


def test_several_threads_make_the_same_tree(code: CodeStore) -> None:
    files = {f"package/module{number}.py": b"%d" % number for number in range(50)}

    def make(_: int) -> str:
        return code.make_tree(put(code, files))

    with ThreadPoolExecutor(8) as threads:
        (name,) = {*threads.map(make, range(16))}
    assert len(list((code.path(name) / "package").iterdir())) == 50


def test_what_nobody_has_used_for_a_day_goes(code: CodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused = put(code, {"a.py": b"a", "b.py": b"b"}), put(code, {"a.py": b"a", "c/d.py": b"d"})
    trees = [code.make_tree(files) for files in (used, unused)]
    put(code, {"alone.py": b"alone"})
    list(code.sweep({trees[0]}))
    assert code.has_tree(unused) and not code.missing(digest for _, digest in unused), "not before its time"
    monkeypatch.setattr("upswell.code.KEPT_SECONDS", -1.0)
    list(code.sweep({trees[0]}))
    assert code.has_tree(used) and not code.has_tree(unused)
    assert code.lacking(trees[0]) == []
    assert code.missing([digest(b"a"), digest(b"b")]) == []
    gone = [digest(b"d"), digest(b"alone"), trees[1]]
    assert code.missing(gone) == gone
    assert not list(code._unfinished.iterdir())


def test_what_is_used_again_is_kept_for_another_day(code: CodeStore) -> None:
    files = put(code, {"a.py": b"a"})
    tree = code.make_tree(files)
    long_ago = time.time() - 2 * KEPT_SECONDS
    for use in (lambda: code.make_tree(files), lambda: list(code.sweep({tree}))):
        os.utime(code.path(tree), (long_ago, long_ago))
        use()
        list(code.sweep(()))
        assert code.has_tree(files)
    put(code, {"alone.py": b"alone"})
    os.utime(code._files / digest(b"alone"), (long_ago, long_ago))
    assert code.missing([digest(b"alone")]) == []
    list(code.sweep(()))
    assert code.missing([digest(b"alone")]) == [], "who was told that it is here need not send it"


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_sweep_that_is_cut_short_leaves_no_half_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    code = CodeStore(tmp_path / "code")
    files = put(code, {"a.py": b"a", "b/c.py": b"c", "b/d.py": b"d"})
    tree = code.make_tree(files)
    monkeypatch.setattr("upswell.code.KEPT_SECONDS", -1.0)
    for _ in zip(range(steps), code.sweep(()), strict=False):
        pass
    again = CodeStore(tmp_path / "code")
    for path, content in (("a.py", b"a"), ("b/c.py", b"c"), ("b/d.py", b"d")):
        if again.has_tree(files):
            assert (again.path(tree) / path).read_bytes() == content
    assert not list(again._unfinished.iterdir())
    put(again, {"a.py": b"a", "b/c.py": b"c", "b/d.py": b"d"})
    assert again.make_tree(files) == tree


def test_what_was_half_done_is_gone_at_the_next_start(tmp_path: Path) -> None:
    first = CodeStore(tmp_path)
    name = first.make_tree(put(first, {"a.py": b"1"}))
    (tmp_path / "unfinished" / "half").mkdir()
    again = CodeStore(tmp_path)
    assert not list((tmp_path / "unfinished").iterdir())
    assert again.path(name).is_dir() and not again.missing([digest(b"1")])
    assert os.stat(tmp_path / "files").st_mode & 0o777 == 0o700


def test_what_was_written_before_the_machine_stopped_is_not_trusted(tmp_path: Path) -> None:
    digest = sha256(b"x = 1").hexdigest()
    code = CodeStore(tmp_path)
    code.put(digest, b"x = 1")
    code.make_tree([("a.py", digest)])
    assert CodeStore(tmp_path).has_tree([("a.py", digest)])
    (tmp_path / "boot").write_text("another run")
    again = CodeStore(tmp_path)
    assert not again.has_tree([("a.py", digest)])
    assert again.missing([digest]) == [digest]
