"""The call graph of a spawned call, from a program."""

from .processes import Program


def test_the_call_graph(program: Program) -> None:
    program.write("""
        import time, upswell
        from upswell.call_graph import InputInfo, InputStatus
        from upswell.exception import NotFoundError

        app = upswell.App()

        @app.function()
        def leaf(x):
            if x == 2:
                raise LookupError(x)
            return x

        @app.function()
        def middle(x):
            return list(leaf.map(range(3), return_exceptions=True)), leaf.remote(x)

        @app.function()
        def top(seconds):
            middle.remote(7)
            time.sleep(seconds)

        def show(info, depth=0):
            where = "somewhere" if info.task_id else "nowhere"
            print("  " * depth + info.function_name, info.module_name, info.status.name, where)
            for child in info.children:
                assert child.input_id != info.input_id
                show(child, depth + 1)

        @app.local_entrypoint()
        def main():
            call = top.spawn(0)
            call.get()
            (root,) = call.get_call_graph()
            assert isinstance(root, InputInfo) and root.function_call_id == call.object_id
            show(root)
            slow = top.spawn(30)
            while not slow.get_call_graph() or not slow.get_call_graph()[0].children:
                time.sleep(0.02)
            print(slow.get_call_graph()[0].status == InputStatus.PENDING)
            slow.cancel()
            try:
                slow.get()
            except Exception:
                print(slow.get_call_graph()[0].status.name)
            try:
                upswell.FunctionCall.from_id("fc-nothing").get_call_graph()
            except NotFoundError as error:
                print(error)
    """)
    done = program.upswell("run", "program.py")
    assert (done.status, done.err) == (0, "")
    assert done.lines == [
        "top program SUCCESS somewhere",
        "  middle program SUCCESS somewhere",
        "    leaf program SUCCESS somewhere",
        "    leaf program SUCCESS somewhere",
        "    leaf program FAILURE somewhere",
        "    leaf program SUCCESS somewhere",
        "True",
        "TERMINATED",
        "no call graph of fc-nothing is known: there is no such call, or the server remembers only later ones, or was "
        "started again since",
    ]
