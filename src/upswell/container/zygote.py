"""Zygotes: processes that have done the imports, and fork containers in about a millisecond.

The root zygote (`root.py`) forks one zygote per environment, which imports the user's code once and forks a container
for every `Launch`. A zygote owns its containers: it reads what they write, reaps them, and ends what they leave behind.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import sys
import threading
from functools import partial
from time import monotonic
from typing import NoReturn

from .. import sdk
from ..errors import InvalidError
from ..sdk.app import App
from ..spec import FunctionRecord
from . import control
from .birth import Child, Mother, bear, open_streams
from .groups import Group
from .lineage import Guardian, adopt_orphans, kill_group
from .loader import load_environment
from .runtime import body_of
from .title import entitle

READ_BYTES = 64 << 10
PACKETS_AT_ONCE = 16  # of the engine's; what containers write waits for so long
UNFINISHED_LINE_SECONDS = 0.1
SPARE_SECONDS = 2.0  # a pool that has not grown for so long needs no spare
QUIET_SECONDS = 0.005  # without anything to do; then a spare keeps nobody waiting
NEVER = float("-inf")


class Zygote:
    """One environment: imports its code, forks and owns its containers."""

    def __init__(self, control_socket: socket.socket, seed: control.Seed) -> None:
        self._control = control_socket
        self._seed = seed
        self._root = os.getppid()
        self._children: dict[int, Child] = {}  # by process
        self._named: dict[str, Child] = {}  # the same, by container
        self._spare: Child | None = None  # a container that was not asked for yet
        self._grew_at = NEVER  # when a container was asked for last; that there may be some counts as one
        self._is_complete = False  # whether everything is imported that is not needed at once
        self._leaving: list[Group] = []  # of containers that have ended; something they started is still in them
        self._selector = selectors.DefaultSelector()

    def run(self) -> NoReturn:
        """Import, then serve the engine until it is gone."""
        entitle(f"upswell: {self._seed.label}, zygote")
        # Output of the user's module as it is imported would appear twice: the client has imported it too.
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.close(nothing)
        open_streams()
        adopt_orphans()
        failed = None if self._seed.fresh else self._prepare()
        self._send(control.Awake())
        guardian = Guardian()  # after the import: what that has started stays
        self._mother = Mother(self._seed, guardian, failed)
        self._selector.register(guardian.wake, selectors.EVENT_READ, self._reap)
        self._selector.register(self._control, selectors.EVENT_READ, self._obey)
        self._grew_at = monotonic()
        while True:
            ready = self._selector.select(self._patience())
            if self._spare is not None and not self._grows:
                self._discard_spare()
            if not ready and self._wants_spare:
                self._make_spare()
            elif not ready:
                self._let_go_of_lines()
            self._attend_to(ready)

    def _attend_to(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Do what there is to do. An earlier one of them may have closed what a later one is about, and the number may
        be that of another by now.
        """
        known = self._selector.get_map()
        for key, _ in ready:
            if known.get(key.fd) is key:
                key.data()

    def _patience(self) -> float | None:
        """How long to wait for something to do, in seconds."""
        if self._wants_spare:
            return QUIET_SECONDS
        if any(one.is_unfinished for child in self._children.values() for one in child.lines.values()):
            return UNFINISHED_LINE_SECONDS
        return max(0.0, self._grew_at + SPARE_SECONDS - monotonic()) if self._spare is not None else None

    def _prepare(self) -> BaseException | None:
        """Import the user's code; what went wrong. It may start no threads: a fork holds what they hold for ever."""
        failed = load_environment(self._seed.environment, self._seed.code_root)
        if any(app.is_async for app in App.all_apps()):
            import asyncio  # noqa: F401 - so that no container has to
        if threading.active_count() > 1:
            names = ", ".join(thread.name for thread in threading.enumerate()[1:])
            failed = InvalidError(
                f"importing {self._seed.environment.origin} started threads ({names}), and a process with threads "
                "can't be forked safely: start them on first use, inside a function, or set UPSWELL_ENGINE=spawn"
            )
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()
        gc.freeze()
        return failed

    def _obey(self) -> None:
        """Do what the engine has said. Containers that it asks for in a row are born together, and then seen to."""
        born: list[Child] = []
        launches: list[control.Launch] = []
        for _ in range(PACKETS_AT_ONCE):
            try:
                packet = self._control.recv(control.MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not packet:
                os._exit(0)  # the engine is gone: the containers die with this process, the root ends the rest
            command = control.decode(packet)
            if isinstance(command, control.Launch):
                launches.append(command)
            else:
                born += self._launch(launches)
                launches.clear()
                self._do(command)
        born += self._launch(launches)
        for child in born:
            self._attend(child)
        if born:  # in one packet: the engine wakes up for each
            self._send(control.Launched({child.launch.container: child.process for child in born}))

    def _do(self, command: control.Packet) -> None:
        match command:
            case control.Expect(function=function):
                self._expect(function)
            case control.End(container=container):
                if child := self._named.get(container):
                    kill_group(child.process)
            case control.Inventory():
                self._send_inventory()
            case control.Leave():
                os._exit(0)

    def _send_inventory(self) -> None:
        present = [control.Present(child.launch, child.process) for child in self._children.values()]
        for start in range(0, len(present), control.PRESENT_AT_ONCE):
            self._send(control.Inhabitants(present[start : start + control.PRESENT_AT_ONCE]))
        self._send(control.Inhabitants([], is_all=True))

    # -- the birth of containers -------------------------------------------------------------------

    def _expect(self, function: FunctionRecord | None) -> None:
        """What is launched from here on is of this function: what all its containers need is made once, here."""
        self._mother.body = None
        if function is not None and self._mother.failed is None and not self._seed.fresh:
            self._mother.body = body_of(function, self._seed)

    def _launch(self, launches: list[control.Launch]) -> list[Child]:
        """The containers, but for those that could not be started."""
        if not launches:
            return []
        wanted = [(launch, self._group_of(launch)) for launch in launches]
        children: list[Child] = []
        child, self._spare, self._grew_at = self._spare, None, monotonic()
        if child is not None:
            if child.name(*wanted[0], self._mother.body):
                children.append(child)
                del wanted[0]
            else:
                child.discard()
        # In a group it may do nothing before it was written into that.
        born = bear(self._mother, [None if group else control.Name(launch) for launch, group in wanted])
        for (launch, group), one in zip(wanted, born, strict=True):
            if isinstance(one, OSError):
                if group:
                    group.remove()
                self._send(control.Ended(launch.container, 1, f"it could not be started: {one}"))
                continue
            one.launch = launch
            if group:
                one.name(launch, group, self._mother.body)
            children.append(one)
        for child in children:
            self._children[child.process] = self._named[child.launch.container] = child
        return children

    def _group_of(self, launch: control.Launch) -> Group | None:
        return Group.make(self._root, launch.container, launch.memory_bytes) if launch.memory_bytes else None

    def _attend(self, child: Child) -> None:
        """From now on hear what it writes."""
        for descriptor in child.pipes:
            self._selector.register(descriptor, selectors.EVENT_READ, partial(self._read, child, descriptor))
        if child.group and child.group.alarm >= 0:
            self._selector.register(child.group.alarm, selectors.EVENT_READ, partial(self._end_overrun, child))

    @property
    def _grows(self) -> bool:
        """Whether another container may be wanted soon, and could be had by a fork."""
        return self._mother.failed is None and not self._seed.fresh and monotonic() < self._grew_at + SPARE_SECONDS

    @property
    def _wants_spare(self) -> bool:
        return self._spare is None and self._grows

    def _make_spare(self) -> None:
        self._complete_imports()
        (born,) = bear(self._mother, [None], spare=True)
        if isinstance(born, OSError):
            self._grew_at = NEVER  # who asks for a container will be told
        else:
            self._spare = born

    def _complete_imports(self) -> None:
        """Import what a container needs to call other functions, so that none but the first has to."""
        if not self._is_complete:
            sdk.complete()
            gc.freeze()
            self._is_complete = True

    def _discard_spare(self) -> None:
        assert self._spare is not None
        self._spare.discard()
        self._spare = None

    # -- what containers write, and their end ------------------------------------------------------

    def _read(self, child: Child, descriptor: int) -> bool:
        """Forward what can be read now; whether there may be more."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close(child, descriptor)
            return False
        stream = child.pipes[descriptor]
        for text in child.lines[stream].feed(data):
            self._send(control.Wrote(child.launch.container, stream, text))
        return True

    def _close(self, child: Child, descriptor: int) -> None:
        stream = child.pipes.pop(descriptor)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        for text in child.lines[stream].end():
            self._send(control.Wrote(child.launch.container, stream, text))

    def _let_go_of_lines(self) -> None:
        for child in self._children.values():
            for stream, lines in child.lines.items():
                for text in lines.let_go():
                    self._send(control.Wrote(child.launch.container, stream, text))

    def _end_overrun(self, child: Child) -> None:
        """The kernel is about to kill a process of the container for want of memory: the container ends whole."""
        assert child.group is not None
        child.group.rang = True
        self._selector.unregister(child.group.alarm)
        kill_group(child.process)

    def _reap(self) -> None:
        for process, status in self._mother.guardian.reap():
            child = self._children.pop(process, None)
            if child is None:
                if self._spare is not None and self._spare.process == process:
                    self._discard_spare()
                    self._grew_at = NEVER  # the next one might not live either
                continue  # or what the user's module had started as it was imported
            self._named.pop(child.launch.container, None)
            for descriptor in list(child.pipes):
                while self._read(child, descriptor):
                    pass
                if descriptor in child.pipes:
                    self._close(child, descriptor)
            reason = self._leave_group(child.group) if child.group else ""
            self._send(control.Ended(child.launch.container, os.waitstatus_to_exitcode(status), reason, bool(reason)))
        self._leaving = [group for group in self._leaving if not group.remove()]

    def _leave_group(self, group: Group) -> str:
        if group.alarm in self._selector.get_map():
            self._selector.unregister(group.alarm)
        self._leaving.append(group)
        return group.overrun()

    def _send(self, packet: control.Packet) -> None:
        try:
            self._control.send(control.encode(packet))
        except OSError:
            os._exit(0)
