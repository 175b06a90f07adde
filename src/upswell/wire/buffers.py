"""Blocks of shared memory that carry the large buffers of a payload past the server, without a copy and without a name.

A block is a memfd of the process that wrote it. Others open it through `/proc/PID/fd/FD`, so nothing stands in a file
system and nothing outlives the processes; who forwards a block adopts it first. Where there is no memfd or /proc,
nothing is packed out of band.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pickle import PickleBuffer

from ..errors import ConnectionError
from .messages import Buffers

AVAILABLE = sys.platform == "linux" and hasattr(os, "memfd_create")
ALIGNMENT = 64
NAME = "upswell"  # of the memory of every block: no other is opened


class BlockGone(ConnectionError):
    """The process that had the block has ended."""


class Block:
    """One open block. `buffers` names it to others for as long as it is open here."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.buffers = Buffers(os.getpid(), descriptor, size)

    @classmethod
    def write(cls, buffers: Sequence[PickleBuffer]) -> Block:
        """A new block with the buffers one after the other, each aligned."""
        descriptor = new_memory()
        try:
            position = 0
            for buffer in buffers:
                # Written and not mapped: the kernel fills whole pages, without clearing them or faulting them in first.
                view = buffer.raw()
                while len(view):
                    written = os.pwrite(descriptor, view, position)
                    view, position = view[written:], position + written
                position = aligned(position)
            os.ftruncate(descriptor, position)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, position)

    @classmethod
    def copy(cls, pieces: Iterable[bytes]) -> Block:
        """A new block with what another one contained, piece by piece."""
        descriptor = new_memory()
        try:
            for piece in pieces:
                append(descriptor, piece)
            return cls(descriptor, os.fstat(descriptor).st_size)
        except BaseException:
            os.close(descriptor)
            raise

    def share(self) -> Block:
        """The same block once more, to be closed apart from this one."""
        return Block(os.dup(self.buffers.descriptor), self.buffers.size)

    def pieces(self, size: int) -> Iterator[bytes]:
        """The contents, `size` bytes at a time."""
        for position in range(0, self.buffers.size, size):
            yield os.pread(self.buffers.descriptor, min(size, self.buffers.size - position), position)

    @classmethod
    def adopt(cls, buffers: Buffers) -> Block:
        """Open another process's block; `BlockGone` when the process is, `ConnectionError` when it is not as said."""
        path = f"/proc/{buffers.process}/fd/{buffers.descriptor}"
        try:
            if not os.readlink(path).startswith(f"/memfd:{NAME}"):
                raise ConnectionError(f"{path} is no block of shared memory")
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            gone = BlockGone if isinstance(error, FileNotFoundError | ProcessLookupError) else ConnectionError
            raise gone(f"the process {buffers.process} took its shared memory with it: {error}") from None
        if os.fstat(descriptor).st_size < buffers.size:
            os.close(descriptor)
            raise ConnectionError(f"{path} is shorter than the {buffers.size:,} bytes it should have")
        return cls(descriptor, buffers.size)

    def map(self, sizes: Sequence[int]) -> list[memoryview]:
        """The buffers of these sizes, writable and private to this process; they keep the memory, not the block."""
        if not self.buffers.size:
            return [memoryview(b"") for _ in sizes]
        whole = _mapped(self.buffers.descriptor, self.buffers.size)
        views, position = [], 0
        for size in sizes:
            views.append(whole[position : position + size])
            position = aligned(position + size)
        return views

    def close(self) -> None:
        """Let go of the block; those who have it open or mapped keep it."""
        if self.buffers.descriptor >= 0:
            os.close(self.buffers.descriptor)
            self.buffers = Buffers(0, -1, 0)


def new_memory() -> int:
    """A descriptor of empty memory that may become a block."""
    return os.memfd_create(NAME, os.MFD_CLOEXEC)


def append(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of the data behind what is there."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view) :]


def aligned(position: int) -> int:
    """The next multiple of the alignment."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def _mapped(descriptor: int, size: int) -> memoryview:
    """Pages of the block, private and writable, unmapped when nobody looks at them any more.

    A `mmap.mmap` would hold a descriptor open for as long (before Python 3.13), and a program may keep many arrays.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        raise MemoryError(f"{size:,} bytes of shared memory can't be mapped: {os.strerror(ctypes.get_errno())}")
    pages = (ctypes.c_char * size).from_address(address)
    weakref.finalize(pages, libc.munmap, address, size).atexit = False  # whoever runs at exit may still look
    return memoryview(pages).cast("B")
