"""Dicts and Queues."""

from ...operations import AnyOperation, Problem
from .base import Message


class UseObject(Message, tag=20, frozen=True):
    """Do something with a Dict or a Queue; answered by `ObjectAnswer`, which waits where the operation does.

    Payload: the values, one after the other, each of its size in `sizes`.
    """

    request: int
    object: str
    operation: AnyOperation
    sizes: tuple[int, ...] = ()


class Withdraw(Message, tag=21, frozen=True):
    """Nobody waits for the answer to that `UseObject` any more: it is an empty one, if it is not under way yet."""

    request: int


class ObjectAnswer(Message, tag=41, frozen=True):
    """Answer to `UseObject`. Payload: values, or keys, each of its size in `sizes`; -1 says that there is none."""

    request: int
    sizes: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    count: int = 0
    problem: Problem = ""
    reason: str = ""
