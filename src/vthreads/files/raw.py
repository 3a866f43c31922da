"""The lowest layer of an open file: `io.FileIO`, whose reads and writes park.

The layers above are the standard library's. Its buffers hold a lock of C around what they do, which belongs to an OS
thread: a virtual thread that parked inside would leave it to the others of its carrier, and they would be told
"reentrant call". So a raw file that is called by a buffer never parks. It answers None, as a file in non-blocking mode
does, and is *starved*; the buffer waits outside of the lock and goes on. That happens also when a checkpoint is due.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from .._core.current import running
from .._core.engine import READ, WRITE
from .._core.runtime import after_fork_hooks
from .._core.thread import VirtualThread
from ..locks import Lock
from ..net.readiness import forget_fd, park_for_fd, park_for_owned, wait_blocking
from .kinds import Kind, fstat, kind_of
from .reading import HERE, read_at, read_now
from .writing import write_some, write_whole

__all__ = ["ON_A_DISK", "File", "as_original", "buffer_method", "named_as_original"]

ON_A_DISK = (Kind.DISK, Kind.MEMORY)
# Bytes that one wait is to bring.
SIZE_OF_PIECE = 1 << 18

# The code of the methods of buffers, by which a raw file knows who calls it.
_buffer_methods: set[CodeType] = set()


def buffer_method(function: Any) -> Any:
    """Let raw files that `function` calls, by way of C, answer None instead of waiting. A decorator."""
    _buffer_methods.add(function.__code__)
    return function


def _called_by_a_buffer() -> bool:
    # C has no frames: below this function and the method that asks is the Python code that called the C code.
    return sys._getframe(2).f_code in _buffer_methods


def as_original(file: Any, text: str) -> str:
    """The repr of `file` as that of the original, where that of a subclass has the name without the module."""
    return text.replace(f"<{type(file).__name__} ", f"<_io.{type(file).__name__} ", 1)


def named_as_original(cls: Any) -> Any:
    """Let `cls` go by the name of the class that it extends: programs show it, and compare it. A decorator."""
    cls.__name__ = cls.__qualname__ = cls.__base__.__name__
    cls.__module__ = cls.__base__.__module__
    return cls


_waited_for: set[File] = set()


def _forget_who_waits() -> None:
    """In the child of a fork: they are not there."""
    for file in _waited_for:
        file.busy, file._lock = False, None
    _waited_for.clear()


after_fork_hooks.append(_forget_who_waits)


@named_as_original
class File(io.FileIO):
    """What `open(…, buffering=0)` returns, and what is below the buffer otherwise.

    Attributes:
        kind: what it is, as far as waiting goes.
        busy: somebody waits for the buffer, and the others are to stand in a queue.
        starved: the last answer to a buffer was "nothing yet", and not that of a file in non-blocking mode.
        unread: what was read from it and given back; it comes first when it is read again.
    """

    kind: Kind
    _finalizing: bool  # of the C class
    starved = False
    unread = b""
    # What a wait for a buffer has brought: bytes that are in the page cache now; that the checkpoint has been.
    _warm = 0
    _checked = False
    # It was starved because a checkpoint was due.
    _was_due = False
    # A buffer waits; what it needs to be the only one.
    busy = False
    _lock: Lock | None = None

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        super().__init__(file, mode, closefd, opener)
        self.kind = kind_of(self.fileno())

    def __repr__(self) -> str:
        return as_original(self, super().__repr__())

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    @property
    def waits(self) -> bool:
        """Whether its reads and writes wait: it is not in non-blocking mode, which a disk ignores."""
        return self.kind in ON_A_DISK or os.get_blocking(self.fileno())

    # --- reading

    def readinto(self, buffer: Any, /) -> int | None:  # None, as in non-blocking mode
        thread = running()
        if _called_by_a_buffer():
            return self._read_at_once(thread, buffer)
        if self._reads_as_ever(thread):
            return super().readinto(buffer)
        piece = self.next_piece(thread, memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(piece)] = piece
        return len(piece)

    def read(self, size: int | None = -1, /) -> bytes:
        thread = running()
        if size is None or size < 0:
            return self.readall()
        if self._reads_as_ever(thread):
            return super().read(size)
        return self.next_piece(thread, size)

    def readall(self) -> bytes:
        thread = running()
        if _called_by_a_buffer():
            return self._read_all_at_once(thread)  # type: ignore[return-value]  # None, as in non-blocking mode
        if self._reads_as_ever(thread):
            return super().readall()
        pieces = []
        try:
            while piece := self.next_piece(thread, self._left() + 1):
                pieces.append(piece)
        except BaseException:
            self._give_back(b"".join(pieces))
            raise
        return b"".join(pieces)

    def _reads_as_ever(self, thread: VirtualThread | None) -> bool:
        return thread is None and not self.unread or not self.readable() or not self.waits

    def next_piece(self, thread: VirtualThread | None, size: int) -> bytes:
        """Up to `size` bytes; wait until there are some. Empty at the end of the file. A checkpoint."""
        if thread is not None:
            thread.check()
        if self.unread:
            piece, self.unread = self.unread[:size], self.unread[size:]
            return piece
        if thread is None or not size:
            return super().read(size)
        fd = self.fileno()
        buffer = bytearray(size)
        while (count := read_now(fd, [buffer], self.kind)) is None:
            if self.kind is Kind.DISK:
                count = read_at(fd, [buffer], HERE)
                break
            self._park(thread, READ)
        return bytes(memoryview(buffer)[:count])

    def _give_back(self, data: bytes) -> None:
        if self.kind in ON_A_DISK:
            self.seek(-len(data), os.SEEK_CUR)
        else:
            self.unread = data + self.unread

    def _left(self) -> int:
        """How many bytes there are still, for all that is known."""
        if self.kind not in ON_A_DISK:
            return io.DEFAULT_BUFFER_SIZE
        fd = self.fileno()
        return max(fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR), 0)

    # --- for buffers: nothing but the two that wait parks here

    def _read_at_once(self, thread: VirtualThread | None, buffer: Any) -> int | None:
        if self.unread and not self._is_due(thread):
            self.starved = False
            piece = self.unread[: len(buffer)]
            self.unread = self.unread[len(piece) :]
            buffer[: len(piece)] = piece
            return len(piece)
        if thread is None and self.kind in ON_A_DISK:
            self.starved = False
            return super().readinto(buffer)
        if self._warm:
            warm, self._warm, self.starved = self._warm, 0, False
            return super().readinto(buffer[:warm])
        count = None if self._is_due(thread) else read_now(self.fileno(), [buffer], self.kind)
        self.starved = count is None and self.waits
        return count

    def _read_all_at_once(self, thread: VirtualThread | None) -> bytes | None:
        """What is there of the rest; that is all of it, unless it is starved."""
        if thread is None and self.kind in ON_A_DISK:
            self.starved = False
            return super().readall()
        if self.kind not in ON_A_DISK:
            # It may be much, and come by and by.
            piece = bytearray(SIZE_OF_PIECE)
            count = self._read_at_once(thread, memoryview(piece))
            if count and self.waits:
                self.starved = self._was_due = True
            return bytes(memoryview(piece)[:count]) if count is not None else None
        # Filled in place, and handed on without being copied.
        collected = io.BytesIO()
        size, end = self._left(), 0
        while True:
            collected.seek(end + size)
            collected.write(b"\0")
            with collected.getbuffer() as view:
                count = self._read_at_once(thread, view[end:])
            if not count:
                break
            end += count
            size = self._left()
        collected.truncate(end)
        return collected.getvalue()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the one who waits for the buffer. A checkpoint, if there is another one."""
        self._lock = self._lock or Lock()
        with self._lock:
            self.busy = True
            _waited_for.add(self)
            try:
                yield
            finally:
                self.busy = False
                _waited_for.discard(self)

    def wait_for_more(self, thread: VirtualThread | None) -> None:
        """Wait until something can be read, or the file has ended. A checkpoint."""
        if self._may_go_on(thread) or self.unread:
            return
        fd = self.fileno()
        if self.kind is Kind.DISK:
            # Read by an OS thread, it is in the page cache; then it is read again, in place.
            scratch = bytearray(SIZE_OF_PIECE)
            self._warm = read_at(fd, [scratch], os.lseek(fd, 0, os.SEEK_CUR)) or 1
        elif thread is None:
            wait_blocking(fd, READ, None)
        elif not wait_blocking(fd, READ, 0):
            self._park(thread, READ)

    def wait_writable(self, thread: VirtualThread | None) -> None:
        """Wait until something can be written. A checkpoint."""
        if self._may_go_on(thread):
            return
        if thread is None:
            wait_blocking(self.fileno(), WRITE, None)
        elif not wait_blocking(self.fileno(), WRITE, 0):
            self._park(thread, WRITE)

    def _may_go_on(self, thread: VirtualThread | None) -> bool:
        """Make the checkpoint before a wait; true if it was all that the buffer stopped for."""
        if thread is not None:
            thread.check()
        # The next call of the buffer is to be a real one.
        self._checked = True
        was_due, self._was_due = self._was_due, False
        return was_due

    def _is_due(self, thread: VirtualThread | None) -> bool:
        """Whether a buffer has to stop for a checkpoint or its turn, other than just after a wait."""
        if self._checked:
            self._checked = False
            return False
        self._was_due = self.busy or (
            thread is not None and (thread.pending or thread.scheduler.clock.now() >= thread.scheduler.slice_end)
        )
        # In non-blocking mode there is no checkpoint.
        return self._was_due and self.waits

    # --- writing

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]  # None, as in non-blocking mode
        thread = running()
        if _called_by_a_buffer() and self.kind not in ON_A_DISK:
            count = None if self._is_due(thread) else write_some(self.fileno(), data, self.kind)
            self.starved = count is None and self.waits
            return count
        if thread is None or self.kind in ON_A_DISK or not self.writable() or not self.waits:
            return super().write(data)
        with memoryview(data) as view, view.cast("B") as left:
            return write_whole(thread, self.fileno(), left)

    # --- waiting and closing

    def _park(self, thread: VirtualThread, direction: int) -> None:
        # Only the owner of a descriptor may stand for its number: of others there may be several.
        if self.closefd:
            park_for_owned(thread, self.fileno(), direction, weakref.ref(self), None)
        else:
            park_for_fd(thread, self.fileno(), direction)
        thread.check()

    def close(self) -> None:
        try:
            if self._finalizing and not self.closed and self.closefd:
                # Said here for the place that the original would name, one frame up from here.
                self._finalizing = False
                warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
        finally:
            self._close()

    def _close(self) -> None:
        if not self.closed and self.closefd:
            forget_fd(self.fileno())
        super().close()
