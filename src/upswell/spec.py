"""What a user declares, as frozen values that are validated once, here.

Everything that carries a limit or a default has it in this file and nowhere else. Values travel over the wire as they
are. Nothing here acts.
"""

import re
import sys
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from .errors import InvalidError

CallKind = Literal["remote", "map", "spawn", "generator"]
SourceKind = Literal["script", "module", "text"]  # the path of a script, the name of a module, or the text of a script
Strategy = Literal["rolling", "recreate"]  # a new version replaces containers one by one, or all at once

MAX_NAME_CHARACTERS = 64
MAX_WHOLE = 1 << 31  # of whatever is counted here
MIN_SCALEDOWN_SECONDS, MAX_SCALEDOWN_SECONDS = 2, 3600
DEFAULT_SCALEDOWN_SECONDS = 60
DEFAULT_TIMEOUT_SECONDS = 300
MAX_TIMEOUT_SECONDS = 24 * 3600
MIN_PERIOD_SECONDS, MAX_PERIOD_YEARS = 0.01, 100
MAX_PERIOD_SECONDS = MAX_PERIOD_YEARS * 366 * 86_400.0
MAX_BATCH_SIZE, MAX_BATCH_WAIT_MS = 1000, 600_000
MAX_ATTEMPTS_LOST = 3  # an input whose container died that often fails alone
MAX_VARIABLES_BYTES = 64 << 10  # of names and values in the environment of a container
MAX_CODE_FILES, MAX_CODE_BYTES = 10_000, 256 << 20  # of the tree that an app is deployed with
OUTCOMES_KEPT_SECONDS = 7 * 24 * 3600  # of spawned calls, from their last outcome on
MAP_WINDOW = 1000  # inputs of one map between the input iterator and the consumer
GATHER_SECONDS = 0.050  # the outputs of a range may wait so long for company while it goes on
STREAM_CHUNKS, STREAM_BYTES = 1000, 16 << 20  # what a generator may be ahead of its consumer: the lesser of the two
EXIT_GRACE_SECONDS = 30.0  # a container that was told to exit has this long for its exit hooks
CANCEL_GRACE_SECONDS = 4.0  # ... and this long to end the inputs that it ran when it was told


def require(condition: bool, message: str) -> None:
    """Raise `InvalidError(message)` unless `condition` holds."""
    if not condition:
        raise InvalidError(message)


def check_name(kind: str, name: object) -> str:
    """The name, if it is of letters, digits, `-`, `_` and `.`, at most 64 characters; else `InvalidError`."""
    if not isinstance(name, str) or not re.fullmatch(rf"[A-Za-z0-9\-_.]{{1,{MAX_NAME_CHARACTERS}}}", name):
        raise InvalidError(
            f"{kind} name {name!r} is not valid: use 1 to {MAX_NAME_CHARACTERS} letters, digits, '-', '_' and '.'"
        )
    return name


def check_text(text: str) -> str:
    """A path or an argument, if it can be sent and kept; `InvalidError` where Python could not read its bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise InvalidError(
            f"{text!a} is no text in {encoding}: rename it, or have Python use UTF-8 (PYTHONUTF8=1)"
        ) from None
    return text


def _whole(name: str, value: object, least: int) -> None:
    if value is not None:
        require(type(value) is int, f"{name} must be a whole number, not {value!r}")
        require(value >= least, f"{name} must be at least {least}, not {value}")  # type: ignore[operator]
        require(value <= MAX_WHOLE, f"{name} must be at most {MAX_WHOLE:,}, not {value}")  # type: ignore[operator]


def _number(name: str, value: object, least: float, most: float, unit: str = "") -> None:
    fits = type(value) in (int, float) and least <= value <= most  # type: ignore[operator]
    require(fits, f"{name} must be between {least} and {most}{unit}, not {value!r}")


class AutoscalerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How far and how fast a pool scales. `None` stands for the default (min 0, no max, buffer 0, window 60 s)."""

    min_containers: int | None = None
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window: int | None = None

    def __post_init__(self) -> None:
        _whole("min_containers", self.min_containers, 0)
        _whole("max_containers", self.max_containers, 1)
        _whole("buffer_containers", self.buffer_containers, 0)
        _whole("scaledown_window", self.scaledown_window, 0)
        if self.scaledown_window is not None:
            require(
                MIN_SCALEDOWN_SECONDS <= self.scaledown_window <= MAX_SCALEDOWN_SECONDS,
                f"scaledown_window must be between {MIN_SCALEDOWN_SECONDS} and {MAX_SCALEDOWN_SECONDS} seconds, "
                f"not {self.scaledown_window}",
            )
        if self.min_containers is not None and self.max_containers is not None:
            require(
                self.min_containers <= self.max_containers,
                f"min_containers ({self.min_containers}) must not exceed max_containers ({self.max_containers})",
            )

    def merge(self, update: "SettingsUpdate") -> "AutoscalerSettings":
        """These settings with what `update` says over them; validated as a whole."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        fields.update({name: value for name in fields if (value := getattr(update, name)) is not msgspec.UNSET})
        return AutoscalerSettings(**fields)

    @property
    def in_force(self) -> "AutoscalerSettings":
        """The same, with the defaults written out."""
        return AutoscalerSettings(
            min_containers=self.floor,
            max_containers=self.ceiling,
            buffer_containers=self.buffer,
            scaledown_window=int(self.window_seconds),
        )

    @property
    def floor(self) -> int:
        return self.min_containers or 0

    @property
    def ceiling(self) -> int | None:
        return self.max_containers

    @property
    def buffer(self) -> int:
        return self.buffer_containers or 0

    @property
    def window_seconds(self) -> float:
        return float(self.scaledown_window if self.scaledown_window is not None else DEFAULT_SCALEDOWN_SECONDS)


class SettingsUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A change of settings: a number sets one, `None` goes back to its default, and what is left out stays."""

    min_containers: int | msgspec.UnsetType | None = msgspec.UNSET
    max_containers: int | msgspec.UnsetType | None = msgspec.UNSET
    buffer_containers: int | msgspec.UnsetType | None = msgspec.UNSET
    scaledown_window: int | msgspec.UnsetType | None = msgspec.UNSET

    def __post_init__(self) -> None:
        AutoscalerSettings().merge(self)  # each by itself must be possible

    @classmethod
    def of(cls, **settings: int | None) -> "SettingsUpdate":
        """The change where `None` leaves a setting as it is."""
        return cls(**{name: value for name, value in settings.items() if value is not None})

    def over(self, earlier: "SettingsUpdate | None") -> "SettingsUpdate":
        """Both changes as one: what this leaves out is as the earlier one has it."""
        if earlier is None:
            return self
        said = {name: getattr(self, name) for name in self.__struct_fields__}
        return replace(earlier, **{name: value for name, value in said.items() if value is not msgspec.UNSET})


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How often a failed input is tried again, and after how long.

    The n-th retry waits `initial_delay * backoff_coefficient ** (n - 1)` seconds, at most `max_delay`.
    """

    max_retries: int
    backoff_coefficient: float = 2.0
    initial_delay: float = 1.0
    max_delay: float = 60.0

    def __post_init__(self) -> None:
        _whole("Retries: max_retries", self.max_retries, 0)
        _number("Retries: max_delay", self.max_delay, 1, 60, " seconds")
        _number("Retries: initial_delay", self.initial_delay, 0, 60, " seconds")
        _number("Retries: backoff_coefficient", self.backoff_coefficient, 1.0, 10.0)

    @classmethod
    def parse(cls, value: object) -> "Retries | None":
        """What `retries=` may be: `None`, a count (1 s apart), or `Retries`; else `InvalidError`."""
        if value is None or isinstance(value, Retries):
            return value
        if type(value) is int:
            _whole("retries", value, 0)
            return cls(max_retries=value, backoff_coefficient=1.0, initial_delay=1.0)
        raise InvalidError(f"retries must be a whole number or upswell.Retries, not {value!r}")

    def delay_seconds(self, retry: int) -> float:
        """How long retry number `retry` (from 1) waits."""
        return min(self.max_delay, self.initial_delay * self.backoff_coefficient ** min(retry - 1, 300))  # no overflow


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """How many inputs a container takes at once, what the autoscaler aims at, and whether they form batches."""

    max_inputs: int = 1
    target_inputs: int = 1
    batch_size: int = 0  # 0: no batching
    batch_wait_ms: int = 0

    def __post_init__(self) -> None:
        _whole("max_inputs", self.max_inputs, 1)
        _whole("target_inputs", self.target_inputs, 1)
        require(
            self.target_inputs <= self.max_inputs,
            f"target_inputs ({self.target_inputs}) must not exceed max_inputs ({self.max_inputs})",
        )
        _number("max_batch_size", self.batch_size or 1, 1, MAX_BATCH_SIZE)
        _number("wait_ms", self.batch_wait_ms, 0, MAX_BATCH_WAIT_MS)

    @property
    def place(self) -> int:
        """Inputs that one place of a container holds: one, or as many as a batch."""
        return max(1, self.batch_size)

    @property
    def target(self) -> int:
        """Inputs that the autoscaler aims at for each container."""
        return self.target_inputs * self.place


class Gpu(msgspec.Struct, frozen=True):
    """So many GPUs for one container, of a kind such as "A10G", or of any kind where that is ""."""

    kind: str = ""
    count: int = 1

    def __str__(self) -> str:
        return f"{self.kind or 'any'}:{self.count}" if self.count > 1 else self.kind or "any"

    @classmethod
    def parse(cls, value: object) -> "tuple[Gpu, ...]":
        """What `gpu=` may be: `None`, "A10G", "A10G:2", "any", or a list of them, the preferred first.

        Raises `InvalidError` for what it may not be. `"H100!"` is "H100": nobody gets another kind than asked for.
        """
        if value is None or value == "":
            return ()
        if isinstance(value, (list, tuple)):
            return tuple(one for each in value for one in cls.parse(each))
        found = (
            re.fullmatch(r"([A-Za-z][A-Za-z0-9\-]*)!?(?::([1-9][0-9]{0,3}))?", value) if type(value) is str else None
        )
        if found is None:
            raise InvalidError(f"gpu must be a kind such as 'A10G', 'A10G:2' for two, 'any', or a list, not {value!r}")
        kind = found[1].upper()
        return (cls("" if kind == "ANY" else kind, int(found[2] or 1)),)


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a container holds of its node: `cpu` cores are reserved, `memory_mib` is reserved and enforced, and of
    `gpus`, which are alternatives with the preferred first, it has one for itself.
    """

    cpu: float = 0.0
    memory_mib: int = 0
    gpus: tuple[Gpu, ...] = ()

    def __post_init__(self) -> None:
        require(type(self.cpu) in (int, float), f"cpu must be a number of cores, not {self.cpu!r}")
        require(self.cpu >= 0, f"cpu must be a number of cores >= 0, not {self.cpu!r}")
        _whole("memory", self.memory_mib, 0)

    def __str__(self) -> str:
        """As it is declared, such as "cpu=2, memory=512, gpu=A10G:2"; "" where nothing is."""
        declared = [f"cpu={self.cpu:g}"] if self.cpu else []
        declared += [f"memory={self.memory_mib}"] if self.memory_mib else []
        declared += [f"gpu={' or '.join(map(str, self.gpus))}"] if self.gpus else []
        return ", ".join(declared)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Per function: inputs not yet in a container, all inputs, and those of spawned calls not yet in a container."""

    pending: int = 2_000
    total: int = 25_000
    spawned_pending: int = 1_000_000


class ObjectLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of the Dicts and Queues on one server; sizes are those of pickles."""

    kept_bytes: int = 1 << 30  # all keys and values together, also of puts that wait for room
    objects: int = 10_000
    entries: int = 1_000_000  # of a Dict
    keys_bytes: int = 64 << 20  # of all keys of a Dict
    value_bytes: int = 100 << 20  # of one value of a Dict
    partitions: int = 100_000  # of a Queue
    partition_items: int = 5_000
    partition_bytes: int = 64 << 20
    item_bytes: int = 1 << 20  # of one value in a Queue
    answer_bytes: int = 8 << 20  # of values that one answer brings, unless one alone is larger


class Cron(msgspec.Struct, frozen=True, tag="cron"):
    """A schedule of calendar moments: minute, hour, day of month, month and day of week, in a time zone.

    `timezone` is a name of the IANA database, such as "Europe/Berlin". Where clocks are set forward, a fixed time that
    is skipped fires right after the gap; where they are set back, it fires the first time only. `InvalidError` for what
    no clock will ever show.
    """

    cron_string: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        # Imported here: few programs have a schedule.
        from datetime import datetime
        from zoneinfo import ZoneInfo

        from cronsim import CronSim, CronSimError

        words = self.cron_string.split() if type(self.cron_string) is str else []
        said = f"Cron({self.cron_string!r})"
        require(len(words) == 5, f"{said} must have five fields: minute, hour, day of month, month, day of week")
        try:
            zone = ZoneInfo(self.timezone)
        except (ValueError, TypeError, LookupError, OSError):
            raise InvalidError(
                f"{said}: there is no time zone {self.timezone!r}; use a name like 'Europe/Berlin'"
            ) from None
        try:
            next(CronSim(self.cron_string, datetime(2024, 1, 1, tzinfo=zone)))
        except CronSimError as error:
            raise InvalidError(f"{said} is not valid: {str(error).lower()}") from None
        except StopIteration:
            raise InvalidError(f"{said} never comes: there is no such day") from None


class Period(msgspec.Struct, frozen=True, kw_only=True, tag="period"):
    """A schedule that fires again and again after so much time, counted from the deploy.

    Months and years are those of the calendar, in UTC, with the month's last day where it has no such day. Seconds may
    be fractions, from a hundredth on.
    """

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0
    minutes: int = 0
    seconds: float = 0

    def __post_init__(self) -> None:
        for name in ("years", "months", "weeks", "days", "hours", "minutes"):
            _whole(f"Period: {name}", getattr(self, name), 0)
        require(
            type(self.seconds) in (int, float) and 0 <= self.seconds <= MAX_PERIOD_SECONDS,
            f"Period: seconds must be a number >= 0, not {self.seconds!r}",
        )
        require(self.calendar_months <= MAX_PERIOD_YEARS * 12, f"a Period has at most {MAX_PERIOD_YEARS} years")
        require(self.fixed_seconds <= MAX_PERIOD_SECONDS, f"a Period has at most {MAX_PERIOD_YEARS} years")
        require(
            self.calendar_months > 0 or self.fixed_seconds >= MIN_PERIOD_SECONDS,
            f"a Period needs a length of at least {MIN_PERIOD_SECONDS} s, such as Period(hours=1)",
        )

    @property
    def calendar_months(self) -> int:
        """The part whose length depends on the calendar."""
        return 12 * self.years + self.months

    @property
    def fixed_seconds(self) -> float:
        """The part whose length does not."""
        return ((self.weeks * 7 + self.days) * 24 + self.hours) * 3600.0 + self.minutes * 60.0 + self.seconds


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A function's declaration, as the control plane needs it."""

    settings: AutoscalerSettings = AutoscalerSettings()
    concurrency: Concurrency = Concurrency()
    resources: Resources = Resources()
    retries: Retries | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    startup_timeout: float = DEFAULT_TIMEOUT_SECONDS
    single_use: bool = False
    schedule: Cron | Period | None = None

    def __post_init__(self) -> None:
        for name, value in (("timeout", self.timeout), ("startup_timeout", self.startup_timeout)):
            require(
                type(value) in (int, float) and 0 < value <= MAX_TIMEOUT_SECONDS,
                f"{name} must be a number of seconds from 1 to {MAX_TIMEOUT_SECONDS}, not {value!r}",
            )


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where the code of a function comes from, and the process it needs: equal environments share a zygote.

    `kind` says how `origin` is read.
    `module` is the name under which it is imported; `main` is true where the client runs it as `__main__`, so that
    pickles that name `__main__` resolve to it. An empty `origin` means that nothing is imported (serialized functions).

    With `code`, the digest of a tree of files, a script's `origin` and all of `sys_path` are paths within that tree,
    which whoever starts the process has; its own import path comes after. Without, they are this machine's.
    """

    kind: SourceKind
    origin: str
    module: str
    main: bool
    sys_path: tuple[str, ...]
    directory: str
    arguments: tuple[str, ...] = ()  # `sys.argv`, which user code may read while it is imported
    variables: tuple[tuple[str, str], ...] = ()
    code: str = ""

    def __repr__(self) -> str:
        # Values of variables may be secret.
        names = ", ".join(name for name, _ in self.variables)
        return f"Environment({self.kind} {self.module!r} in {self.directory!r}, variables: {names or 'none'})"


def code_digest(files: Sequence[tuple[str, str]]) -> str:
    """The digest of a tree of code: that of its paths and the SHA-256 of their contents, in the order of paths."""
    from hashlib import sha256  # by few programs, and late

    return sha256(msgspec.json.encode(files)).hexdigest()


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """How a function or class is called, for those who know it by name only."""

    is_generator: bool = False
    is_async: bool = False
    is_complete: bool = True  # of a class: whether it can have objects without parameters
    methods: tuple[tuple[str, bool], ...] = ()  # of a class: name, and whether it yields
    parameters: bytes = b""  # of a class: what they may be, as the SDK has written it


class FunctionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A function, or a class with its parameters, as it is sent to the server: identity, declaration, and code.

    `app_name` is what the code calls the app, which may be deployed under another name. `id` is "<app id>/<name>", so
    that code inside a container knows the ids of its app's other functions. "@" and a hash follow where options or
    parameters differ from the plain ones, so that equal ones share a pool.
    """

    id: str
    app_name: str
    name: str
    spec: FunctionSpec
    environment: Environment
    kind: Literal["function", "class"] = "function"
    parameters: bytes = b""  # pickle of a class's parameters by name
    serialized: bytes = b""  # cloudpickle of the raw function or class where it travels by value
    interface: Interface = Interface()
    version: int = 0  # of its app, the last one that has changed what its containers are; for the server to say
    described: str = ""  # the parameters in which it differs from the plain one, for people

    @property
    def standing_spec(self) -> FunctionSpec:
        """The declaration of the pool of this id: no container is kept for a class that has no object as it stands."""
        return self.spec if self.interface.is_complete else replace(self.spec, settings=AutoscalerSettings())

    def follows(self, earlier: "FunctionRecord | None", version: int) -> "FunctionRecord":
        """The same as part of that version of its app, where it was `earlier` in the version before.

        Its containers are others unless code, environment, parameters and options are as they were. What the server
        alone goes by (settings of the autoscaler, retries, schedule) makes no other container.
        """
        if earlier is not None and self._container == earlier._container:
            version = earlier.version
        return replace(self, version=version)

    @property
    def _container(self) -> "FunctionRecord":
        spec = replace(self.spec, settings=AutoscalerSettings(), retries=None, schedule=None)
        return replace(self, spec=spec, interface=Interface(), version=0, described="")

    @property
    def label(self) -> str:
        """What people are shown, such as "Model" or "Model@1f60c4"."""
        return label_of(self.id)


def app_of(function: str) -> str:
    """The id of the app that a function's id begins with."""
    return function.rpartition("/")[0]


def no_function(function: str) -> str:
    """Why nothing can be asked of the function of that id."""
    return f"there is no function {label_of(function)}: its app is stopped, never ran, or has it no more"


def no_call(call: str) -> str:
    """Why nothing can be asked of the call of that id."""
    return f"there is no call {call}: it never was, or has ended with its app"


def label_of(function: str, method: str = "") -> str:
    """The function of that id as people are shown it, with the method that a call of an object's runs."""
    name = function.rpartition("/")[2]
    return f"{name}.{method}" if method else name
