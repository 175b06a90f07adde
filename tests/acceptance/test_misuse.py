"""Misuse that only a running app can notice; `tests/sdk/test_misuse.py` has all that is noticed before."""

import sys

import pytest

from .processes import Program

PROGRAM = """
    import sys
    import upswell

    app = upswell.App("misused")

    @app.function(min_containers=0, max_containers=2)
    def function(x):
        return x

    @app.function()
    def opens():
        with app.run():
            pass

    @app.function()
    @upswell.batched(max_batch_size=2, wait_ms=0)
    def batch(xs):
        return 3

    def twice():
        mapped = function.map([1])
        list(mapped)
        list(mapped)

    def open_again():
        with app.run():
            pass

    if __name__ == "__main__":
        with app.run():
            try:
                eval(sys.argv[1])
            except Exception as error:
                print(type(error).__name__, error, sep="|")
"""

MISUSED = [
    ("list(function.starmap([1]))", "TypeError", ["starmap", "[(1, 2), (3, 4)]", "1", "map"]),
    ("function.spawn_map(1)", "TypeError", ["function.spawn_map", "iterables"]),
    ("function.remote()", "TypeError", ["function()", "'x'"]),
    ("function.remote(lambda: (yield).x, y=sys)", "TypeError", ["function()", "'y'"]),
    ("function.remote(x for x in ())", "SerializationError", ["function", "generator"]),
    ("list(function.map([1, (x for x in ())]))", "SerializationError", ["input 1", "generator"]),
    ("function.update_autoscaler(min_containers=3)", "InvalidError", ["function.update_autoscaler", "(3)", "(2)"]),
    ("function.autoscaler.update(min_containers=3)", "InvalidError", ["function.autoscaler.update", "(3)", "(2)"]),
    ("twice()", "InvalidError", ["map of function", ".map again"]),
    ("open_again()", "InvalidError", ["running already"]),
    ("opens.remote()", "InvalidError", ["app.run()", "container"]),
    ("batch.remote(1)", "InvalidError", ["batch", "list of 1"]),
    ("function.spawn(1).get(index=1)", "IndexError", ["1 inputs"]),
    ("upswell.FunctionCall.from_id('fc-1').get()", "NotFoundError", ["fc-1"]),
    ("upswell.FunctionCall.from_id('fc-1').get_call_graph()", "NotFoundError", ["fc-1"]),
]


@pytest.mark.parametrize(("text", "kind", "words"), MISUSED, ids=[text for text, _, _ in MISUSED])
def test_what_can_not_be_done_while_it_runs(program: Program, text: str, kind: str, words: list[str]) -> None:
    path = program.write(PROGRAM)
    done = program.run(sys.executable, str(path), text)
    raised, _, message = done.out.strip().partition("|")
    assert (raised, done.err) == (kind, ""), done
    assert [word for word in words if word not in message] == [], message
