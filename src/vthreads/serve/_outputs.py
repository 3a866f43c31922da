"""Standard streams whose writes never wait for a reader: for a server, of which a log must not stop the carrier.

A pipe whose reader does not read is full after 64 KiB, and a write to it then blocks the OS thread with all its virtual
threads. Here such data wait in memory, up to a limit; above it whole writes are dropped, and their number is written
later. The waiting data are written by the next `write` or `flush`. Only pipes and sockets need this: files and
terminals accept data at once.
"""

from __future__ import annotations

import _socket
import io
import logging
import os
import select
import socket
import stat
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .._core.originals import allocate_lock, close_fd, poll, sleep, write_fd

__all__ = [
    "finish_outputs",
    "flush_outputs",
    "non_blocking_outputs",
    "nonblocking_duplicate",
    "open_missing_outputs",
    "write_notice",
]

MOST_WAITING = 1 << 20
# POSIX: a pipe that is writable has room for so much.
AT_ONCE = min(select.PIPE_BUF, 4096)
BETWEEN_TRIES = 0.02


@contextmanager
def non_blocking_outputs() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` during the block if their writes could wait, and in handlers of logging."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(non_blocking, before)
    for old, new in zip(before, (sys.stdout, sys.stderr), strict=True):
        if new is not old:
            _redirect_handlers(old, new)
    try:
        yield
    finally:
        # Not closed: handlers of `logging` may refer to them, and write at the exit of the process.
        finish_outputs()
        sys.stdout, sys.stderr = map(_unless_it_fails, before)


def _unless_it_fails(stream: Any) -> Any:
    """Return `stream`, or None if it cannot be flushed, as on a full disk.

    Python flushes the standard streams at exit, and a failure would replace the exit status by 120.
    """
    try:
        stream.flush()
    except OSError:
        return None
    return stream


def open_missing_outputs() -> None:
    """Open the null device for the standard streams that this process was started without.

    Otherwise connections would get their descriptors, and faulthandler would write its stacks to a client.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The system gives the lowest number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Like those of the interpreter, they are never closed.
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)


def write_notice(text: str) -> None:
    """Write a line to stderr if that is possible: a full disk must not end a server. Not a checkpoint."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _redirect_handlers(old: Any, new: Any) -> None:
    """Make the handlers of logging that write to `old` write to `new`, also after the block: they may write then."""
    # The dict also has placeholders, without handlers, for names between those of loggers.
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


def flush_outputs() -> None:
    """Write what waits in the standard streams as far as it can be written now. Not a checkpoint."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()


def finish_outputs(seconds: float = 0.5) -> None:
    """Write what waits in the standard streams, within `seconds` each. Blocks the OS thread."""
    flush_outputs()
    for stream in (sys.stdout, sys.stderr):
        output = getattr(stream, "buffer", None)
        if isinstance(output, NonBlockingOutput):
            output.finish(seconds)


def non_blocking(stream: Any) -> Any:
    """Return a stream to the file of `stream` whose writes never wait, or `stream` itself if they do not anyway."""
    try:
        fd = stream.fileno()
        mode = os.fstat(fd).st_mode
    except (AttributeError, OSError, ValueError):
        return stream
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return stream
    stream.flush()
    output = NonBlockingOutput(fd)
    return io.TextIOWrapper(output, encoding=stream.encoding, errors="backslashreplace", write_through=True)


def nonblocking_duplicate(fd: int) -> int | None:
    """Return a descriptor for the pipe `fd` that is in non-blocking mode, or None if there can be none.

    The mode of `fd` itself belongs to other processes as well, for example to the shell. So open the pipe anew.
    """
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # Not Linux, or the pipe belongs to another user.
        pass
    return None


class NonBlockingOutput(io.RawIOBase):
    """The bytes side of such a stream: `write` accepts everything.

    Attributes:
        dropped: writes that found no room.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._private = nonblocking_duplicate(fd)
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        # The class of C code, because the methods of `socket.socket` would park.
        self._sock = _socket.socket(fileno=os.dup(fd)) if is_socket else None
        self.dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._unreported = 0
        self._writing = allocate_lock()

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def write(self, data: Any) -> int:
        """Write `data` now or later. Not a checkpoint; thread-safe."""
        copy = bytes(data)
        if self._pid != os.getpid():
            # A fork. The parent writes what waits itself.
            self._begin()
        if self._size + len(copy) > MOST_WAITING:
            self.dropped += 1
            self._unreported += 1
        else:
            self._size += len(copy)
            self._waiting.append(copy)
        self.flush()
        return len(copy)

    def flush(self) -> None:
        """Write what the reader has room for. Not a checkpoint; thread-safe."""
        # A signal handler may write while the lock is held, so nothing waits for it.
        is_blocked = self._pid != os.getpid()
        while self._waiting and not is_blocked and self._writing.acquire(False):
            try:
                is_blocked = not self._write_waiting()
            finally:
                self._writing.release()

    def close(self) -> None:
        """Drop what waits, and close what belongs to this stream, not the descriptor itself."""
        if self.closed:
            return
        super().close()
        if self._private is not None:
            close_fd(self._private)
        if self._sock is not None:
            self._sock.close()

    def finish(self, seconds: float) -> None:
        """Write what waits, within `seconds`. Blocks the OS thread."""
        while True:
            self.flush()
            if not self._waiting or seconds <= 0:
                return
            sleep(BETWEEN_TRIES)
            seconds -= BETWEEN_TRIES

    def _write_waiting(self) -> bool:
        """Write all that waits; return False if the reader has no room."""
        while self._waiting:
            data = self._waiting[0]
            try:
                written = self._write_some(data)
            except BlockingIOError:
                return False
            except OSError:
                # The reader has gone.
                written = len(data)
            self._size -= written
            if written < len(data):
                self._waiting[0] = data[written:]
            else:
                self._waiting.popleft()
                self._report_dropped()
        return True

    def _report_dropped(self) -> None:
        if self._unreported:
            line = b"vthreads: %d writes were dropped here, because nothing has read them\n" % self._unreported
            self._unreported = 0
            self._size += len(line)
            self._waiting.append(line)

    def _write_some(self, data: bytes) -> int:
        if self._sock is not None:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        if self._private is not None:
            return write_fd(self._private, data)
        query = poll()
        query.register(self._fd, select.POLLOUT)
        if not query.poll(0):
            raise BlockingIOError
        return write_fd(self._fd, data[:AT_ONCE])
