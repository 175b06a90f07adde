"""Operations on Dicts and Queues as they travel: whole, and refused where a peer sends what can't be."""

import msgspec
import pytest

from upswell import operations as o
from upswell.server.objects import check
from upswell.wire import messages as m
from upswell.wire.codec import Decoder, ProtocolError, encode

OPERATIONS: list[o.AnyOperation] = [
    o.Open("Dict", "name", "di-1", True, True),
    o.Delete(),
    o.Names("Queue"),
    o.DictPut((b"k", b"l"), True),
    o.DictGet((b"k",)),
    o.DictPop(b"k"),
    o.DictContains(b"k"),
    o.DictKeys(),
    o.DictLength(),
    o.DictClear(),
    o.QueuePut("p", 10.0, None, True),
    o.QueueGet("p", 3, 0.5),
    o.QueuePeek("p", -1, None),
    o.QueueLength("p", True),
    o.QueueClear("p"),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_every_operation_arrives_as_it_was_sent(operation: o.AnyOperation) -> None:
    sent = m.UseObject(7, "qu-1", operation, (1, 2))
    ((received, payload),) = Decoder().feed(encode(sent, b"abc"))
    assert received == sent and bytes(payload) == b"abc"


def test_no_operation_is_left_out() -> None:
    assert {type(operation) for operation in OPERATIONS} == set(o.Operation.__subclasses__())


@pytest.mark.parametrize(
    "operation",
    [[21, "", 0], [21, "", 1, -1.0], [21, "", 1, float("nan")], [20, "", 0.0], [1, "List", "", "li-1"], [99], 5],
    ids=str,
)
def test_what_can_not_be_is_no_frame(operation: object) -> None:
    body = msgspec.msgpack.encode([20, 7, "qu-1", operation])
    length = 4 + len(body)
    frame = length.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    with pytest.raises(ProtocolError):
        Decoder().feed(frame)


@pytest.mark.parametrize(
    ("operation", "sizes"),
    [
        (o.QueuePut("", 1.0), (2,)),
        (o.QueuePut("", 1.0), (-1, 4)),
        (o.QueueGet(""), (3,)),
        (o.DictPut((b"k",)), (1, 2)),
        (o.DictPut((b"k", b"k")), (1, 2)),
        (o.Delete(), (3,)),
    ],
    ids=str,
)
def test_values_that_do_not_go_with_the_operation_are_refused(
    operation: o.AnyOperation, sizes: tuple[int, ...]
) -> None:
    with pytest.raises(ProtocolError):
        check(m.UseObject(7, "qu-1", operation, sizes), memoryview(b"abc"))
    check(m.UseObject(7, "qu-1", o.QueuePut("", 1.0), (1, 2)), memoryview(b"abc"))
