"""Dicts and Queues that programs share: what they hold, whose turn it is, what fits, and when it ends.

`handle(event, now)` and `wake(now)` return what to tell whom, and `deadline()` is the moment of the next `wake`, under
the same rules as in `plane.py`: no clock, no I/O, no randomness. Bytes of values never come here.
"""

from __future__ import annotations

import msgspec

from .. import operations as o
from ..spec import ObjectLimits
from .agenda import NEVER, Agenda
from .requests import Answer, Asked, ClientLeft, Command, Event, Forget, Value, Withdrawn, forget
from .shared_queue import Partition, SharedQueue, Waiting, fitting


class SharedDict(msgspec.Struct, eq=False):
    """Values by key, in the order in which the keys were first set."""

    id: str
    name: str  # "" for an ephemeral one
    owner: str  # the client it ends with; "" for a named one
    entries: dict[bytes, Value] = {}
    keys_size: int = 0  # bytes of all keys

    @property
    def kind(self) -> o.ObjectKind:
        return "Dict"


Shared = SharedDict | SharedQueue


class Objects:
    """All Dicts and Queues of a server."""

    def __init__(self, limits: ObjectLimits = ObjectLimits()) -> None:  # noqa: B008 - frozen
        self.kept_bytes = 0  # of all keys and values, those of waiting puts included
        self._limits = limits
        self._objects: dict[str, Shared] = {}
        self._named: dict[tuple[o.ObjectKind, str], Shared] = {}
        self._owned: dict[str, list[Shared]] = {}  # client → its ephemeral objects
        self._waiting: dict[str, dict[int, Waiting]] = {}  # client → request → what is not answered yet
        self._agenda: Agenda[Waiting | Partition] = Agenda()  # when requests and partitions have had their time

    # -- events ------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do because `event` happened."""
        out: list[Command] = []
        match event:
            case Asked():
                self.kept_bytes += sum(value.size for value in event.values)
                self._asked(event, now, out)
            case Withdrawn(client=client, request=request):
                if waiting := self._waiting.get(client, {}).get(request):
                    out.append(Answer(client, request))
                    self._withdraw([waiting], now, out)
            case ClientLeft(client=client):
                self._withdraw(list(self._waiting.pop(client, {}).values()), now, out)
                for owned in list(self._owned.get(client, ())):
                    self._end(owned, out)
        self._account(out)
        return out

    def _asked(self, event: Asked, now: float, out: list[Command]) -> None:
        match event.operation:
            case o.Open():
                self._open(event, event.operation, out)
                return
            case o.Names(kind=kind):
                names = [name for of_kind, name in self._named if of_kind == kind]
                out.append(Answer(event.client, event.request, texts=tuple(reversed(names))))
                return
        found = self._objects.get(event.object)
        match found, event.operation:
            case SharedDict() | SharedQueue(), o.Delete():
                self._end(found, out)
                out.append(Answer(event.client, event.request))
            case SharedDict(), o.DictPut():
                self._dict_put(found, event, event.operation, out)
            case SharedDict(), operation if isinstance(operation, o.OfDicts):
                self._dict(found, event, operation, out)
            case SharedQueue(), o.QueuePut() | o.QueueGet() | o.QueuePeek():
                self._wait_in_line(found, event, event.operation, now, out)
            case SharedQueue(), o.QueueLength() | o.QueueClear():
                self._queue(found, event, event.operation, now, out)
            case _:
                reason = f"there is no such object as {event.object}: it was deleted, or belongs to another server"
                self._refuse(event, "missing", reason, out)

    @staticmethod
    def _refuse(event: Asked, problem: o.Problem, reason: str, out: list[Command]) -> None:
        if event.values:
            out.append(forget(event.values))
        out.append(Answer(event.client, event.request, problem=problem, reason=reason))

    # -- objects as a whole ------------------------------------------------------------------------

    def _open(self, event: Asked, operation: o.Open, out: list[Command]) -> None:
        kind, name = operation.kind, operation.name
        found = self._named.get((kind, name)) if name else None
        if found is not None and operation.fresh:
            self._refuse(event, "exists", f"there is a {kind} named {name!r} already", out)
        elif found is not None:
            out.append(Answer(event.client, event.request, texts=(found.id,)))
        elif name and not operation.create:
            make = f"{kind}.from_name({name!r}, create_if_missing=True)"
            self._refuse(event, "missing", f"there is no {kind} named {name!r}: {make} makes it", out)
        elif operation.object in self._objects:
            self._refuse(event, "exists", f"the id {operation.object} is taken", out)
        elif len(self._objects) >= self._limits.objects:
            reason = f"this server has {len(self._objects):,} Dicts and Queues, its limit: delete some"
            self._refuse(event, "exhausted", reason, out)
        else:
            made: Shared = (SharedDict if kind == "Dict" else SharedQueue)(
                operation.object, name, "" if name else event.client
            )
            self._objects[made.id] = made
            if name:
                self._named[kind, name] = made
            else:
                self._owned.setdefault(made.owner, []).append(made)
            out.append(Answer(event.client, event.request, texts=(made.id,)))

    def _end(self, ended: Shared, out: list[Command]) -> None:
        """The object is no more; who waits at it is told."""
        self._objects.pop(ended.id, None)
        self._named.pop((ended.kind, ended.name), None)
        if (owned := self._owned.get(ended.owner)) is not None:
            owned.remove(ended)
            if not owned:
                del self._owned[ended.owner]
        if isinstance(ended, SharedDict):
            out.append(forget(tuple(ended.entries.values()), tuple(ended.entries)))
            return
        for partition in ended.partitions.values():
            self._agenda.put(partition, NEVER)
            out.append(forget(tuple(partition.items)))
            for waiting in partition.waiting():
                waiting.over = True
                if waiting.values:
                    out.append(forget(waiting.values))
                reason = f"the Queue {ended.name or ended.id} was deleted"
                out.append(Answer(waiting.client, waiting.request, problem="missing", reason=reason))

    # -- Dicts -------------------------------------------------------------------------------------

    def _dict(self, shared: SharedDict, event: Asked, operation: o.OfDicts, out: list[Command]) -> None:
        entries = shared.entries
        answer = Answer(event.client, event.request)
        match operation:
            case o.DictGet(keys=keys):
                nothing = Value(0, 0)
                chosen = fitting((entries.get(key, nothing) for key in keys), self._limits.answer_bytes)
                answer = Answer(event.client, event.request, tuple(value.handle for value in chosen))
            case o.DictPop(key=key):
                value = entries.pop(key, None)
                answer = Answer(event.client, event.request, (value.handle if value else 0,))
                if value is not None:
                    shared.keys_size -= len(key)
                    out += (answer, forget((value,), (key,)))
                    return
            case o.DictContains(key=key):
                answer = Answer(event.client, event.request, count=int(key in entries))
            case o.DictKeys():
                answer = Answer(event.client, event.request, keys=tuple(entries))
            case o.DictLength():
                answer = Answer(event.client, event.request, count=len(entries))
            case o.DictClear():
                out.append(forget(tuple(entries.values()), tuple(entries)))
                entries.clear()
                shared.keys_size = 0
        out.append(answer)

    def _dict_put(self, shared: SharedDict, event: Asked, operation: o.DictPut, out: list[Command]) -> None:
        entries, limits = shared.entries, self._limits
        given = dict(zip(operation.keys, event.values, strict=True))
        assert len(given) == len(operation.keys), "a key twice in one put"
        skipped = {key: value for key, value in given.items() if operation.skip_if_exists and key in entries}
        given = {key: value for key, value in given.items() if key not in skipped}
        new_keys = sum(len(key) for key in given if key not in entries)
        replaced = tuple(entries[key] for key in given if key in entries)
        freed = sum(value.size for value in (*replaced, *skipped.values()))
        largest = max((value.size for value in given.values()), default=0)
        if largest > limits.value_bytes:
            reason = f"a value of {largest:,} bytes: a Dict takes values of at most {limits.value_bytes:,} bytes"
            self._refuse(event, "too large", reason, out)
        elif len(entries) + len(given) - len(replaced) > limits.entries:
            reason = f"the Dict has {len(entries):,} entries, and its limit is {limits.entries:,}: remove some"
            self._refuse(event, "exhausted", reason, out)
        elif shared.keys_size + new_keys > limits.keys_bytes:
            reason = f"the keys of a Dict may have {limits.keys_bytes:,} bytes together: use shorter ones"
            self._refuse(event, "exhausted", reason, out)
        elif self.kept_bytes + new_keys - freed > limits.kept_bytes:
            self._refuse(event, "exhausted", self._no_memory(), out)
        else:
            entries.update(given)
            shared.keys_size += new_keys
            self.kept_bytes += new_keys
            if replaced or skipped:
                out.append(forget((*replaced, *skipped.values())))
            out.append(Answer(event.client, event.request, count=len(given)))

    def _no_memory(self) -> str:
        return (
            f"the Dicts and Queues of this server may hold {self._limits.kept_bytes:,} bytes, and that is reached: "
            "pop, get, clear or delete what is no longer needed"
        )

    # -- Queues ------------------------------------------------------------------------------------

    def _wait_in_line(
        self,
        shared: SharedQueue,
        event: Asked,
        operation: o.QueuePut | o.QueueGet | o.QueuePeek,
        now: float,
        out: list[Command],
    ) -> None:
        partition = shared.partitions.get(operation.partition)
        if partition is None:
            if len(shared.partitions) >= self._limits.partitions:
                reason = f"the Queue has {len(shared.partitions):,} partitions, its limit: empty some"
                self._refuse(event, "exhausted", reason, out)
                return
            partition = Partition(shared, operation.partition, self._limits)
        if isinstance(operation, o.QueuePut) and not operation.returned:
            problem, reason = self._never_fits(event.values)
            if problem:
                self._refuse(event, problem, reason, out)
                return
        shared.partitions[operation.partition] = partition
        if isinstance(operation, o.QueuePut) and operation.returned:
            partition.give_back(event.values, operation.lifetime, now, out)
            out.append(Answer(event.client, event.request, count=len(event.values)))
        else:
            deadline = NEVER if operation.wait is None else now + operation.wait
            waiting = Waiting(event.client, event.request, operation, partition, event.values, deadline)
            partition.join(waiting, now, out)
            if not waiting.over:
                self._waiting.setdefault(event.client, {})[event.request] = waiting
                self._agenda.put(waiting, deadline)
        self._look_after(partition)

    def _never_fits(self, values: tuple[Value, ...]) -> tuple[o.Problem, str]:
        """Why these values can't be put at all, whatever the partition holds."""
        limits, size = self._limits, sum(value.size for value in values)
        largest = max((value.size for value in values), default=0)
        if largest > limits.item_bytes:
            return "too large", f"an item of {largest:,} bytes: a Queue takes at most {limits.item_bytes:,} bytes each"
        if len(values) > limits.partition_items:
            return "full", f"{len(values):,} items at once: a partition holds at most {limits.partition_items:,}"
        if size > limits.partition_bytes:
            return "full", f"{size:,} bytes at once: a partition holds at most {limits.partition_bytes:,} bytes"
        if self.kept_bytes > limits.kept_bytes:
            return "exhausted", self._no_memory()
        return "", ""

    def _queue(
        self, shared: SharedQueue, event: Asked, operation: o.QueueLength | o.QueueClear, now: float, out: list[Command]
    ) -> None:
        if operation.total:
            chosen = list(shared.partitions.values())
        else:
            chosen = [shared.partitions[operation.partition]] if operation.partition in shared.partitions else []
        count = sum(len(partition.items) for partition in chosen)
        if isinstance(operation, o.QueueClear):
            for partition in chosen:
                partition.clear(now, out)
                self._look_after(partition)
        out.append(Answer(event.client, event.request, count=count))

    def _withdraw(self, withdrawn: list[Waiting], now: float, out: list[Command]) -> None:
        for waiting in withdrawn:
            self._agenda.put(waiting, NEVER)
            waiting.partition.leave(waiting, out)
        for partition in dict.fromkeys(waiting.partition for waiting in withdrawn):
            partition.settle(now, out)
            self._look_after(partition)

    def _look_after(self, partition: Partition) -> None:
        """The partition has changed: is it still needed, and when does it end?"""
        self._agenda.put(partition, partition.expires_at)
        if partition.is_idle:
            shared = partition.queue
            shared.next_number = max(shared.next_number, partition.next_number)
            shared.partitions.pop(partition.key, None)

    def _account(self, out: list[Command]) -> None:
        """Note what the commands mean for what is kept and who waits."""
        for command in out:
            if isinstance(command, Forget):
                self.kept_bytes -= command.size
            elif (requests := self._waiting.get(command.client)) is not None:
                if waiting := requests.pop(command.request, None):
                    self._agenda.put(waiting, NEVER)
                if not requests:
                    del self._waiting[command.client]

    # -- time --------------------------------------------------------------------------------------

    def wake(self, now: float) -> list[Command]:
        """What to do because time has passed."""
        out: list[Command] = []
        while (due := self._agenda.pop_due(now)) is not None:
            if isinstance(due, Waiting):
                due.partition.look_at_clock(due, now, out)
                self._look_after(due.partition)
            else:
                due.clear(now, out)
                self._look_after(due)
        self._account(out)
        return out

    def deadline(self) -> float | None:
        """When `wake` wants to be called, or `None`: nothing happens by itself."""
        moment = self._agenda.next_at()
        return None if moment == NEVER else moment
