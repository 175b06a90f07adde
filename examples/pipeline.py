"""Chunks, map, reduce, all of it inside containers: the words of the standard library's sources, counted by a tree.

Look at `tally`: a function that runs in a container maps and starmaps over others as if it were at home. It lends its
place while it waits, so nothing here can run out of containers, not even with `max_containers=1`.
"""

import collections
import re
import sysconfig
import time
from pathlib import Path

import upswell as modal

app = modal.App("pipeline")
Counts = collections.Counter[str]
root = Path(sysconfig.get_paths()["stdlib"])


@app.function()
def count(paths: list[str]) -> Counts:
    """Map: the words of some files."""
    texts = (Path(path).read_text(errors="replace") for path in paths)
    return collections.Counter(word for text in texts for word in re.findall(r"[a-z]{4,}", text.lower()))


@app.function()
def merge(left: Counts, right: Counts) -> Counts:
    """Reduce: two counts to one."""
    return left + right


@app.function()
def tally(paths: list[str], chunk: int) -> tuple[Counts, list[int]]:
    """Return all the words, and how many counts there were on each level of the tree."""
    counts = list(count.map(paths[start : start + chunk] for start in range(0, len(paths), chunk)))
    levels = [len(counts)]
    while len(counts) > 1:
        odd = counts[len(counts) & ~1 :]
        counts = [*merge.starmap(zip(counts[::2], counts[1::2], strict=False)), *odd]
        levels.append(len(counts))
    return counts[0], levels


@app.local_entrypoint()
def main(chunk: int = 64, top: int = 8):
    paths = [str(path) for path in sorted(root.rglob("*.py")) if not {"site-packages", "test"} & {*path.parts}]
    began = time.perf_counter()
    call = tally.spawn(paths, chunk)
    words, levels = call.get()
    seconds = time.perf_counter() - began

    (whole,) = call.get_call_graph()
    below = collections.Counter(each.function_name for each in whole.children)
    longest = max(count for _, count in words.most_common(top))
    for word, number in words.most_common(top):
        print(f"{word:>10} {number:>7,} {'█' * round(40 * number / longest)}")
    print(f"{len(paths):,} files, {words.total():,} words, {len(words):,} different ones, {seconds:.1f} s")
    print(f"the tree: {' → '.join(map(str, levels))}")
    print(f"called by {whole.function_name}: {', '.join(f'{name} × {times}' for name, times in below.items())}")
