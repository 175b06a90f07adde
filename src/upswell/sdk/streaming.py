"""`remote_gen`: what a generator yields in a container, yielded here, while it runs.

The generator runs ahead of the loop that consumes it, within limits, and goes on as the consumer reports what it has
taken. Leaving the loop closes the generator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from ..errors import InternalFailure, RemoteError
from ..spec import STREAM_BYTES, STREAM_CHUNKS
from ..wire import messages as m
from ..wire.codec import Frame
from .client import new_id
from .context import current_input_id
from .dual import run_async, run_sync
from .frames import their_frames
from .inbox import Inbox, Restarted
from .outcomes import error_of, raisable, values_of
from .submission import pack_arguments

if TYPE_CHECKING:
    from .function import Function

P = ParamSpec("P")
R = TypeVar("R")

REPORT_CHUNKS, REPORT_BYTES = STREAM_CHUNKS // 4, STREAM_BYTES // 4  # taken since the last report, before the next


class RemoteGenerator(Generic[P, R]):
    """`.remote_gen` of a function: a generator when called, an asynchronous one as `.aio`."""

    __slots__ = ("_function",)

    def __init__(self, function: Function[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        """Run the generator in a container with these arguments, and yield what it yields as it comes.

        Nothing runs before the first value is asked for. Leaving the loop, or `close()`, closes the generator in the
        container. Its exception is raised after the values before it. A container that dies after the first value has
        come means `RemoteError`: a generator is not begun again half way.
        """
        self._function._refuse_plain()
        return _iterate(Streaming(self._function, args, kwargs))

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]:
        """The same, for `async for`."""
        self._function._refuse_plain()
        return _iterate_async(Streaming(self._function, args, kwargs))


def _iterate(streaming: Streaming) -> Generator[Any, None, None]:
    with their_frames:
        try:
            while (values := run_sync(streaming.next_values())) is not None:
                yield from values
        finally:
            streaming.close()


async def _iterate_async(streaming: Streaming) -> AsyncGenerator[Any, None]:
    with their_frames:
        try:
            while (values := await run_async(streaming.next_values())) is not None:
                for value in values:
                    yield value
        finally:
            streaming.close()


class Streaming:
    """One call of a generator as it runs."""

    def __init__(self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inbox: Inbox | None = None  # once it has begun
        self._client, function_id = function.connect()
        self._packed = pack_arguments(function, args, kwargs)
        self._submit = m.Submit(
            new_id("fc"),
            function_id,
            "generator",
            0,
            1,
            True,
            current_input_id() or "",
            method=function.method,
        )
        self._frames: deque[Frame] = deque()
        self._ended = False
        self._taken = self._taken_bytes = 0  # handed out, and consumed when more is asked for
        self._reported = self._reported_bytes = 0

    async def next_values(self) -> list[Any] | None:
        """The values of the next frame; `None` at the end; raises the generator's exception."""
        if self._inbox is None:
            self._inbox = self._client.open_inbox(self._submit.call, renewable=True)
            self._inbox.submit(self._submit, self._packed)
        self._report()
        while True:
            if not self._frames:
                self._frames.extend(await self._inbox.receive())
            message, payload = self._frames.popleft()
            match message:
                case Restarted():
                    self._begin_again()
                case m.Chunks():
                    if (values := values_of(self._inbox, message, payload)) is not None:
                        self._taken += len(values)
                        self._taken_bytes += len(payload) + (message.buffers.size if message.buffers else 0)
                        return values
                case m.Outputs():
                    self._ended = True
                    (chunks,) = values_of(self._inbox, message, payload) or [-1]
                    if chunks != self._taken:
                        raise InternalFailure(f"{chunks} values were yielded, and {self._taken} came")
                    return None
                case m.Failed() | m.Refused():
                    self._ended = True
                    raise raisable(error_of(message.error, payload))

    def _begin_again(self) -> None:
        """The server was started again: so is a generator, from its beginning, if nothing has come of it yet."""
        assert self._inbox is not None
        if self._taken:
            self._ended = True
            raise RemoteError(
                f"the server was started again after {self._taken:,} values had come, and a generator is not begun "
                "again half way"
            )
        self._inbox.submit(self._submit, self._packed)

    def close(self) -> None:
        """The consumer has left, or the generator has ended."""
        if self._inbox is None:
            return
        self._inbox.close()
        self._packed.close()
        if not self._ended:
            self._ended = True
            self._inbox.cancel()

    def __del__(self) -> None:
        # Python closes no generator that was never begun, and so nobody has closed this.
        if self._inbox is None and hasattr(self, "_packed"):
            self._packed.close()

    def _report(self) -> None:
        """Tell how much was consumed, now and then, so that the generator goes on."""
        assert self._inbox is not None
        chunks, size = self._taken - self._reported, self._taken_bytes - self._reported_bytes
        if chunks >= REPORT_CHUNKS or size >= REPORT_BYTES:
            self._reported, self._reported_bytes = self._taken, self._taken_bytes
            self._inbox.send(m.Consumed(self._submit.call, self._taken, self._taken_bytes))
