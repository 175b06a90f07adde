"""`upswell run`: import the user's code, and run its entrypoint here or its function in a container."""

from __future__ import annotations

import inspect
import sys
from contextlib import nullcontext

import click

from .. import home
from ..errors import InvalidError
from ..sdk import output
from . import loading, options
from .commands import Action
from .progress import LiveProgress, at_terminal

HELP = """Run a local entrypoint, or a single function, of the app in a file.

\b
  upswell run census.py                    the only entrypoint, else the only function
  upswell run census.py::main --top 5      the one of that name, with its options
  upswell run models.py::Model.predict     a method; its class's parameters are options, too
  upswell run census.py --help             what its options are
  upswell run -m package.module            a module, with relative imports
  upswell run - < census.py                a program from standard input

A server and containers are started for the run and end with it. With --detach the app runs on the server that keeps
apps; spawned calls go on there when the program here has ended.

Exit status: 0, 1 if the program failed, 2 for a wrong command line, 130 after Ctrl-C.
"""


@click.command(
    context_settings={"allow_interspersed_args": False}, help=HELP, short_help="Run an app from a file or module."
)
@click.option("-d", "--detach", is_flag=True, help="Run on the server that keeps apps, and go on there afterwards.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing but what the program itself prints.")
@click.option("-m", "is_module", is_flag=True, help="The target is a module's name, imported from here.")
@click.option("--as-modal", is_flag=True, help="`import modal` gives upswell (so it is where no modal is installed).")
@click.argument("target", metavar="FILE[::NAME]")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE PROGRAM]...")
def run(detach: bool, quiet: bool, is_module: bool, as_modal: bool, target: str, arguments: tuple[str, ...]) -> Action:
    """Read what is to be run; running it is the caller's, once click is done."""
    where = loading.Target.parse(target, is_module)
    return lambda: _run(where, arguments, detach, quiet, as_modal)


def _run(target: loading.Target, arguments: tuple[str, ...], detach: bool, quiet: bool, as_modal: bool) -> int:
    output.quiet = quiet
    if not detach and home.chosen_server() is None:
        _check_environment()
    source = loading.prepare(target)
    if as_modal or loading.lacks_modal(source):
        loading.install_modal()
        if not quiet:
            print(f"upswell: in {target.place}, modal is upswell", file=sys.stderr)
    sys.argv = [target.place, *arguments]
    program = f"upswell run {'-m ' * (target.kind == 'module')}{target.place}{'::' * bool(target.name)}{target.name}"
    # The display is there before the user's code, whose loggers may hold on to the streams they find.
    with LiveProgress() if at_terminal() and not quiet else nullcontext() as display:
        chosen = loading.choose(loading.load(target, source), target)
        call = options.bind(chosen.raw, arguments, program)
        with chosen.app.run(detach=detach):
            if display is not None:
                chosen.app.watch(display.update)
            _call(chosen, call)
    return 0


def _check_environment() -> None:
    """A mistake in what the shell says is told like one in the command, before the program runs."""
    try:
        home.local_engine()
    except InvalidError as error:
        raise click.UsageError(str(error)) from None


def _call(chosen: loading.Chosen, call: inspect.BoundArguments) -> None:
    if chosen.entrypoint is None:
        function, args, kwargs = chosen.resolve(call)
        result = function.remote(*args, **kwargs)
        if result is not None:
            print(result)
    elif inspect.iscoroutinefunction(chosen.raw):
        import asyncio

        asyncio.run(chosen.raw(*call.args, **call.kwargs))
    else:
        chosen.raw(*call.args, **call.kwargs)
