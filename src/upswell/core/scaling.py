"""How many containers one function has: who starts, who is drained, and how a new version replaces an earlier one.

The number is the autoscaler's. A roll-out goes container by container: one more than needed is started, and when enough
are ready an outdated one goes. Where there is no room for one more, one goes as the next starts. What can't start stops
the roll-out, and the outdated serve on.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ..spec import FunctionSpec, SettingsUpdate
from . import autoscaler
from .agenda import NEVER
from .autoscaler import Decision, Estimates, Load, Policy, Rollout
from .commands import Command, Complain
from .containers import Containers
from .events import FunctionDeclared
from .model import Container, State
from .placement import Node
from .queue import Queue
from .sampling import Sampling
from .starts import Starts

SHORT_SECONDS = 5.0  # for so long there must be no room before anybody is told: others may end


class Scaling:
    """Decides over the containers of one function."""

    def __init__(
        self,
        function: str,
        queue: Queue,
        containers: Containers,
        estimates: Estimates,
        sampling: Sampling,
        node: Node,
        policy: Policy,
        new_id: Callable[[], int],
    ) -> None:
        self.spec = FunctionSpec()  # as declared last, like the next two
        self.settings = self.spec.settings
        self.version = 0
        self.decision = Decision(0, "idle", "no input yet")
        self.reconsider_at = NEVER  # when to decide anew, though nothing happens
        self.starts = Starts()  # of this version
        self._function = function
        self._queue = queue
        self._containers = containers
        self._estimates = estimates
        self._sampling = sampling
        self._node = node
        self._policy = policy
        self._new_id = new_id
        self._has_spare = False  # one more than needed has been started, to be exchanged for an outdated one
        self._short_since = NEVER  # when room began to lack; NEVER: it does not; -NEVER: that it does was said

    def declare(self, event: FunctionDeclared, now: float, out: list[Command]) -> None:
        """Go by another declaration; containers of another version are outdated."""
        self.spec, self.settings = event.spec, event.spec.settings
        if event.version != self.version:
            self._outdate(event.version, out)
        while event.strategy == "recreate" and self._containers.outdated:  # also those of a roll-out under way
            self._let_one_go(now, out)

    def _outdate(self, version: int, out: list[Command]) -> None:
        """From now on this is the version to serve. Who is starting serves nobody yet."""
        self.version = version
        self.starts, self._has_spare = Starts(), False
        self._containers.outdate(version)
        for container in list(self._containers.by_id.values()):
            if container.state is State.STARTING:
                self._containers.kill(container, "cancelled", self._replaced(container), out)

    def apply(self, update: SettingsUpdate) -> None:
        """Lay these settings over the present ones."""
        self.settings = self.settings.merge(update)

    def failed(self, container: Container, reason: str, now: float) -> bool:
        """A start failed, so the next has to wait; false where it was of an earlier version, which does not count."""
        if container.version != self.version:
            return False
        self.starts.failed(container.started_at, reason, now)
        self._has_spare = False
        return True

    def is_above_maximum(self) -> bool:
        """Whether there are more than may be, since max_containers was lowered."""
        most = self.settings.max_containers
        return most is not None and self._containers.present > most

    def shed(self, now: float, out: list[Command]) -> None:
        """Where max_containers was lowered, drain who is idle before it gets work again."""
        containers = self._containers
        while containers.idle and self.is_above_maximum():
            containers.drain(containers.longest_idle(), f"max_containers is {self.settings.ceiling}", now, out)

    def scale(self, now: float, out: list[Command]) -> float:
        """Start what is missing; drain what is surplus and has idled long enough. Returns when to look again."""
        containers = self._containers
        self._decide(now)
        works = not self.starts.failures or containers.ready > len(containers.outdated)
        if containers.outdated and works and self._replace(now, out):
            self._decide(now)
        missing = self.decision.containers - containers.present
        if missing > 0:
            if self.starts.failures:
                self._note_trouble()
                if now < self.starts.blocked_until:
                    return self.starts.blocked_until
                missing = int(not containers.starting)
            for _ in range(min(missing, autoscaler.STARTS_AT_ONCE - containers.starting)):
                self._start(now, out)
            self._has_spare = containers.present > max(1, self._needed)
            return NEVER
        while containers.idle and (missing < 0 or not self._needed):
            longest_idle = containers.longest_idle()
            last = containers.ready == 1 or missing >= 0
            patience = autoscaler.patience_seconds(self._estimates, self.settings, last, self._policy)
            if longest_idle.idle_since + patience > now:
                return longest_idle.idle_since + patience
            containers.drain(longest_idle, f"idle for {patience:g} s: {self.decision.words}", now, out)
            missing += 1
        return NEVER

    def _note_trouble(self) -> None:
        """Where the decision does not say it itself, add why there are fewer than it wants."""
        if not self._containers.outdated:
            pause = autoscaler.backoff_seconds(self.starts.failures)
            failed = f"the last start failed ({self.starts.trouble}), and the next one comes after {pause:g} s"
            self.decision = replace(self.decision, words=f"{self.decision.words}; {failed}")

    @property
    def is_short_of_room(self) -> bool:
        """Whether there would be more containers if there were the memory, or room for what they reserve."""
        return self.decision.rule in ("memory", "resources")

    def complain(self, now: float, out: list[Command]) -> float:
        """Say it where there has long been no room for the least that there must be. Returns when to look again."""
        if not self.is_short_of_room:
            self._short_since = NEVER
            return NEVER
        least = max(self.settings.floor, int(self._queue.waiting > 0))
        if self.decision.containers >= least:
            self._short_since = NEVER
        elif self._short_since == NEVER:
            self._short_since = now
        due = self._short_since + SHORT_SECONDS
        if now < due:
            return due
        if self._short_since > -NEVER:
            self._short_since = -NEVER
            asked, left = self.spec.resources, self._node.left(self.spec.resources)
            lack = f"each asks for {asked}, and free are {left}" if left else self.decision.words
            room = f"there is room for {self.decision.containers} of its containers, and there should be {least}"
            out.append(Complain(self._function, f"{room}: {lack}"))
        return NEVER

    @property
    def _needed(self) -> int:
        """Containers that the load and the settings deserve."""
        return self.decision.containers - self.decision.spare

    def _start(self, now: float, out: list[Command]) -> None:
        spec = self._node.given(self.spec)
        self._containers.start(f"co-{self._new_id()}", self._function, spec, self.version, now, out)
        self._sampling.starts += 1
        self._node.reserve(spec.resources)

    # -- a new version replaces an earlier one -----------------------------------------------------------

    def _replace(self, now: float, out: list[Command]) -> bool:
        """Let outdated containers go: all that are not needed, or one where its successor has no room beside it.

        Returns whether any went.
        """
        containers = self._containers
        outdated, kept = len(containers.outdated), max(1, self._needed)
        while containers.outdated and containers.ready > kept:
            self._let_one_go(now, out)
            self._has_spare = False
        if len(containers.outdated) < outdated:
            return True
        if self.starts.failures:
            return False  # no room is made for one that may fail again
        if containers.starting or self.decision.containers > kept or containers.present < kept:
            return False  # one is on its way: when it is ready, one of these is not needed
        if self.decision.rule == "max_containers" and self._node.room(self.spec.resources) != 0:
            self._let_one_go(now, out)
            self._start(now, out)
            return True
        # The machine is full: the next one starts when this one has exited, if that makes room for it.
        freed = next(iter(containers.outdated.values())).spec.resources
        if containers.leaving or self._node.room(self.spec.resources, without=freed) == 0:
            return False
        self._let_one_go(now, out)
        return True

    def _let_one_go(self, now: float, out: list[Command]) -> None:
        """Of the outdated, the one that is missed least: the longest idle, or else the least busy."""
        containers = self._containers
        idle = (container for container in containers.idle.values() if container.id in containers.outdated)
        container = next(idle, None) or min(containers.outdated.values(), key=lambda busy: busy.inputs)
        if container.ranges:
            containers.retire(container, self._replaced(container), out)
        else:
            containers.drain(container, self._replaced(container), now, out)

    def _replaced(self, container: Container) -> str:
        return f"version {self.version} replaces version {container.version}"

    # -- what the autoscaler has to know -------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        containers = self._containers
        is_busy = self._queue.waiting or containers.unstarted or containers.running or containers.outdated
        if not is_busy and self.settings.floor <= containers.present:
            self.decision = autoscaler.at_rest(self.settings)  # no limit is below what is there
            self.reconsider_at = NEVER
            return
        load = self._load(now)
        self.decision = autoscaler.decide(load, self._estimates, self.settings, self._policy)
        self.reconsider_at = now + autoscaler.reconsider_seconds(load, self.decision, self._estimates)

    def _load(self, now: float) -> Load:
        containers = self._containers
        rollout = self._rollout() if containers.outdated else None
        starting, ready, running = containers.starting, containers.ready, containers.running
        room = self._node.room(self.spec.resources)
        if rollout:
            # What still runs in those that retire will be followed by more, while they are replaced.
            running += containers.retiring
            if starting:
                starting -= rollout.spare
            else:
                ready -= rollout.spare
        return Load(
            waiting=self._queue.waiting + containers.unstarted,
            running=running,
            ready=ready,
            starting=starting,
            running_seconds=now - containers.progress_at if running else 0.0,
            starting_seconds=now - containers.ready_at if containers.starting else 0.0,
            calls_per_second=self._estimates.calls_per_second(now),
            target_inputs=self.spec.concurrency.target,
            cores=self._node.cores,
            memory_available=self._node.memory_available - self._sampling.starts * self._estimates.memory_bytes,
            node_room=None if room is None else containers.present + room,
            rollout=rollout,
        )

    def _rollout(self) -> Rollout:
        outdated, starts = len(self._containers.outdated), self.starts
        return Rollout(self.version, outdated, starts.trouble, starts.are_hopeless(), int(self._has_spare))
