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

from msgspec.structs import replace

from ..errors import InvalidError, NotFoundError
from ..sdk import context
from ..sdk import environment as environments
from ..sdk.app import App
from ..sdk.cls import Cls, hooks_of, restore
from ..sdk.context import ImportEnds
from ..sdk.pool import Home, enter_app
from ..sdk.variables import Variables
from ..spec import Environment, FunctionRecord, app_of
from .service import Bound, Service


def load_environment(environment: Environment, code_root: str = "") -> BaseException | None:
    """Make this process what the environment asks for, with the user's code imported; what went wrong, if anything.

    `code_root` is the folder of trees of code, where the server keeps apps.
    """
    me, failed = os.getpid(), None
    context.importing = True
    context.server_keeps_apps = bool(code_root)
    try:
        # What is declared in here names the tree, as the record outside does.
        environments.enter_environment(environment)
        here = located(environment, code_root)
        enter_environment(here)
        import_user_code(here)
    except BaseException as error:
        failed = error
    context.importing = False
    if os.getpid() != me:
        os._exit(0)  # the module has forked, and this is the other one
    return failed


def located(environment: Environment, code_root: str) -> Environment:
    """The environment on this machine: its tree of code by its path here, and this process's own imports after it."""
    if not environment.code:
        return environment
    tree = os.path.join(code_root, environment.code)
    if not (code_root and os.path.isdir(tree)):
        raise NotFoundError(f"the code {environment.code[:12]} of the app is not on this machine: deploy the app again")

    def within(path: str) -> str:
        return os.path.normpath(os.path.join(tree, path))

    is_file = environment.kind == "script"
    return replace(
        environment,
        origin=within(environment.origin) if is_file else environment.origin,
        sys_path=(*map(within, environment.sys_path), *sys.path),
        directory=within(environment.directory),
    )


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

    Its app's functions and classes get their ids, so that user code can call them.
    """
    home = Home(app_of(record.id), record.app_name)
    enter_app(home)
    code = pickle.loads(record.serialized) if record.serialized else None  # which may import modules, with apps
    apps = [app for app in App.all_apps() if (app.name or "") == record.app_name]
    for app in apps:
        app.bind(home.app_id)
    if code is not None:
        return _object(record, code) if record.kind == "class" else Service({"": Bound.of(code)})
    for app in reversed(apps):
        if known := app.classes.get(record.name):
            known.pool.check_image()
            return _object(record, known.declared)
        if function := app.functions.get(record.name):
            function.pool.check_image()
            return Service({"": Bound(function.raw, function.is_async, function.is_generator)})
    raise NotFoundError(
        f"the module of {record.name} was imported, but has no {record.kind} {record.name!r} on an app named "
        f"{record.app_name!r}: declare it at the top level of the module, whatever __name__ is"
    )


def _object(record: FunctionRecord, declared: type) -> Service:
    """An object of the class, with the record's parameters, as a service of its methods."""
    known = Cls.of(declared)
    variables = Variables(env=record.environment.variables)
    parameters = pickle.loads(record.parameters) if record.parameters else {}
    instance = restore(declared, record.spec, variables, parameters, record.label)
    return Service(
        {name: Bound.of(method.raw.__get__(instance), method.is_generator) for name, method in known.methods.items()},
        [getattr(instance, name) for name in hooks_of(declared, "enter")],
        [getattr(instance, name) for name in hooks_of(declared, "exit")],
    )
