"""From an `Environment` to running user code: imports the user's module once, and finds a function in it.

What fails here is the user's to mend, so it is kept as an exception with a traceback of the user's frames only.
"""

from __future__ import annotations

import importlib.util
import linecache
import os
import pickle
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

from ..errors import InvalidError, NotFoundError
from ..sdk import context
from ..sdk.app import App
from ..sdk.context import ImportEnds
from ..spec import Environment, FunctionRecord
from .service import Bound, Service


def load_environment(environment: Environment) -> BaseException | None:
    """Make this process what the environment asks for, with the user's code imported; what went wrong, if anything."""
    me, failed = os.getpid(), None
    context.importing = True
    try:
        enter_environment(environment)
        import_user_code(environment)
    except BaseException as error:
        failed = error
    context.importing = False
    if os.getpid() != me:
        os._exit(0)  # the module has forked, and this is the other one
    return failed


def enter_environment(environment: Environment) -> None:
    """Make this process what the environment asks for: directory, variables, import path, arguments."""
    os.environ.update(dict(environment.variables))
    try:
        os.chdir(environment.directory)
    except OSError as error:
        raise InvalidError(f"the working directory {environment.directory} can't be entered: {error}") from None
    sys.path[:] = environment.sys_path
    sys.argv[:] = environment.arguments


def import_user_code(environment: Environment) -> None:
    """Import what the environment names, under the name that the client knows it by, as far as its `app.run()`."""
    if not environment.origin:
        return
    try:
        match environment.kind:
            case "module":
                _execute(environment, importlib.util.find_spec(environment.origin))
            case "script":
                loader = SourceFileLoader(environment.module, environment.origin)  # whatever the file's name ends in
                _execute(environment, importlib.util.spec_from_loader(environment.module, loader))
            case "text":
                module = sys.modules[environment.module] = ModuleType(environment.module)
                name = f"<{environment.module}>"
                linecache.cache[name] = (len(environment.origin), None, environment.origin.splitlines(True), name)
                exec(compile(environment.origin, name, "exec"), module.__dict__)
    except ImportEnds:
        pass
    if environment.main:
        sys.modules["__main__"] = sys.modules[environment.module]


def _execute(environment: Environment, specification: ModuleSpec | None) -> None:
    """Run a module's code. Unlike an import, what was defined stays where the code does not come to its end."""
    if environment.module in sys.modules:
        return  # its package has imported it already
    if specification is None or specification.loader is None:
        raise NotFoundError(f"{environment.origin} is no Python module or source file")
    module = sys.modules[environment.module] = importlib.util.module_from_spec(specification)
    parent, _, name = environment.module.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], name, module)
    specification.loader.exec_module(module)


def find_service(record: FunctionRecord) -> Service:
    """The user code that the record means.

    Its app's functions get their ids, so that user code can call them.
    """
    app_id = record.id.rpartition("/")[0]
    apps = [app for app in App.all_apps() if (app.name or "") == record.app_name]
    for app in apps:
        app.bind(app_id)
    if record.serialized:
        return Service({"": Bound.of(pickle.loads(record.serialized))})
    for app in reversed(apps):
        if function := app.functions.get(record.name):
            if function.variables.image is not None:
                function.variables.image.check_imports()
            return Service({"": Bound(function.raw, function.is_async, function.is_generator)})
    raise NotFoundError(
        f"the module of {record.name} was imported, but has no function {record.name!r} on an app named "
        f"{record.app_name!r}: declare it at the top level of the module, whatever __name__ is"
    )
