"""The access log: a line for each request, written by an OS thread. It does not depend on HTTP or on the scheduler.

A request only appends its line to a bounded queue. If the reader of the log (a pipe, a disk) is too slow, the queue is
full and lines are dropped and counted: a log never slows requests.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import IO

from .._core.originals import allocate_lock, get_ident, sleep
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread
from ._log_lines import FORMATS

__all__ = ["AccessLog"]

MOST_WAITING = 10_000
# Lines between two calls that release the GIL, for which the carrier waits meanwhile.
AT_ONCE = 1_000
BETWEEN_WRITES = 0.1


class AccessLog:
    """Writes lines to `stream`.

    Args:
        stream: a text stream.
        format: a key of `FORMATS`.
        owns_stream: close it at the end. Otherwise the caller closes it after `close`.

    Attributes:
        lines: makes the lines.
        dropped: lines that found no room, or that the stream refused.
    """

    def __init__(self, stream: IO[str], format: str, *, owns_stream: bool = False) -> None:
        self._stream = stream
        self._owns_stream = owns_stream
        self.lines = FORMATS[format]()
        self._waiting: deque[str] = deque()
        self._is_closing = False
        self.dropped = 0
        # Released at the end of the OS thread.
        self._has_ended = allocate_lock()
        self._has_ended.acquire()
        start_own_os_thread(self._run)

    def add(self, line: str) -> None:
        """Add a line, or drop and count it. Not a checkpoint, and never waits."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
        else:
            self._waiting.append(line)

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, within `seconds`. Blocks the OS thread."""
        self._is_closing = True
        self._has_ended.acquire(timeout=seconds)

    def _run(self) -> None:
        # A carrier would assume that an unknown OS thread may unpark its threads.
        own_os_threads.add(get_ident())
        try:
            while True:
                is_last = self._is_closing
                while self._waiting:
                    self._write()
                if is_last:
                    return
                sleep(BETWEEN_WRITES)
        finally:
            if self._owns_stream:
                # The disk may still be full: `close` writes what an earlier failure has left.
                with suppress(OSError):
                    self._stream.close()
            own_os_threads.discard(get_ident())
            self._has_ended.release()

    def _write(self) -> None:
        lines = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            # The stream is closed or its disk is full. A failure must not end the log: the disk may have room later.
            self.dropped += len(lines)
