"""Any history of Dicts and Queues against plain dicts and deques, which are kept from requests and answers alone."""

from collections import deque
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from upswell import operations as o
from upswell.core.objects import Objects
from upswell.core.requests import Answer, Asked, ClientLeft, Command, Event, Value, Withdrawn
from upswell.spec import ObjectLimits

LIMITS = ObjectLimits(kept_bytes=60, partition_items=4, partition_bytes=20, item_bytes=9, answer_bytes=10)
CLIENTS = st.sampled_from(["a", "b", "c"])
PARTITIONS = st.sampled_from(["", "x"])
WAITS = st.sampled_from([0.0, 1.0, 5.0, None])
SIZES = st.lists(st.integers(1, 10), min_size=1, max_size=5)


@dataclass
class Request:
    client: str
    operation: o.AnyOperation
    values: tuple[Value, ...]
    asked_at: float


class History(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.objects = Objects(LIMITS)
        self.now = 0.0
        self.requests: list[Request] = []
        self.open: dict[int, Request] = {}  # asked and not answered, in the order in which they were asked
        self.known: dict[int, int] = {}  # handle → size, of what the core has not said to forget
        self.lines: dict[str, deque[Value]] = {"": deque(), "x": deque()}
        self.emptied_at: dict[str, float] = {}
        self.entries: dict[bytes, Value] = {}
        self.answers: dict[int, Answer] = {}
        self.next_handle = 1
        self.ask("a", "", o.Open("Queue", "q", "qu-1", True))
        self.ask("a", "", o.Open("Dict", "d", "di-1", True))

    # -- what is asked -----------------------------------------------------------------------------

    def ask(self, client: str, of: str, operation: o.AnyOperation, sizes: list[int] | None = None) -> Answer | None:
        values = []
        for size in sizes or []:
            values.append(Value(self.next_handle, size))
            self.known[self.next_handle] = size
            self.next_handle += 1
        number = len(self.requests)
        self.requests.append(Request(client, operation, tuple(values), self.now))
        self.open[number] = self.requests[number]
        self.do(Asked(client, number, of, operation, tuple(values)))
        return self.answers.get(number)

    @rule(client=CLIENTS, partition=PARTITIONS, sizes=SIZES, wait=WAITS, lifetime=st.sampled_from([3.0, 50.0]))
    def put(self, client: str, partition: str, sizes: list[int], wait: float | None, lifetime: float) -> None:
        self.ask(client, "qu-1", o.QueuePut(partition, lifetime, wait), sizes)

    @rule(client=CLIENTS, partition=PARTITIONS, count=st.integers(1, 5), wait=WAITS)
    def get(self, client: str, partition: str, count: int, wait: float | None) -> None:
        self.ask(client, "qu-1", o.QueueGet(partition, count, wait))

    @rule(partition=PARTITIONS)
    def clear(self, partition: str) -> None:
        self.emptied_at[partition] = self.now
        self.ask("a", "qu-1", o.QueueClear(partition))

    @rule(partition=PARTITIONS)
    def length(self, partition: str) -> None:
        answer = self.ask("a", "qu-1", o.QueueLength(partition))
        assert answer and answer.count == len(self.lines[partition])

    @rule(client=CLIENTS)
    def leave(self, client: str) -> None:
        left = [number for number, request in self.open.items() if request.client == client]
        for number in left:
            del self.open[number]
        self.do(ClientLeft(client))

    @rule(choice=st.integers(0, 100))
    def withdraw(self, choice: int) -> None:
        if self.open:
            number = list(self.open)[choice % len(self.open)]
            self.do(Withdrawn(self.open[number].client, number))
            assert number not in self.open

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.objects.deadline()) is not None and deadline <= until:
            assert deadline >= self.now
            self.now = deadline
            self.take(self.objects.wake(deadline))
        self.now = until

    @rule(key=st.sampled_from([b"k", b"l", b"m"]), size=st.integers(1, 30), skip=st.booleans())
    def set_key(self, key: bytes, size: int, skip: bool) -> None:
        answer = self.ask("a", "di-1", o.DictPut((key,), skip), [size])
        assert answer is not None
        if answer.problem:
            assert answer.problem == "exhausted" and self.kept() + size + len(key) > LIMITS.kept_bytes - 31
        else:
            assert answer.count == (0 if skip and key in self.entries else 1)
            if answer.count:
                self.entries[key] = self.requests[-1].values[0]

    @rule(key=st.sampled_from([b"k", b"l", b"m"]))
    def pop_key(self, key: bytes) -> None:
        answer = self.ask("a", "di-1", o.DictPop(key))
        expected = self.entries.pop(key, None)
        assert answer and answer.values == ((expected.handle,) if expected else (0,))

    @rule()
    def read_all(self) -> None:
        answer = self.ask("a", "di-1", o.DictKeys())
        assert answer and list(answer.keys) == list(self.entries)
        if self.entries:
            answer = self.ask("a", "di-1", o.DictGet(tuple(self.entries)))
            handles = tuple(value.handle for value in self.entries.values())
            assert answer and answer.values and answer.values == handles[: len(answer.values)]

    # -- what comes of it --------------------------------------------------------------------------

    def do(self, event: Event) -> None:
        self.take(self.objects.handle(event, self.now))

    def take(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Answer):
                assert command.client == self.requests[command.request].client
                self.answered(self.open.pop(command.request), command)  # once, and not after its client has left
                continue
            for handle in command.values:
                del self.known[handle]  # once
                self.emptied(handle)

    def answered(self, request: Request, answer: Answer) -> None:
        self.answers[answer.request] = answer
        assert all(handle in self.known for handle in answer.values if handle)
        match request.operation:
            case o.QueuePut(partition=partition, lifetime=lifetime) if answer.count:
                self.lines[partition].extend(request.values)
                self.emptied_at[partition] = self.now + lifetime
            case o.QueueGet(partition=partition, count=count) if answer.values:
                line = self.lines[partition]
                taken = [line.popleft().handle for _ in range(min(count, len(line)))]
                assert list(answer.values) == taken

    def emptied(self, handle: int) -> None:
        """What is forgotten and still in line went because its time was up."""
        for partition, line in self.lines.items():
            if any(value.handle == handle for value in line):
                assert self.now >= self.emptied_at[partition]
                self.lines[partition] = deque(value for value in line if value.handle != handle)

    def kept(self) -> int:
        return sum(self.known.values()) + sum(map(len, self.entries))

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        blocked = set()
        for request in self.open.values():
            assert isinstance(request.operation, o.QueuePut | o.QueueGet)
            line, wait = self.lines[request.operation.partition], request.operation.wait
            assert wait is None or request.asked_at + wait > self.now - 1e-9 or wait == 0
            if isinstance(request.operation, o.QueueGet):
                assert not line
            elif request.operation.partition not in blocked:
                blocked.add(request.operation.partition)
                size = sum(value.size for value in (*line, *request.values))
                full = len(line) + len(request.values) > LIMITS.partition_items or size > LIMITS.partition_bytes
                assert full, "the put would fit"

    @invariant()
    def bytes_are_counted(self) -> None:
        assert self.objects.kept_bytes == self.kept()

    @invariant()
    def there_is_a_deadline_where_something_will_happen(self) -> None:
        waits = [request for request in self.open.values() if getattr(request.operation, "wait", None) is not None]
        if waits or any(self.lines.values()):
            assert self.objects.deadline() is not None
        else:
            assert self.objects.deadline() is None


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
