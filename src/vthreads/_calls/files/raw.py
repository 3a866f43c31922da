"""The lowest layer of an open file: an `io.FileIO` whose reads and writes park.

The layers above are the standard library's. Their buffers hold a C lock while they call the raw file, and it belongs to
an OS thread: if a virtual thread parked inside, other virtual threads of its carrier would get "reentrant call". So a
raw file that is called by a buffer never parks. It returns None, like a file in non-blocking mode, and is *starved*;
the buffer then waits outside its lock and continues. The same happens when a checkpoint is due.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
import weakref
from collections.abc import Iterator
from io import FileIO as OriginalFileIO
from operator import index
from types import CodeType
from typing import Any

from ..._core.blocks import block
from ..._core.current import running
from ..._core.engine import READ, WRITE, compiled, supply
from ..._core.participants import Participant, participate
from ..._core.repeated import repeated_in
from ..._core.thread import VirtualThread
from ..._sync.locks import Lock
from ..net.readiness import forget_fd, park_for_fd, park_for_owned, refuse_inside_scheduler, wait_blocking
from .kinds import Kind, fstat, kind_of
from .reading import HERE, read_at, read_now, rest_in_cache
from .writing import write_some, write_whole

__all__ = ["ON_A_DISK", "File", "OriginalFileIO", "as_original", "buffer_method", "named_as_original"]

ON_A_DISK = (Kind.DISK, Kind.MEMORY)
# Bytes that a single wait should make available.
SIZE_OF_PIECE = 1 << 18

# `super()` would take twice as long.
init_file, close_file = OriginalFileIO.__init__, OriginalFileIO.close

# The code objects of buffer methods; a raw file compares its caller with them.
_buffer_methods: set[CodeType] = set()


def buffer_method(function: Any) -> Any:
    """Decorator: raw files that `function` calls through C code return None instead of waiting."""
    _buffer_methods.add(function.__code__)
    return function


@compiled
def _called_by_a_buffer(_: File) -> bool:
    # C code has no frame. So the frame above this function and the calling method is the Python code that called C.
    # There is none if the method itself was spawned.
    caller = sys._getframe(1).f_back
    return caller is not None and caller.f_code in _buffer_methods


def as_original(file: Any, text: str) -> str:
    """Return the repr of `file` with the module name of the original, which the repr of a subclass lacks."""
    return text.replace(f"<{type(file).__name__} ", f"<_io.{type(file).__name__} ", 1)


def named_as_original(cls: Any) -> Any:
    """Class decorator: give `cls` the name of the class that it extends, because programs show and compare it."""
    cls.__name__ = cls.__qualname__ = cls.__base__.__name__
    cls.__module__ = cls.__base__.__module__
    return cls


def _can_be_filled(buffer: Any) -> bool:
    try:
        view = memoryview(buffer)
    except TypeError:
        return False
    return view.c_contiguous and not view.readonly


def _checked_size(size: Any) -> int:
    if size is None:
        return -1
    try:
        return index(size)
    except TypeError:
        raise TypeError(f"argument should be integer or None, not {type(size).__name__!r}") from None


_waited_for: set[File] = set()


def _forget_waiters() -> None:
    """Reset the waiting state in the child of a fork: the threads that waited do not exist there."""
    for file in _waited_for:
        file.busy, file._lock = False, None
    _waited_for.clear()


participate(__name__, Participant(forked=_forget_waiters))


@named_as_original
class File(OriginalFileIO):
    """The object that `open(…, buffering=0)` returns, and the raw file below a buffer otherwise.

    Attributes:
        kind: how to wait for the file.
        busy: a thread waits for the buffer, so others must queue.
        starved: the last result for a buffer meant "no data yet", and not that the file is in non-blocking mode.
        unread: data that were read and given back; the next read returns them first.
    """

    kind: Kind
    _finalizing: bool  # of the C class
    starved = False
    unread = b""
    # Results of the last wait for a buffer: the bytes that are now in the page cache; whether a checkpoint was made.
    _warm = 0
    _checked = False
    # Whether it was starved only because a checkpoint was due.
    _was_due = False
    # The number of reads into the buffer that did not starve.
    _arrivals = 0
    # Whether a thread waits for the buffer, and the lock that allows only one.
    busy = False
    _lock: Lock | None = None

    @repeated_in("_calls/files/compiled/opening.pxi")
    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        init_file(self, file, mode, closefd, opener)
        self.kind = kind_of(self.fileno())

    def __repr__(self) -> str:
        return as_original(self, super().__repr__())

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    @property
    def waits(self) -> bool:
        """Whether its reads and writes wait. False in non-blocking mode, which files on a disk ignore."""
        return self.kind in ON_A_DISK or os.get_blocking(self.fileno())

    # --- reading

    def readinto(self, buffer: Any, /) -> int | None:  # None, as in non-blocking mode
        thread = running()
        if _called_by_a_buffer(self):
            return self._read_at_once(thread, buffer)
        # The original raises the error for a wrong buffer, before it reads: nothing that was read is lost.
        if self._reads_like_original(thread) or not _can_be_filled(buffer):
            return super().readinto(buffer)
        piece = self.next_piece(thread, memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(piece)] = piece
        return len(piece)

    def read(self, size: int | None = -1, /) -> bytes:
        thread = running()
        size = _checked_size(size)
        if size < 0:
            return self.readall()
        if self._reads_like_original(thread):
            return super().read(size)
        return self.next_piece(thread, size)

    @compiled
    def readall(self) -> bytes:
        thread = running()
        if _called_by_a_buffer(self):
            return self._read_all_at_once(thread)  # type: ignore[return-value]  # None, as in non-blocking mode
        if self._reads_like_original(thread):
            return super().readall()
        pieces = []
        try:
            while piece := self.next_piece(thread, self._bytes_left() + 1):
                pieces.append(piece)
        except BaseException:
            # The caller gets none of the pieces, and a pipe returns no data twice: keep them for the next read.
            self._give_back(b"".join(pieces))
            raise
        return b"".join(pieces)

    def _reads_like_original(self, thread: VirtualThread | None) -> bool:
        if thread is None and not self.unread and self.readable():
            refuse_inside_scheduler(self.fileno(), READ)
        return thread is None and not self.unread or not self.readable() or not self.waits

    def next_piece(self, thread: VirtualThread | None, size: int) -> bytes:
        """Return up to `size` bytes; wait until there are some. Empty at the end of the file. A checkpoint."""
        if thread is not None:
            thread._check()
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

    def _bytes_left(self) -> int:
        """Return the number of bytes that are probably left."""
        if self.kind not in ON_A_DISK:
            return io.DEFAULT_BUFFER_SIZE
        fd = self.fileno()
        return max(fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR), 0)

    # --- called by buffers; only `wait_for_more` and `wait_writable` park

    def _read_at_once(self, thread: VirtualThread | None, buffer: Any) -> int | None:
        if self.unread and not self._is_due(thread):
            self.starved = False
            piece = self.unread[: len(buffer)]
            self.unread = self.unread[len(piece) :]
            buffer[: len(piece)] = piece
            self._arrivals += 1
            return len(piece)
        if thread is None and self.kind in ON_A_DISK:
            self.starved = False
            return super().readinto(buffer)
        if self._warm:
            warm, self._warm, self.starved = self._warm, 0, False
            self._arrivals += 1
            return super().readinto(buffer[:warm])
        count = None if self._is_due(thread) else read_now(self.fileno(), [buffer], self.kind)
        self.starved = count is None and self.waits
        self._arrivals += count is not None
        return count

    def _read_all_at_once(self, thread: VirtualThread | None) -> bytes | None:
        """Return the available rest of the file; that is the whole rest, unless the file is starved afterwards."""
        if thread is None and self.kind in ON_A_DISK:
            self.starved = False
            return super().readall()
        if self.kind not in ON_A_DISK:
            # The data may be many and arrive slowly, so read one piece and report that more may follow.
            piece = bytearray(SIZE_OF_PIECE)
            count = self._read_at_once(thread, memoryview(piece))
            if count and self.waits:
                self.starved = self._was_due = True
            return bytes(memoryview(piece)[:count]) if count is not None else None
        if (whole := self._read_rest_at_once(thread)) is not None:
            return whole
        # Read into the buffer of the result, so that nothing is copied.
        collected = io.BytesIO()
        size, end = self._bytes_left(), 0
        while True:
            collected.seek(end + size)
            collected.write(b"\0")
            with collected.getbuffer() as view:
                count = self._read_at_once(thread, view[end:])
            if not count:
                break
            end += count
            size = self._bytes_left()
        collected.truncate(end)
        return collected.getvalue()

    @compiled
    def _read_rest_at_once(self, thread: VirtualThread | None) -> bytes | None:
        """Return the rest of the file if it takes no wait and no checkpoint is due; else None, and nothing changes."""
        checked = self._checked
        if self.kind is Kind.DISK and not self._warm and not self._is_due(thread):
            whole = rest_in_cache(self.fileno())
            if whole is not None:
                self.starved = False
                self._arrivals += 1
                return whole
        self._checked = checked
        return None

    @block
    def turn(self) -> Iterator[None]:
        """Make this thread the only one that waits for the buffer. A checkpoint, if another one waits."""
        self._lock = self._lock or Lock()
        before = self._arrivals
        with self._lock:
            if self._arrivals != before:
                # Meanwhile another thread has read, and may have left data in the buffer: check it before a wait.
                self._was_due = True
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
            # The OS thread loads the data into the page cache. The buffer then reads them again, in place.
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
        """Run the checkpoint before a wait; return True if the buffer stopped only for the checkpoint."""
        if thread is not None:
            thread._check()
        # Let the next call of the buffer read, instead of stopping for a checkpoint again.
        self._checked = True
        was_due, self._was_due = self._was_due, False
        return was_due

    @repeated_in("_calls/files/compiled/raw.pxi")
    def _is_due(self, thread: VirtualThread | None) -> bool:
        """Return whether a buffer must stop for a checkpoint or for its turn, except directly after a wait."""
        if self._checked:
            self._checked = False
            return False
        self._was_due = self.busy or (
            thread is not None and (thread._pending or thread._scheduler.clock.now() >= thread._scheduler.slice_end)
        )
        # In non-blocking mode there are no checkpoints.
        return self._was_due and self.waits

    # --- writing

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]  # None, as in non-blocking mode
        thread = running()
        if _called_by_a_buffer(self) and self.kind not in ON_A_DISK:
            count = None if self._is_due(thread) else write_some(self.fileno(), data, self.kind)
            self.starved = count is None and self.waits
            return count
        if thread is None and self.writable():
            refuse_inside_scheduler(self.fileno(), WRITE)
        if thread is None or self.kind in ON_A_DISK or not self.writable() or not self.waits:
            return super().write(data)
        with memoryview(data) as view, view.cast("B") as left:
            return write_whole(thread, self.fileno(), left)

    # --- waiting and closing

    def _park(self, thread: VirtualThread, direction: int) -> None:
        # Only the owner of a descriptor may register it as its own: a file with closefd=False may be one of several.
        if self.closefd:
            park_for_owned(thread, self.fileno(), direction, weakref.ref(self), None)
        else:
            park_for_fd(thread, self.fileno(), direction)
        thread._check()

    @compiled
    def close(self) -> None:
        try:
            if self._finalizing and not self.closed and self.closefd:
                # Warn here, so that the stack level names the same line as the original's warning would.
                self._finalizing = False
                warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
        finally:
            if not self.closed and self.closefd:
                forget_fd(self.fileno())
            close_file(self)


supply(__name__, file_class=File, forget=forget_fd)
