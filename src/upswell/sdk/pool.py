"""`Pool`: a queue and containers of its own, as this program declares them, and how they scale.

The plain pools of an app are declared as it opens. Those of objects and of changed options are declared on first use;
their id says what they are, so that equal ones are the same pool wherever they are declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from ..errors import InvalidError
from ..spec import AutoscalerSettings, FunctionRecord, FunctionSpec, Interface, SettingsUpdate
from .clients import get_client, get_keeper
from .dual import Dual
from .environment import environment_of, is_by_value, is_typed_in, serialize
from .options import Declaration, batching_of, concurrency_of
from .variables import Variables

if TYPE_CHECKING:
    from ..wire.messages import Statistics
    from .client import Client

HASH_BYTES = 6  # of what tells a derived pool from the plain one
DESCRIBED_CHARACTERS, VALUE_CHARACTERS = 60, 24  # of all its parameters for people, and of one


class FunctionStats(NamedTuple):
    """A pool's state at a glance; counts of inputs, and `num_total_runners` of containers starting and ready."""

    backlog: int
    num_total_runners: int
    num_running_inputs: int
    input_headroom: int


class Home(NamedTuple):
    """The running app that a pool belongs to. A kept one is not of this program: a server has it that keeps apps."""

    app_id: str
    app_name: str
    is_kept: bool = False

    @property
    def client(self) -> Client:
        """The connection to the server that the app runs on."""
        return get_keeper() if self.is_kept else get_client()


_entered: Home | None = None


def enter_app(home: Home) -> None:
    """Take note that this process is a container of that app: pools that come here by value are of it, too."""
    global _entered
    _entered = home


class Pool:
    """The pool of a function, or of the objects of a class that have the same parameters."""

    def __init__(
        self,
        name: str,
        code: Callable[..., Any],
        declaration: Declaration,
        *,
        serialized: bool = False,
        parameters: Mapping[str, Any] | None = None,
        plain: Pool | None = None,
        key: str | None = None,
        interface: Interface | None = None,
    ) -> None:
        self.name = name
        self.code = code
        self.spec = declaration.spec
        self.declaration = declaration
        self._serialized = serialized
        self.parameters = None if parameters is None else dict(parameters)  # of a class; None while there are missing
        self.interface = interface or Interface()  # of a plain pool
        self.home: Home | None = None  # of a plain pool, while its app runs
        self.served: FunctionRecord | None = None  # of a plain pool whose code was sent to the server, as it is there
        self.autoscaler = Autoscaler(self)
        self.get_current_stats = Dual(self._get_current_stats)
        self.update_autoscaler = Dual(self._update_autoscaler)
        self._plain = plain or self
        self._key = key
        self._derived: dict[Any, Pool] = {}  # of a plain pool, by content
        self._declared: tuple[Client, Home] | None = None  # where a derived pool is known

    @property
    def key(self) -> str:
        """What follows the app's id in the pool's own."""
        if self._key is None:
            self._key = self.name if self._plain is self else f"{self.name}@{self._digest()}"
        return self._key

    def derive(
        self,
        declaration: Declaration | None = None,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Pool:
        """The pool of the same code with these options and parameters; the very same where nothing differs."""
        plain = self._plain
        pool = Pool(
            self.name,
            self.code,
            declaration or self.declaration,
            serialized=self._serialized,
            parameters=self.parameters if parameters is None else parameters,
            plain=plain,
            key=key,
        )
        if key == plain.name or pool._content == plain._content:
            return plain
        return plain._derived.setdefault(pool._content, pool)

    @property
    def own_variables(self) -> Variables | None:
        """Its variables, where they are others than those of the plain pool, whose secrets need not travel."""
        own, plain = self.declaration.variables, self._plain.declaration.variables
        return None if own == plain else own._replace(secrets=own.secrets[len(plain.secrets) :])

    def restore(
        self,
        spec: FunctionSpec,
        variables: Variables | None,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Pool:
        """The pool of the same code that was described so elsewhere, by what `own_variables` has said."""
        plain = self._plain.declaration.variables
        if variables is not None:
            plain = variables._replace(secrets=(*plain.secrets, *variables.secrets))
        return self.derive(Declaration(spec, plain), parameters, key)

    def with_options(self, where: str, options: Mapping[str, Any]) -> Pool:
        """The pool with these options in place of what it has."""
        return self.derive(self.declaration.changed(where, options))

    def with_concurrency(self, where: str, max_inputs: int, target_inputs: int | None) -> Pool:
        """The pool whose containers take so many inputs at once."""
        return self.derive(self.declaration.with_concurrency(concurrency_of(where, max_inputs, target_inputs)))

    def with_batching(self, where: str, max_batch_size: int, wait_ms: int) -> Pool:
        """The pool whose containers take batches."""
        batching = batching_of(where, self.spec.concurrency, max_batch_size, wait_ms)
        return self.derive(self.declaration.with_concurrency(batching))

    @property
    def is_complete(self) -> bool:
        """Whether it can have containers: no parameter is missing."""
        return self.parameters is not None or not isinstance(self.code, type)

    @property
    def serialized(self) -> bool:
        """Whether its code travels by value. A program may lose its file, as `python -i` does when it has run it."""
        return self._serialized or is_typed_in(self.code)

    def takes_by_value(self) -> bool:
        """Whether its containers can't import this program, so that what it defines itself travels to them by value."""
        return self._serialized or is_by_value()

    @property
    def is_running(self) -> bool:
        """Whether its app runs, so that it takes inputs."""
        return self._plain.home is not None

    @property
    def is_kept(self) -> bool:
        """Whether its app runs on a server that keeps apps."""
        return self._plain.home is not None and self._plain.home.is_kept

    def connect(self) -> tuple[Client, str]:
        """The client and this pool's id, known to the server by then; `InvalidError` while the app does not run."""
        home = self._plain.home
        if home is None:
            raise InvalidError(
                f"the app of {self.name} is not running: use `with app.run():` around the call, or `upswell run FILE` "
                "(what is declared while its app runs already is there from the next run on)"
            )
        client = home.client
        if self is not self._plain and self._declared != (client, home):
            from ..wire.messages import Declare

            client.declare(Declare(home.app_id, self.record(home)))
            self._declared = (client, home)
        return client, f"{home.app_id}/{self.key}"

    def serve(self, home: Home | None, record: FunctionRecord | None) -> None:
        """The plain pool runs in this app. With a record, its code is where the server is, and not taken from here."""
        self.home, self.served = home, record

    def check_image(self) -> None:
        """In a container: raise what is wrong with the image it was to be made from."""
        if self.declaration.variables.image is not None:
            self.declaration.variables.image.check_imports()

    def record(self, home: Home) -> FunctionRecord:
        """The pool as it is sent to the server."""
        import pickle  # here and below, so that a program that declares an app does not wait for it

        parameters = pickle.dumps(self.parameters, 5) if self.parameters else b""
        if home == self._plain.home and (served := self._plain.served) is not None:
            variables = tuple(sorted(self.declaration.variables.resolve().items()))
            environment = replace(served.environment, variables=variables)
            key = f"{home.app_id}/{self.key}"
            return replace(
                served,
                id=key,
                spec=self.spec,
                environment=environment,
                parameters=parameters,
                described=self._described,
            )
        return FunctionRecord(
            id=f"{home.app_id}/{self.key}",
            app_name=home.app_name,
            name=self.name,
            spec=self.spec,
            environment=environment_of(self.code, self.declaration.variables.resolve(), self.serialized),
            kind="class" if isinstance(self.code, type) else "function",
            parameters=parameters,
            serialized=serialize(self.code) if self.serialized else b"",
            interface=self.interface,
            described=self._described,
        )

    @property
    def _described(self) -> str:
        """The parameters in which it differs from the plain pool, shortened."""
        plain, own = self._plain.parameters or {}, self.parameters or {}
        told = [(name, repr(value)) for name, value in own.items() if (name, value) not in plain.items()]
        return _shortened(", ".join(f"{name}={_shortened(value, VALUE_CHARACTERS)}" for name, value in told))

    @property
    def _content(self) -> tuple[Any, ...]:
        """What tells the pools of the same code apart."""
        parameters = None if self.parameters is None else tuple(sorted(self.parameters.items()))
        return replace(self.spec, schedule=None), self.declaration.variables, parameters

    def _digest(self) -> str:
        """Tells apart what differs from the plain pool in options or parameters, in this and in every process."""
        import pickle
        from hashlib import blake2s

        spec, variables, parameters = self._content
        added = None if variables == self._plain.declaration.variables else sorted(variables.resolve().items())
        # One by one: what a pickle of several values looks like depends on whether they share objects.
        values = None if parameters is None else [(name, pickle.dumps(value, 5)) for name, value in parameters]
        said = msgspec.msgpack.encode((spec, added)) + repr(values).encode()
        return blake2s(said, digest_size=HASH_BYTES).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """What travels by value carries its pool along, which is of the app of the container that it comes to."""
        plain = None if self._plain is self else self._plain
        return {
            "name": self.name,
            "code": self.code,
            # Variables that the server has with the plain pool stay here.
            "declaration": Declaration(self.spec, self.own_variables or Variables()),
            "parameters": self.parameters,
            "plain": plain,
            "key": self.key,
            "interface": self.interface,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(serialized=True, **state)  # type: ignore[misc]
        self.home = _entered

    # -- scaling -----------------------------------------------------------------------------------

    async def _get_current_stats(self) -> FunctionStats:
        """The backlog, containers, running inputs and free places, now."""
        now = await self._inquire(None)
        return FunctionStats(now.backlog, now.containers, now.running, now.headroom)

    async def _update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
    ) -> AutoscalerSettings:
        """Change how the running pool scales; `None` leaves a setting as it is. Returns the settings in force."""
        given = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        return await self.change(f"{self.name}.update_autoscaler", changed)

    # Python names it so where an argument is unknown.
    _update_autoscaler.__qualname__ = "update_autoscaler"

    async def change(self, where: str, given: Mapping[str, int | None]) -> AutoscalerSettings:
        """Change these settings, `None` back to its default; returns those in force. Raises `InvalidError`."""
        try:
            return (await self._inquire(SettingsUpdate(**given))).settings.in_force
        except InvalidError as error:
            raise InvalidError(f"{where}: {error}") from None

    async def _inquire(self, update: SettingsUpdate | None) -> Statistics:
        from ..wire.messages import Inquire, Statistics
        from .client import ask, new_request

        client, function_id = self.connect()
        return await ask(client, Inquire(new_request(), function_id, update), Statistics)


class _Keep:
    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = _Keep()  # stands for a setting that is left out


class Autoscaler:
    """The settings by which a running pool scales, and their change."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.settings = Dual(self._settings)
        self.update = Dual(self._update)

    async def _settings(self) -> AutoscalerSettings:
        """The settings in force, defaults written out."""
        return (await self._pool._inquire(None)).settings.in_force

    async def _update(
        self,
        *,
        min_containers: int | _Keep | None = KEEP,
        max_containers: int | _Keep | None = KEEP,
        buffer_containers: int | _Keep | None = KEEP,
        scaledown_window: int | _Keep | None = KEEP,
    ) -> AutoscalerSettings:
        """Change what is given, `None` back to its default; what is left out stays. Returns the settings in force.

        Raises `InvalidError` where the settings contradict one another.
        """
        given = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        changed = {name: value for name, value in given.items() if not isinstance(value, _Keep)}
        return await self._pool.change(f"{self._pool.name}.autoscaler.update", changed)

    _update.__qualname__ = "autoscaler.update"


def _shortened(text: str, most: int = DESCRIBED_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
