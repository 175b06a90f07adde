"""The connection between the engine and a lease, or the process that speaks to Ray, as asyncio sees it; and what is
said between engine and lease over one connection after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ...wire.codec import Bytes, Decoder, ProtocolError, encode_parts
from ...wire.delivery import Delivery
from ...wire.messages import Message, Received

READ_BYTES = 256 << 10
FULL_BYTES = 16 << 20  # said, and not known to have arrived; with more than that there is no room


class Link:
    """Frames in and out. What is sent to a peer that is gone is dropped; that it is gone is said by `frames`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decode: Callable[[memoryview], Message]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder(decode)
        self._frames = self._read()
        self.most_bytes: int | None = None  # of a frame, where that is less than frames may have

    def frames(self) -> AsyncIterator[tuple[Message, memoryview]]:
        """What comes and nobody has had yet, until the peer is gone; `ProtocolError` for what is no frame."""
        return self._frames

    async def _read(self) -> AsyncIterator[tuple[Message, memoryview]]:
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


class Session:
    """One side of what an engine and a lease say: nothing is lost where a link breaks, and nothing comes twice."""

    def __init__(self) -> None:
        self._delivery = Delivery()
        self._link: Link | None = None
        self._meanwhile: list[tuple[Message, Bytes]] = []  # said while there was no link
        self._room = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether there is a link just now."""
        return self._link is not None

    @property
    def is_full(self) -> bool:
        """Whether so much has not arrived that what can wait, or is no matter, should not be said."""
        return self._delivery.bytes > FULL_BYTES

    @property
    def received(self) -> int:
        """Frames that came."""
        return self._delivery.received

    def begin(self, link: Link) -> list[tuple[Message, Bytes]]:
        """Say to a peer that knows of nothing; what was meant for the one before it, and said while there was none."""
        self._delivery = Delivery()
        return self._connect(link)

    def resume(self, link: Link, received: int) -> None:
        """Say on what the peer has so many frames of; `ProtocolError` where that can't be."""
        lacking = self._delivery.resume(received)
        self._connect(link)
        for message, payload in lacking:
            link.send(message, payload)

    def _connect(self, link: Link) -> list[tuple[Message, Bytes]]:
        self.lose()
        self._link = link
        meanwhile, self._meanwhile = self._meanwhile, []
        return meanwhile

    def send(self, message: Message, payload: Bytes = b"") -> None:
        """Say that, now or when there is a link again."""
        self._delivery.send(message, payload)
        if self._link is not None:
            self._link.send(message, payload)
        else:
            self._meanwhile.append((message, payload))

    async def frames(self) -> AsyncIterator[tuple[Message, memoryview]]:
        """What comes over the present link, until that breaks."""
        link = self._link
        assert link is not None
        async for message, payload in link.frames():
            if self._link is not link:
                return  # the peer has made another, and will say it there
            if isinstance(message, Received):
                self._delivery.confirm(message.count)
                self._room.set()
                continue
            if due := self._delivery.take(message, payload):
                link.send(due)
            yield message, payload

    async def room(self) -> None:
        """Wait until there is room for more, or nobody will hear it."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def lose(self, link: Link | None = None) -> bool:
        """End the link at once; whether there was one, and where a `link` is given that one."""
        if self._link is None or link not in (None, self._link):
            return False
        self._link.abort()
        self._link = None
        return True

    def end(self) -> None:
        """Nobody goes on with this."""
        self.lose()
        self._delivery = Delivery()
        self._room.set()

    async def close(self) -> None:
        """End the link when what was said has left."""
        if self._link is not None:
            await self._link.close()
