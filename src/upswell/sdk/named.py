"""Functions and classes of deployed apps, known by name alone until they are used.

The first use asks the server what they are; from then on they are handles like those of a local declaration, and every
check is the same code. What runs is the server's version, so nothing here can run it.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from ..errors import ExecutionError
from ..spec import FunctionRecord, FunctionSpec, app_of, check_name, require
from ..wire import messages as m
from . import context
from .client import ask, new_request
from .clients import get_keeper
from .cls import KINDS, MISSING, Cls, Obj, link_of, parameter, restore
from .decorators import CLASS_MARK, Method
from .dual import run_sync
from .frames import their_frames
from .function import Function
from .options import Declaration
from .pool import Home, Pool
from .variables import Variables

P = ParamSpec("P")
R = TypeVar("R")


class Names(NamedTuple):
    """What is known: the app's name, that of the function or class, and the version, or 0 for whichever is served."""

    app: str
    name: str
    version: int

    @classmethod
    def checked(cls, app: str, kind: str, name: str, version: int | None) -> Names:
        """The names, if they can be such; else `InvalidError`."""
        whole = version is None or (type(version) is int and 1 <= version <= m.MAX_VERSION)
        require(whole, f"{kind} {name!r}: version must be a whole number from 1 to {m.MAX_VERSION:,}, not {version!r}")
        return cls(check_name("app", app), check_name(kind, name), version or 0)

    async def resolve(self, kind: str) -> FunctionRecord:
        """What the server has under these names; `NotFoundError` where that is nothing."""
        where = f"{self.name} of the app {self.app}"
        require(not context.importing, f"{where} can't be used while a container imports this: use it in a function")
        request = m.Resolve(new_request(), self.app, self.name, self.version)
        record = (await ask(get_keeper(), request, m.Resolved)).function
        assert record is not None
        instead = "upswell.Cls.from_name" if record.kind == "class" else "upswell.Function.from_name"
        require(record.kind == kind, f"{where} is a {record.kind}: use {instead}({self.app!r}, {self.name!r})")
        return record

    def stand_in(self, name: str) -> Callable[..., NoReturn]:
        """What takes the place of user code that is not here."""
        app = self.app

        def stand_in(*args: object, **kwargs: object) -> NoReturn:
            raise ExecutionError(
                f"{name} of the app {app} is known here by its name, so it can't run here: use .remote(...), or "
                "import it from its module"
            )

        stand_in.__name__, stand_in.__qualname__ = name.rpartition(".")[2], name
        stand_in.__doc__ = None
        return stand_in

    def pool(self, record: FunctionRecord, code: Callable[..., Any], parameters: Mapping[str, Any] | None) -> Pool:
        """The pool of what the server has."""
        pool = Pool(self.name, code, Declaration(record.spec), parameters=parameters, interface=record.interface)
        pool.serve(Home(app_of(record.id), self.app, is_kept=True), record)
        return pool


class NamedFunction(Function[P, R]):
    """A function of a deployed app."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._pool = self._origin = None
        stand_in = names.stand_in(names.name)
        self._describe(names.name, "", stand_in, stand_in)

    @property
    def pool(self) -> Pool:
        with their_frames:
            return self._pool or run_sync(self._resolved())

    @property
    def is_generator(self) -> bool:
        return self.pool.interface.is_generator

    async def _resolved(self) -> Pool:
        if self._pool is None:
            self._pool = self._names.pool(await self._names.resolve("function"), self.raw, None)
        return self._pool

    def __repr__(self) -> str:
        return f"Function.from_name({self._names.app!r}, {self._names.name!r})"

    def __reduce__(self) -> Any:
        return NamedFunction, (self._names,)


class NamedClass(Cls):
    """A class of a deployed app: call it for an object, as one calls the class itself where it is declared."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        """What a `Cls` has, once the server has told it."""
        if name not in ("raw", "pool", "declared", "parameters", "methods") or "pool" in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        run_sync(self._resolved())
        return vars(self)[name]

    async def _resolved(self) -> None:
        if "pool" not in vars(self):
            self._become(await self._names.resolve("class"))

    def _become(self, record: FunctionRecord) -> None:
        """Have a class with the parameters and methods of the record, whose objects reach the server's pools."""
        names, defaults = self._names, {}
        annotations: dict[str, type] = {}
        body: dict[str, Any] = {"__annotations__": annotations, "__reduce__": _reduce_object}
        for name, kind, *default in pickle.loads(record.interface.parameters):
            defaults[name] = default[0] if default else MISSING
            body[name], annotations[name] = parameter(default=defaults[name]), KINDS[kind]
        for name, yields in record.interface.methods:
            body[name] = Method(names.stand_in(f"{names.name}.{name}"), yields, None)
        raw = types.new_class(names.name, (Obj,), exec_body=lambda namespace: namespace.update(body))
        complete = defaults if record.interface.is_complete else None
        super().__init__(raw, names.pool(record, raw, complete), raw)
        setattr(raw, CLASS_MARK, self)

    def __repr__(self) -> str:
        return f"Cls.from_name({self._names.app!r}, {self._names.name!r})"

    def __reduce__(self) -> Any:
        return NamedClass, (self._names,)


def _reduce_object(self: object) -> Any:
    """An object travels as names, options and parameters."""
    known, pool = Cls.of(type(self)), link_of(self).pool
    declared = Cls.of(known.declared)
    assert isinstance(declared, NamedClass)
    return _restore_object, (declared._names, pool.spec, pool.own_variables, pool.parameters)


def _restore_object(
    names: Names, spec: FunctionSpec, variables: Variables | None, parameters: Mapping[str, Any]
) -> object:
    return restore(NamedClass(names).declared, spec, variables, parameters)
