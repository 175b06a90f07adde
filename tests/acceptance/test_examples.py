"""Every example runs, and what it prints is right; `make demo` runs two of them."""

import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from .processes import Program

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers that the pattern's groups stand for; it must fit somewhere in the text."""
    found = re.search(pattern, text)
    assert found, f"nothing like {pattern!r} in\n{text}"
    return [float(group.replace(",", "")) for group in found.groups()]


def census(text: str) -> None:
    assert text.split() == [str(x**2) for x in range(100)]


def library(text: str) -> None:
    lines = text.splitlines()
    sizes = [int(line.split()[1].replace(",", "")) for line in lines[1:4]]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 100
    (modules,) = numbers(r"all ([\d,]+) modules", text)
    files, unparsed = numbers(r"([\d,]+) files in .*; (\d+) of them do not parse", text)
    assert modules == files - unparsed > 10


def grid_search(text: str) -> None:
    penalty, gamma, accuracy = numbers(r"best: C=([\d.]+), gamma=([\d.]+), ([\d.]+)% of 1,797 digits", text)
    assert penalty >= 1 and gamma in (0.0005, 0.002) and accuracy > 98
    assert len(re.findall(r"\d%", text)) == 16 + 1 and text.count("*") == 1
    assert numbers(r"(\d+) fits", text) == [32]


def crawler(text: str) -> None:
    levels = [int(pages) for pages in re.findall(r"clicks away: +(\d+) pages", text)]
    pages, links, rate = numbers(r"(\d+) pages, ([\d,]+) links, ([\d,]+) pages/s", text)
    assert levels[0] == 1 and len(levels) > 2 and sum(levels) == pages > 20
    assert links > pages - 1, "every page but the first is linked from somewhere"
    assert rate > 0
    assert numbers(r"containers: (\d+)", text)[0] < 10


def pipeline(text: str) -> None:
    files, words, different = numbers(r"([\d,]+) files, ([\d,]+) words, ([\d,]+) different", text)
    assert files > 100 and words > 100_000 and 1_000 < different < words
    tree = re.search(r"the tree: (.*)", text)
    assert tree
    levels = [int(level) for level in tree[1].split(" → ")]
    assert levels[-1] == 1 and all(below == -(-above // 2) for above, below in pairwise(levels))
    assert numbers(r"count × (\d+), merge × (\d+)", text) == [levels[0], levels[0] - 1]


def batching(text: str) -> None:
    assert numbers(r"alone .* (\d+) recognised, batches: (\d+) × 1\n", text) == [100, 100]
    assert numbers(r"in batches .* (\d+) recognised", text) == [100]
    batches = [(int(count), int(size)) for count, size in re.findall(r"(\d+) × (\d+)", text)][1:]
    assert sum(count * size for count, size in batches) == 100
    assert sum(count for count, _ in batches) < 100, "passes over the vectors"
    assert numbers(r"batches are ([\d.]+) times as fast", text)[0] > 0


@pytest.mark.parametrize(
    ("check", "options"),
    [
        (census, ""),
        (library, "--top 3 --within email"),
        (grid_search, "--folds 2"),
        (crawler, "--start pprint"),
        (pipeline, "--chunk 100"),
        (batching, "--queries 100"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_example(program: Program, check: Callable[[str], None], options: str) -> None:
    done = program.upswell("run", str(EXAMPLES / f"{check.__name__}.py"), *options.split())
    assert (done.status, done.err) == (0, "")
    check(done.out)


@pytest.mark.usefixtures("keeper")
def test_timed_scaling(program: Program) -> None:
    """The moments of its schedules are made by hand."""
    done = program.upswell("deploy", str(EXAMPLES / "timed_scaling.py"))
    assert (done.status, done.err) == (0, "")
    assert done.lines[2:4] == [
        '  begin_the_day    at "0 6 * * 1-5" (Europe/Berlin)',
        '  begin_the_night  at "0 22 * * *" (Europe/Berlin)',
    ]
    program.write(
        """
        from upswell import Function

        answer = Function.from_name("timed-scaling", "answer")
        print(answer.remote("warm?"), answer.autoscaler.settings().min_containers)
        for name in ("begin_the_day", "begin_the_night"):
            Function.from_name("timed-scaling", name).remote()
            print(answer.autoscaler.settings().min_containers)
        """
    )
    assert program.run(sys.executable, "program.py").lines == ["WARM? 0", "2", "0"]


def test_every_example_is_tested() -> None:
    names = {check.__name__ for check in (census, library, grid_search, crawler, pipeline, batching)}
    names |= {"timed_scaling"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == names
