"""`upswell deploy`: have a server keep the app in a file, and say what it serves and how it is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from ..sdk.deployment import STRATEGIES, Deployment, deploy_app
from ..sdk.source import readable_size
from ..spec import Cron, FunctionRecord, Period, Strategy
from . import loading
from .commands import Action, in_one_line

HELP = """Put the app in a file on the server that keeps apps, which serves its functions by name from then on.

\b
  upswell deploy census.py                  the app in the file
  upswell deploy census.py --name staging   under another name
  upswell deploy -m package.module          a module; its whole package is sent
  upswell deploy models.py::batch           one of several apps, by its name or variable

What the code needs of this machine is sent along: the modules and packages beside the file, and modules from elsewhere
that are not installed. The server is the one of UPSWELL_SERVER, or of the configuration file, or else one in the
background, which is started where none runs.
"""
SEVERAL_METHODS = 3  # are named; the others are counted


@click.command(help=HELP, short_help="Have a server keep an app and serve its functions by name.")
@click.option("-m", "is_module", is_flag=True, help="The target is a module's name, imported from here.")
@click.option("--name", help="The name to serve the app under, in place of its own.")
@click.option("--tag", default="", help="A word for this version, in the list of versions.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default=STRATEGIES[0],
    help="Replace containers as new ones become ready, or all at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
@click.option("--as-modal", is_flag=True, help="`import modal` gives upswell (so it is where no modal is installed).")
@click.argument("target", metavar="FILE[::APP]")
def deploy(
    is_module: bool, name: str | None, tag: str, strategy: Strategy, as_json: bool, as_modal: bool, target: str
) -> Action:
    """Read what is to be deployed; deploying it is the caller's, once click is done."""
    where = loading.Target.parse(target, is_module)
    return lambda: _deploy(where, name, tag, strategy, as_json, as_modal)


def _deploy(
    target: loading.Target, name: str | None, tag: str, strategy: Strategy, as_json: bool, as_modal: bool
) -> int:
    source = loading.prepare(target)
    if as_modal or loading.lacks_modal(source):
        loading.install_modal()
    sys.argv = [target.place]
    app = loading.choose_app(loading.load(target, source), target)
    with in_one_line():
        deployment = deploy_app(app, name, tag, strategy)
    if as_json:
        import json

        print(json.dumps(as_fields(deployment), indent=2))
    else:
        print("\n".join(lines(deployment)))
    return 0


def as_fields(deployment: Deployment) -> dict[str, Any]:
    """The deployment, for programs."""
    functions = [
        {"name": one.name, "kind": one.kind, "schedule": schedule_in_words(one) or None}
        | ({"methods": [method for method, _ in one.interface.methods]} if one.kind == "class" else {})
        for one in deployment.functions
    ]
    names = ("app_id", "name", "version", "unchanged", "files", "bytes", "sent")
    return {name: getattr(deployment, name) for name in names} | {"functions": functions}


def lines(deployment: Deployment) -> Iterator[str]:
    """The deployment, for people."""
    name, version = deployment.name, deployment.version
    if deployment.unchanged:
        yield f"{name} is unchanged: version {version} is served, with the settings that it was deployed with"
        return
    size = readable_size(deployment.bytes)
    sent = "all sent" if deployment.sent == deployment.files else f"{deployment.sent} of them sent"
    yield f"{name}, version {version}: {_counted(deployment.files, 'file')} of code, {size}, {sent}"
    width = max((len(one.name) for one in deployment.functions), default=0)
    for one in deployment.functions:
        yield f"  {one.name:{width}}  {schedule_in_words(one) or _methods(one)}".rstrip()
    if not deployment.functions:
        yield "  it has no function, so there is nothing to call"
    for one in deployment.functions[:1]:
        kind = "Cls" if one.kind == "class" else "Function"
        yield f'call it by name: upswell.{kind}.from_name("{name}", "{one.name}")'


def schedule_in_words(record: FunctionRecord) -> str:
    """When the function is called by itself; "" where never."""
    match record.spec.schedule:
        case Cron(cron_string=words, timezone=zone):
            return f'at "{words}" ({zone})'
        case Period() as period:
            parts = [(field, getattr(period, field)) for field in period.__struct_fields__]
            return "every " + ", ".join(_counted(value, field.removesuffix("s")) for field, value in parts if value)
        case None:
            return ""


def _methods(record: FunctionRecord) -> str:
    names = [f".{name}" for name, _ in record.interface.methods]
    more = f" and {len(names) - SEVERAL_METHODS} more" if len(names) > SEVERAL_METHODS else ""
    return ", ".join(names[:SEVERAL_METHODS]) + more


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"
