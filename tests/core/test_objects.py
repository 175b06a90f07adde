"""Dicts and Queues in the core: who is answered what, in which order, and when time is up."""

import itertools
from dataclasses import dataclass, field

import pytest

from upswell import operations as o
from upswell.core.objects import Objects
from upswell.core.requests import Answer, Asked, ClientLeft, Command, Event, Forget, Value, Withdrawn
from upswell.spec import ObjectLimits

LIMITS = ObjectLimits(
    kept_bytes=1000,
    objects=4,
    entries=3,
    keys_bytes=20,
    value_bytes=500,
    partitions=2,
    partition_items=3,
    partition_bytes=100,
    item_bytes=50,
    answer_bytes=60,
)


@dataclass
class Player:
    """Plays requests to the core; handles are the numbers of values, in the order in which they were given."""

    objects: Objects = field(default_factory=lambda: Objects(LIMITS))
    now: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    handles: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    requests: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def do(self, event: Event) -> None:
        self._take(self.objects.handle(event, self.now))

    def ask(self, of: str, operation: o.AnyOperation, *sizes: int, client: str = "a") -> int:
        """Return the number of the request; its answer is in `answers`, now or later."""
        request = next(self.requests)
        values = tuple(Value(next(self.handles), size) for size in sizes)
        self.do(Asked(client, request, of, operation, values))
        return request

    def answered(self, of: str, operation: o.AnyOperation, *sizes: int, client: str = "a") -> Answer:
        answer = self.of(self.ask(of, operation, *sizes, client=client))
        assert answer is not None, "not answered at once"
        return answer

    def until(self, moment: float) -> None:
        """Let time pass, waking the core when it wants to be."""
        while (deadline := self.objects.deadline()) is not None and deadline <= moment:
            self.now = deadline
            self._take(self.objects.wake(deadline))
        self.now = moment

    def of(self, request: int) -> Answer | None:
        return next((answer for answer in self.answers if answer.request == request), None)

    def _take(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Answer):
                assert self.of(command.request) is None, "answered twice"
                self.answers.append(command)
            else:
                assert isinstance(command, Forget)
                self.forgotten += command.values


@pytest.fixture
def player() -> Player:
    playing = Player()
    playing.ask("", o.Open("Dict", "d", "di-1", True))
    playing.ask("", o.Open("Queue", "q", "qu-1", True))
    return playing


def put(*, wait: float | None = None, lifetime: float = 100.0, partition: str = "") -> o.QueuePut:
    return o.QueuePut(partition, lifetime, wait)


# -- objects as a whole ----------------------------------------------------------------------------


def test_a_name_leads_to_one_object(player: Player) -> None:
    assert player.answered("", o.Open("Dict", "d", "di-2", True), client="b").texts == ("di-1",)
    assert player.answered("", o.Open("Dict", "d", "di-2", True, True)).problem == "exists"
    assert player.answered("", o.Open("Dict", "q", "di-2")).problem == "missing"
    assert "Dict.from_name('q', create_if_missing=True)" in player.answers[-1].reason


def test_names_are_listed_newest_first(player: Player) -> None:
    player.ask("", o.Open("Dict", "later", "di-2", True))
    player.ask("", o.Open("Dict", "", "di-3", True))
    assert player.answered("", o.Names("Dict")).texts == ("later", "d")
    assert player.answered("", o.Names("Queue")).texts == ("q",)


def test_there_is_a_limit_to_objects(player: Player) -> None:
    player.ask("", o.Open("Dict", "e", "di-2", True))
    player.ask("", o.Open("Dict", "f", "di-3", True))
    assert player.answered("", o.Open("Dict", "g", "di-4", True)).problem == "exhausted"
    player.ask("di-2", o.Delete())
    assert player.answered("", o.Open("Dict", "g", "di-4", True)).problem == ""


def test_what_is_deleted_is_missing_and_forgotten(player: Player) -> None:
    player.ask("di-1", o.DictPut((b"k",)), 10)
    waiting = player.ask("qu-1", o.QueueGet(""))
    for name in ("di-1", "qu-1"):
        assert player.answered(name, o.Delete()).problem == ""
    assert player.forgotten == [1]
    assert (answer := player.of(waiting)) and answer.problem == "missing"
    assert player.answered("di-1", o.DictLength()).problem == "missing"
    assert player.answered("qu-1", put(), 5).problem == "missing"
    assert player.forgotten == [1, 2]
    assert player.objects.kept_bytes == 0


def test_an_operation_of_the_other_kind_is_refused(player: Player) -> None:
    assert player.answered("qu-1", o.DictLength()).problem == "missing"
    assert player.answered("di-1", o.QueueLength("")).problem == "missing"


def test_ephemeral_objects_end_with_their_client(player: Player) -> None:
    player.ask("", o.Open("Dict", "", "di-2", True))
    player.ask("di-2", o.DictPut((b"k",)), 10)
    assert player.answered("di-2", o.DictLength(), client="b").count == 1
    player.do(ClientLeft("b"))
    assert player.answered("di-2", o.DictLength()).count == 1
    player.do(ClientLeft("a"))
    assert player.answered("di-2", o.DictLength(), client="b").problem == "missing"
    assert player.answered("di-1", o.DictLength(), client="b").problem == ""
    assert player.forgotten == [1]


# -- Dicts -----------------------------------------------------------------------------------------


def test_values_are_replaced_and_forgotten(player: Player) -> None:
    assert player.answered("di-1", o.DictPut((b"k", b"l")), 10, 10).count == 2
    assert player.answered("di-1", o.DictPut((b"k",)), 20).count == 1
    assert player.forgotten == [1]
    assert player.answered("di-1", o.DictPut((b"k", b"m"), True), 5, 5).count == 1
    assert player.forgotten == [1, 4]
    assert player.answered("di-1", o.DictGet((b"k", b"?", b"m"))).values == (3, 0, 5)
    assert player.answered("di-1", o.DictKeys()).keys == (b"k", b"l", b"m")
    assert player.objects.kept_bytes == 20 + 10 + 5 + 3


def test_pop_takes_once(player: Player) -> None:
    player.ask("di-1", o.DictPut((b"k",)), 10)
    assert player.answered("di-1", o.DictPop(b"k")).values == (1,)
    assert player.answered("di-1", o.DictPop(b"k")).values == (0,)
    assert player.answered("di-1", o.DictContains(b"k")).count == 0
    assert player.objects.kept_bytes == 0


def test_an_answer_has_as_many_values_as_fit_and_at_least_one(player: Player) -> None:
    player.ask("di-1", o.DictPut((b"k", b"l", b"m")), 100, 30, 30)
    assert player.answered("di-1", o.DictGet((b"k", b"l", b"m"))).values == (1,)
    assert player.answered("di-1", o.DictGet((b"l", b"m"))).values == (2, 3)


@pytest.mark.parametrize(
    ("keys", "sizes", "problem"),
    [
        ((b"k",), (501,), "too large"),
        ((b"1", b"2", b"3", b"4"), (1, 1, 1, 1), "exhausted"),  # entries
        ((b"k" * 21,), (1,), "exhausted"),  # bytes of keys
        ((b"k", b"l", b"m"), (400, 400, 199), "exhausted"),  # bytes in all: the keys count too
    ],
)
def test_a_put_beyond_a_limit_is_refused_whole(
    player: Player, keys: tuple[bytes, ...], sizes: tuple[int, ...], problem: str
) -> None:
    assert player.answered("di-1", o.DictPut(keys), *sizes).problem == problem
    assert player.answered("di-1", o.DictLength()).count == 0
    assert player.objects.kept_bytes == 0


def test_replacing_needs_no_room_beside_what_is_replaced(player: Player) -> None:
    player.ask("di-1", o.DictPut((b"k", b"l")), 490, 500)
    assert player.answered("di-1", o.DictPut((b"k",)), 480).problem == ""
    assert player.answered("di-1", o.DictClear()).problem == ""
    assert player.objects.kept_bytes == 0


# -- Queues: order and waiting -----------------------------------------------------------------------


def test_first_in_first_out(player: Player) -> None:
    player.ask("qu-1", put(), 1, 1)
    player.ask("qu-1", put(), 1)
    assert player.answered("qu-1", o.QueueLength("")).count == 3
    assert player.answered("qu-1", o.QueueGet("", 2)).values == (1, 2)
    assert player.answered("qu-1", o.QueueGet("", 2)).values == (3,)
    assert player.forgotten == [1, 2, 3]
    assert player.objects.deadline() is None


def test_getters_are_served_in_the_order_in_which_they_came(player: Player) -> None:
    first = player.ask("qu-1", o.QueueGet("", 2), client="a")
    second = player.ask("qu-1", o.QueueGet(""), client="b")
    player.ask("qu-1", put(), 1, client="c")
    assert (answer := player.of(first)) and answer.values == (1,)
    assert player.of(second) is None
    player.ask("qu-1", put(), 1, client="c")
    assert (answer := player.of(second)) and answer.values == (2,)


def test_a_getter_without_time_gets_nothing_at_once(player: Player) -> None:
    assert player.answered("qu-1", o.QueueGet("", wait=0.0)).values == ()
    assert player.answered("qu-1", o.QueueGet("", wait=0.0)).problem == ""


def test_a_getter_waits_until_its_deadline(player: Player) -> None:
    request = player.ask("qu-1", o.QueueGet("", wait=5.0))
    assert player.objects.deadline() == 5.0
    player.until(4.9)
    assert player.of(request) is None
    player.until(5.0)
    assert (answer := player.of(request)) and answer.values == ()
    assert player.objects.deadline() is None
    player.ask("qu-1", put(), 1)
    assert player.answered("qu-1", o.QueueLength("")).count == 1


def test_a_put_waits_for_room_whole_and_none_overtakes_it(player: Player) -> None:
    player.ask("qu-1", put(), 1, 1)
    two = player.ask("qu-1", put(), 1, 1)
    one = player.ask("qu-1", put(), 1)  # it would fit, and must not overtake
    assert player.of(two) is None and player.of(one) is None
    assert player.answered("qu-1", o.QueueGet("")).values == (1,)
    assert player.of(two) is not None and player.of(one) is None
    assert player.answered("qu-1", o.QueueGet("", 9)).values == (2, 3, 4)
    assert player.of(one) is not None
    assert player.answered("qu-1", o.QueueGet("")).values == (5,)


def test_a_put_without_room_is_full_when_its_time_is_up(player: Player) -> None:
    player.ask("qu-1", put(), 1, 1, 1)
    assert player.answered("qu-1", put(wait=0.0), 1).problem == "full"
    request = player.ask("qu-1", put(wait=2.0), 1)
    player.until(2.0)
    assert (answer := player.of(request)) and answer.problem == "full"
    assert "3 items" in answer.reason
    assert player.forgotten == [4, 5]


@pytest.mark.parametrize(
    ("sizes", "problem"), [((51,), "too large"), ((1, 1, 1, 1), "full"), ((40, 40, 40), "full")], ids=str
)
def test_what_never_fits_does_not_wait(player: Player, sizes: tuple[int, ...], problem: str) -> None:
    assert player.answered("qu-1", put(), *sizes).problem == problem
    assert player.objects.kept_bytes == 0


def test_bytes_of_waiting_puts_count(player: Player) -> None:
    player.ask("di-1", o.DictPut((b"k", b"l")), 450, 410)
    player.ask("qu-1", put(), 50, 40)
    request = player.ask("qu-1", put(), 20)  # does not fit into the partition, and waits with its bytes
    assert player.of(request) is None
    assert player.answered("qu-1", put(partition="other"), 50).problem == "exhausted"
    player.do(ClientLeft("a"))
    assert player.answered("qu-1", put(partition="other"), 30, client="b").problem == ""


def test_partitions_know_nothing_of_one_another(player: Player) -> None:
    request = player.ask("qu-1", o.QueueGet("x"))
    player.ask("qu-1", put(), 1)
    assert player.of(request) is None
    assert player.answered("qu-1", put(partition="y"), 1).problem == "exhausted"
    player.ask("qu-1", put(partition="x"), 1)
    assert (answer := player.of(request)) and answer.values == (3,)
    assert player.answered("qu-1", put(partition="y"), 1).problem == ""
    assert player.answered("qu-1", o.QueueLength("", True)).count == 2
    assert player.answered("qu-1", o.QueueClear("y")).problem == ""
    assert player.answered("qu-1", o.QueueLength("", True)).count == 1
    player.ask("qu-1", o.QueueClear("", True))
    assert player.objects.kept_bytes == 0 and player.objects.deadline() is None


# -- Queues: time, and clients that leave --------------------------------------------------------------


def test_a_partition_is_emptied_after_its_last_put(player: Player) -> None:
    player.ask("qu-1", put(lifetime=10.0), 1)
    player.until(5.0)
    player.ask("qu-1", put(lifetime=10.0), 1)
    player.until(14.9)
    assert player.answered("qu-1", o.QueueLength("")).count == 2
    player.until(15.0)
    assert player.answered("qu-1", o.QueueLength("")).count == 0
    assert player.forgotten == [1, 2] and player.objects.deadline() is None


def test_a_shorter_lifetime_counts_from_now(player: Player) -> None:
    player.ask("qu-1", put(lifetime=100.0), 1)
    player.ask("qu-1", put(lifetime=3.0), 1)
    assert player.objects.deadline() == 3.0


def test_puts_go_on_when_a_full_partition_is_emptied(player: Player) -> None:
    player.ask("qu-1", put(lifetime=5.0), 1, 1, 1)
    request = player.ask("qu-1", put(lifetime=5.0), 1)
    player.until(5.0)
    assert player.of(request) is not None
    assert player.answered("qu-1", o.QueueGet("", 9)).values == (4,)


def test_who_leaves_gets_nothing_and_blocks_nobody(player: Player) -> None:
    gone = player.ask("qu-1", o.QueueGet(""), client="gone")
    stays = player.ask("qu-1", o.QueueGet(""), client="stays")
    player.do(ClientLeft("gone"))
    player.ask("qu-1", put(), 1)
    assert player.of(gone) is None
    assert (answer := player.of(stays)) and answer.values == (1,)

    player.ask("qu-1", put(), 1, 1)
    player.ask("qu-1", put(), 1, 1, client="gone")
    player.ask("qu-1", put(), 1, client="gone")
    waits = player.ask("qu-1", put(), 1, client="stays")
    player.do(ClientLeft("gone"))
    assert player.of(waits) is not None
    assert player.forgotten == [1, 4, 5, 6]


def test_a_withdrawn_request_is_answered_with_nothing(player: Player) -> None:
    request = player.ask("qu-1", o.QueueGet("", wait=9.0))
    player.do(Withdrawn("a", request))
    assert (answer := player.of(request)) and answer.values == ()
    player.do(Withdrawn("a", request))
    player.ask("qu-1", put(), 1)
    assert player.answered("qu-1", o.QueueGet("")).values == (1,)
    player.until(10.0)


def test_what_was_taken_and_not_wanted_is_first_again(player: Player) -> None:
    player.ask("qu-1", put(), 1, 1, 1)
    assert player.answered("qu-1", o.QueueGet("", 2)).values == (1, 2)
    returned = o.QueuePut("", 100.0, 0.0, True)
    player.ask("qu-1", put(), 1, 1)
    assert player.answered("qu-1", returned, 1, 1).count == 2  # more than there is room for
    assert player.answered("qu-1", o.QueueGet("", 9)).values == (6, 7, 3, 4, 5)


# -- Queues: looking without taking --------------------------------------------------------------------


def test_peeking_goes_on_behind_what_was_seen(player: Player) -> None:
    player.ask("qu-1", put(), 40, 15)
    seen = player.answered("qu-1", o.QueuePeek("", None))
    assert seen.values == (1, 2)
    assert player.answered("qu-1", o.QueuePeek("", seen.count)).values == ()
    waiting = player.ask("qu-1", o.QueuePeek("", seen.count, 5.0))
    player.ask("qu-1", put(), 30)
    assert (answer := player.of(waiting)) and answer.values == (3,)
    assert player.answered("qu-1", o.QueueGet("", 9)).values == (1, 2, 3)


def test_numbers_of_items_never_come_again(player: Player) -> None:
    player.ask("qu-1", put(), 1, 1)
    seen = player.answered("qu-1", o.QueuePeek("", None))
    player.ask("qu-1", o.QueueGet("", 9))
    player.ask("qu-1", put(), 1)
    assert player.answered("qu-1", o.QueuePeek("", seen.count)).values == (3,)


def test_answered_requests_leave_no_deadlines_behind(player: Player) -> None:
    for _ in range(1000):
        player.ask("qu-1", o.QueueGet("", wait=1e6))
        player.ask("qu-1", put(), 1)
    assert player.objects.deadline() is None
