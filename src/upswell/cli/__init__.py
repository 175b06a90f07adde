"""The command line. `main` turns every outcome into an exit status, and every error into what the user needs to see.

Importing this package is light; click comes with the first command, rich with the first live display.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

STATUS_FAILED = 1
STATUS_USAGE = 2
STATUS_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
STATUS_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default that of `sys.argv`) and return its exit status."""
    import click

    try:
        status = _perform(sys.argv[1:] if arguments is None else list(arguments))
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
        return status
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return STATUS_USAGE
    except click.UsageError as error:
        print(f"upswell: {_one_line(error)}", file=sys.stderr)
        return STATUS_USAGE
    except click.ClickException as error:  # what a command has to say about the server or what is on it
        print(f"upswell: {error.format_message()}", file=sys.stderr)
        return STATUS_FAILED
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return STATUS_BROKEN_PIPE
        from .tracebacks import show

        show(error)
        return STATUS_FAILED


def _perform(arguments: list[str]) -> int:
    import click

    from .. import __version__
    from .commands import Commands

    @click.group(cls=Commands, invoke_without_command=True, help="Autoscaling Python functions on your own machines.")
    @click.version_option(__version__, message="upswell %(version)s")
    @click.pass_context
    def upswell(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            click.echo(context.get_help())

    outcome = upswell.main(arguments, prog_name="upswell", standalone_mode=False)
    return outcome() if callable(outcome) else int(outcome or 0)


def _one_line(error: object) -> str:
    """Return click's message without its line breaks and with the way to more."""
    import click

    assert isinstance(error, click.UsageError)
    words = " ".join(error.format_message().split())
    path = error.ctx.command_path if error.ctx is not None else ""
    return f"{words} (see {path} --help)" if path else words


def _interrupted() -> int:
    """Ctrl-C is the user's wish: nothing is said, and a second one does not disturb the way out."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return STATUS_INTERRUPTED


def _reader_is_gone() -> bool:
    """Whether who read our output has left, as `head` does; then also keep the interpreter from flushing at exit."""
    import os
    import select

    poller = select.poll()
    poller.register(1, 0)
    gone = any(event & select.POLLERR for _, event in poller.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone
