"""One connection between the engine and a lease, or the process that speaks to Ray, as asyncio sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ...wire.codec import Bytes, Decoder, ProtocolError, encode_parts
from ...wire.messages import Message

READ_BYTES = 256 << 10


class Link:
    """Frames in and out. What is sent to a peer that is gone is dropped; that it is gone is said by `frames`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decode: Callable[[memoryview], Message]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder(decode)
        self.most_bytes: int | None = None  # of a frame, where that is less than frames may have

    async def frames(self) -> AsyncIterator[tuple[Message, memoryview]]:
        """What comes, until the peer is gone; `ProtocolError` for what is no frame."""
        while True:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError:
                return
            if not data:
                return
            for frame in self._decoder.feed(data):
                yield frame
            if self.most_bytes is not None and self._decoder.unfinished > self.most_bytes:
                raise ProtocolError(f"a frame of more than {self.most_bytes:,} bytes from who has not said who it is")

    def send(self, message: Message, payload: Bytes = b"") -> None:
        """Write one frame, some time soon."""
        if not self._writer.is_closing():
            self._writer.writelines(encode_parts(message, payload))

    async def drained(self) -> None:
        """Wait until the peer has taken most of what was sent, or is gone."""
        try:
            await self._writer.drain()
        except OSError:
            pass

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close when what was sent has left, or the peer is gone."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
