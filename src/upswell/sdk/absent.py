"""What Modal's SDK has and upswell has not: a program that names it is told so, and what there is instead."""

from __future__ import annotations

from opcode import opmap
from types import FrameType

_ABSENT = {
    "web endpoints: functions are called by name, with upswell.Function.from_name(app, function)": (
        "asgi_app fastapi_endpoint web_endpoint web_server wsgi_app Server"
    ),
    "sandboxes: what is to run is a function of an app": "Sandbox SandboxSnapshot Probe",
    "tunnels into containers": "forward Tunnel",
    "terminals in containers: what they print appears where the program runs": "interact",
    "groups of containers that know one another: upswell.Queue and upswell.Dict are for what they share": (
        "clustered Cluster"
    ),
    "sessions": "sessioned",
    "storage of its own: containers see the files of their machine": "CloudBucketMount NetworkFileSystem",
    "mounts: modules beside the program travel with it, and containers see the files of their machine": (
        "Mount FilePatternMatcher"
    ),
    "proxies or regions: containers run where the server is": "Proxy SchedulerPlacement",
    "accounts: a server belongs to who starts it, and UPSWELL_SERVER and UPSWELL_TOKEN say which one": (
        "Client Environment Workspace billing config"
    ),
    "classes of GPUs: write gpu='A10G', 'A10G:2' or 'any'": "gpu",
    "stubs: it is upswell.App": "Stub",
    "image builds: what a container needs before its first input is made in a method under @upswell.enter()": "build",
}


def say_why_absent(name: str, asking: FrameType) -> None:
    """Raise why the package has not this name, if an SDK has it; `asking` is the frame that names it.

    From a `from upswell import name` Python would show nothing of an `AttributeError`.
    """
    for reason, names in _ABSENT.items():
        if name in names.split():
            if asking.f_code.co_code[asking.f_lasti] == opmap["IMPORT_FROM"]:
                raise ImportError(f"cannot import name {name!r} from 'upswell': upswell has no {reason}")
            raise AttributeError(f"module 'upswell' has no attribute {name!r}: upswell has no {reason}")
