"""Plays a transcript: what happens stands at the margin, what the core answers stands below it behind `>`.

    0.000 f is declared max=2         a moment in seconds, and an event
    0.000 a = map f 3 open by ann     call `a` offers inputs 0:3 (also: remote, spawn); open: more come; it is Ann's
      > start A                       containers are called A, B, C …, ranges r1, r2 …, in the order they come
    0.010 A is ready
      > grant r1 to A: a 0:1          spans are half open, as in Python
    0.020 r1 gives 1                  outputs of its next input; also: fails, returns from 2, waits, goes on, yields 2
      > deliver a 0:1
      > at 2.020: drain A             what the core does by itself, woken at its deadlines, before what happens next
    9.000 time passes                 `at rest?` asks for the next deadline, `why f?` for the decision in words

Accept, ForgetSegment and Sample are left out unless the play says `show accept`, and so on; `#` speaks to the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from string import ascii_uppercase
from typing import Any

from upswell.core import commands as c
from upswell.core import events as e
from upswell.core.plane import Plane
from upswell.core.snapshot import SavedCall, SavedSegment
from upswell.spec import AutoscalerSettings, Concurrency, FunctionSpec, Limits, Resources, Retries, SettingsUpdate

SETTINGS = {
    "min": "min_containers",
    "max": "max_containers",
    "buffer": "buffer_containers",
    "window": "scaledown_window",
}


def play(script: str) -> str:
    """The script with what the core really answers."""
    return "\n".join(Player().lines(script)) + "\n"


class Player:
    """One core on the stage, and the names of the play."""

    def __init__(self) -> None:
        self.now = 0.0
        self.plane = Plane(cores=2.0, memory_available=1 << 40)
        self.shown: set[str] = set()
        self.functions: dict[str, e.FunctionDeclared] = {}
        self.calls: dict[str, e.InputsSubmitted] = {}  # its last accepted or refused segment
        self.accepted: dict[str, int] = {}  # inputs taken
        self.containers: dict[str, str] = {}  # the core's id → A, B …
        self.started: dict[str, tuple[str, int]] = {}  # A → its function, and of which version
        self.ranges: dict[int, str] = {}  # the core's id → r1, r2 …
        self.held: dict[str, list[Any]] = {}  # r1 → container, number, next position
        self.grants: dict[str, c.Grant] = {}  # r1 → as it was granted
        self.chunks: dict[str, int] = {}  # r1 → what its generator has yielded

    def lines(self, script: str) -> list[str]:
        """Every line of the script that is no answer, each followed by the core's answers."""
        found: list[str] = []
        for line in script.splitlines():
            text = line.partition("#")[0].rstrip()
            if text.lstrip().startswith(">"):
                continue
            moment, _, happening = text.partition(" ")
            is_event = moment[:1].isdigit()
            found += [f"  > {answer}" for answer in self._pass_time(float(moment))] if is_event else []
            found.append(line.rstrip())
            if is_event:
                found += [f"  > {answer}" for answer in self._happens(happening.strip())]
            elif text:
                self._prepare(text)
        return found

    def _happens(self, happening: str) -> list[str]:
        if happening.endswith("?"):
            return [self._question(happening)]
        if happening == "time passes":
            return []
        event = self._event(happening)  # which may bring another plane
        return self._told(self.plane.handle(event, self.now))

    def _prepare(self, text: str) -> None:
        word, *rest = text.split()
        if word == "show":
            self.shown.update(rest)
        else:
            limits = {name: int(value) for name, _, value in (part.partition("=") for part in rest)}
            self.plane = Plane(Limits(**limits), cores=2.0, memory_available=1 << 40)

    def _pass_time(self, until: float) -> list[str]:
        assert until >= self.now, "time never runs backwards"
        answers = []
        while (moment := self.plane.deadline()) is not None and moment <= until:
            self.now = moment
            answers += [f"at {moment:.3f}: {said}" for said in self._told(self.plane.wake(moment))]
        self.now = until
        return answers

    def _question(self, question: str) -> str:
        if question == "at rest?":
            moment = self.plane.deadline()
            return "yes" if moment is None else f"no, it looks again at {moment:.3f}"
        statistics = self.plane.statistics(question.removeprefix("why ").removesuffix("?"))
        assert statistics is not None, question
        return statistics.decision

    # -- events --------------------------------------------------------------------------------------

    def _event(self, text: str) -> e.Event:
        for pattern, make in EVENTS:
            if found := re.fullmatch(pattern, text):
                return make(self, *found.groups())
        raise ValueError(f"the player does not understand: {text}")

    def declared(self, function: str, words: str) -> e.Event:
        given = {name: value or "1" for name, _, value in (word.partition("=") for word in words.split())}
        ephemeral = not given.pop("deployed", "")
        version, strategy = int(given.pop("version", 0)), "recreate" if given.pop("recreate", "") else "rolling"
        settings = {SETTINGS[name]: int(given.pop(name)) for name in list(given) if name in SETTINGS}
        inputs, target = int(given.pop("inputs", 1)), given.pop("target", None)
        retries, delay = int(given.pop("retries", 0)), float(given.pop("delay", 1.0))
        spec = FunctionSpec(
            settings=AutoscalerSettings(**settings),
            concurrency=Concurrency(
                max_inputs=inputs,
                target_inputs=int(target or inputs),
                batch_size=int(given.pop("batch", 0)),
                batch_wait_ms=int(given.pop("wait", 0)),
            ),
            resources=Resources(cpu=float(given.pop("cpu", 0))),
            retries=Retries(max_retries=retries, initial_delay=delay) if retries else None,
            timeout=float(given.pop("timeout", 300)),
            startup_timeout=float(given.pop("startup_timeout", 300)),
            single_use=bool(given.pop("single_use", "")),
        )
        assert not given, f"unknown words: {given}"
        event = e.FunctionDeclared(function, spec, ephemeral, version, strategy)  # type: ignore[arg-type]
        self.functions[function] = event
        return event

    def settings(self, function: str, words: str) -> e.Event:
        given = {SETTINGS[name]: value for name, _, value in (word.partition("=") for word in words.split())}
        update = {name: None if value == "default" else int(value) for name, value in given.items()}
        return e.SettingsUpdated(function, SettingsUpdate(**update))

    def submits(self, call: str, kind: Any, function: str, count: str, is_open: str, owner: str) -> e.Event:
        event = e.InputsSubmitted(call, function, kind, 0, int(count or 1), not is_open, owner or "")
        self.calls[call], self.accepted[call] = event, 0
        return event

    def submits_more(self, call: str, count: str, is_open: str) -> e.Event:
        before = self.calls[call]
        return e.InputsSubmitted(
            call, before.function, before.kind, self.accepted[call], int(count), not is_open, before.owner
        )

    def gives(self, name: str, count: str, seconds: str, cpu: str) -> e.Event:
        container, number, position = self.held[name]
        self.held[name][2] += int(count)
        return e.ResultsReceived(container, number, position, int(count), float(seconds or 0.01), float(cpu or 0))

    def fails(self, name: str, kind: Any, fatal: str) -> e.Event:
        container, number, position = self.held[name]
        self.held[name][2] += 1
        return e.FailureReceived(container, number, position, 0.01, 0.0, kind or "user", bool(fatal))

    def yields(self, name: str, count: str) -> e.Event:
        container, number, _ = self.held[name]
        first = self.chunks.get(name, 0)
        self.chunks[name] = first + int(count)
        return e.ChunksReceived(container, number, first, int(count))

    def of_range(self, name: str, make: Callable[..., e.Event], *more: Any) -> e.Event:
        container, number, _ = self.held[name]
        return make(container, number, *more)

    def comes_back(self, letter: str, ranges: str) -> e.ContainerRejoined:
        held = []
        for name, start, stop in re.findall(r"(r\d+) (\d+):(\d+)", ranges or ""):
            grant = self.grants[name]
            self.held[name][2] = int(start)
            held.append(e.HeldRange(grant.range, grant.call, grant.first, int(start), int(stop)))
        function, version = self.started[letter]
        return e.ContainerRejoined(self.container(letter), function, version, tuple(held))

    def follows(self, calls: str, containers: str) -> e.Event:
        """Another server takes the place of the one that died."""
        self.plane = Plane(cores=2.0, memory_available=1 << 40, first_id=1000)
        saved = []
        for name, start, stop in re.findall(r"(\w+) (\d+):(\d+)", calls):
            call, count = self.calls[name], self.accepted[name]
            segment = SavedSegment(0, count, ((int(start), int(stop)),))
            total = count if call.last else None
            saved.append(SavedCall(name, call.function, call.kind, count, total, False, (segment,), owner=call.owner))
        back = [self.comes_back(*found) for found in re.findall(r"([A-Z])(?: with ([^,]+))?", containers or "")]
        return e.Recovered((*self.functions.values(), *(e.CallRestored(call) for call in saved), *back))

    def container(self, letter: str) -> str:
        return next(name for name, known in self.containers.items() if known == letter)

    # -- commands ------------------------------------------------------------------------------------

    def _told(self, commands: list[c.Command]) -> list[str]:
        said = [self._say(command) for command in commands]
        return [words for words in said if words]

    def _say(self, command: c.Command) -> str:
        name = self.containers.get(getattr(command, "container", ""), "")
        number = self.ranges.get(getattr(command, "range", -1), "")
        match command:
            case c.Accept(call, first, count):
                self.accepted[call] = first + count
                return f"accept {call} {first}:{first + count}" if "accept" in self.shown else ""
            case c.Refuse(call, first, count, reason):
                return f"refuse {call} {first}:{first + count}: {reason}"
            case c.Invite(call):
                return f"invite {call}"
            case c.Start(container, function):
                self.containers[container] = name = ascii_uppercase[len(self.containers)]
                self.started[name] = function, self.functions[function].version
                return f"start {name}" if len(self.functions) < 2 else f"start {name} for {function}"
            case c.Retire(reason=reason):
                return f"retire {name}: {reason}"
            case c.Drain(reason=reason):
                return f"drain {name}: {reason}"
            case c.Kill(reason=reason):
                return f"kill {name}: {reason}"
            case c.Grant(container, identity, call, start=start, stop=stop, batch=batch, left=left):
                self.ranges[identity] = number = f"r{len(self.ranges) + 1}"
                self.held[number] = [container, identity, start]
                self.grants[number] = command
                together = f", in a batch with {left} to come" if batch else ""
                return f"grant {number} to {name}: {call} {start}:{stop}{together}"
            case c.TakeBack():
                return f"take {number} back from {name}"
            case c.CancelRange():
                return f"cancel {number} in {name}"
            case c.Forward(call, first, count):
                return f"forward {call} {first}:{first + count}"
            case c.Deliver(call, start, count):
                return f"deliver {call} {start}:{start + count}"
            case c.Fail(call, start, count, kind, reason, attempts):
                return f"fail {call} {start}:{start + count}, {kind} after {attempts}: {reason}"
            case c.RememberAttempts(call, position, failures, losses):
                return (
                    f"remember {call} {position}: {failures} failed, {losses} lost" if "attempts" in self.shown else ""
                )
            case c.ForgetSegment(call, first):
                return f"forget {call} {first}:" if "forget" in self.shown else ""
            case c.FinishCall(call):
                return f"finish {call}"
            case c.Complain(function, reason):
                return f"complain of {function}: {reason}"
            case c.Sample(containers=containers):
                who = " ".join(self.containers[container] for container in containers)
                return f"sample {who}" if "sample" in self.shown else ""


OPEN = r"(?: (open))?"
EVENTS: list[tuple[str, Callable[..., e.Event]]] = [
    (r"(\w+) is declared ?(.*)", Player.declared),
    (r"(\w+) is removed", lambda _, function: e.FunctionRemoved(function)),
    (r"(\w+) is removed: (.+)", lambda _, function, why: e.FunctionRemoved(function, why)),
    (r"(\w+) is updated (.+)", Player.settings),
    (rf"(\w+) = (remote|map|spawn|generator) (\w+)(?: (\d+))?{OPEN}(?: by (\w+))?", Player.submits),
    (rf"(\w+) \+ (\d+){OPEN}", Player.submits_more),
    (r"(\w+) ends", lambda player, call: e.InputsEnded(call, player.accepted[call])),
    (r"(\w+) is cancelled", lambda _, call: e.CallCancelled(call)),
    (r"(\w+) is cancelled, but not what runs", lambda _, call: e.CallCancelled(call, running=False)),
    (r"(\w+) is cancelled, with its containers", lambda _, call: e.CallCancelled(call, terminate=True)),
    (r"input (\d+) of (\w+) is cancelled", lambda _, position, call: e.InputCancelled(call, int(position))),
    (
        r"input (\d+) of (\w+) is cancelled, with its container",
        lambda _, position, call: e.InputCancelled(call, int(position), terminate=True),
    ),
    (r"(\w+) leaves", lambda _, owner: e.OwnerLeft(owner)),
    (r"([A-Z]) is ready", lambda player, name: e.ContainerReady(player.container(name))),
    (r"([A-Z]) comes back(?: with (.+))?", Player.comes_back),
    (r"another server follows, which knows (.+?)(?:; back are (.+))?", Player.follows),
    (r"([A-Z]) can't start: (.+)", lambda player, name, why: e.StartFailed(player.container(name), why)),
    (r"([A-Z]) is stopped", lambda player, name: e.ContainerStopped(player.container(name))),
    (r"([A-Z]) exits: (.+)", lambda player, name, why: e.ContainerExited(player.container(name), why)),
    (
        r"([A-Z]) runs out of memory",
        lambda player, name: e.ContainerExited(player.container(name), "killed by signal 9", out_of_memory=True),
    ),
    (r"(r\d+) gives (\d+)(?: in ([\d.]+) s)?(?:, ([\d.]+) s of it computing)?", Player.gives),
    (r"(r\d+) fails(?: by (\w+))?(, and ends its container)?", Player.fails),
    (r"(r\d+) returns from (\d+)", lambda player, name, stop: player.of_range(name, e.RangeReturned, int(stop))),
    (r"(r\d+) yields (\d+)", Player.yields),
    (r"(r\d+) waits", lambda player, name: player.of_range(name, e.InputSuspended)),
    (r"(r\d+) goes on", lambda player, name: player.of_range(name, e.InputResumed)),
    (
        r"([A-Z]) computes ([\d.]+) s",
        lambda player, name, seconds: e.UsageSampled(
            "f", ((player.container(name), float(seconds)),), 20 << 20, 2.0, 1 << 40
        ),
    ),
]
