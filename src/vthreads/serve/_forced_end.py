"""The forced end of a process: at a fixed time after the stop, whatever its handlers do.

    RUNNING ──stop──> drain_delay + drain + 5 s ──handlers cancelled──> 5 s ──1 s──> stacks on stderr, exit
            └──Ctrl-C, failure─────────────────────────────────────────> 5 s ──1 s──┘

The exit status is that of an end in order, because the stop was: 0 after SIGTERM, 130 after Ctrl-C. After a failure, as
of the application at its import, it is that of the failure. An OS thread exits.
A handler that holds the GIL, in C code, stops that thread as well; 2 s later the watchdog of faulthandler, which needs
no GIL, ends the process with status 1.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf

from .._core.originals import get_ident, sleep, write_fd
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread
from ._outputs import nonblocking_duplicate

__all__ = ["INTERRUPTED", "ForcedEnd"]

# The exit status after Ctrl-C, the same as that of a shell.
INTERRUPTED = 128 + signal.SIGINT
# Seconds beyond the last grace of cancelled handlers.
SLACK = 1.0
WITHOUT_GIL_AFTER = 2.0
BETWEEN_CHECKS = 0.1


class ForcedEnd:
    """Ends the process if it does not end by itself.

    Args:
        before: called before, on an OS thread, for what must be written to the end; None: nothing.
    """

    def __init__(self, before: Callable[[], object] | None = None) -> None:
        self._before = before
        self._at = inf
        self._status = 0
        self._is_waiting = False
        # A write to a full pipe would wait for its reader, and the process would not end. Open the duplicate
        # now: opening may wait, and a handler of a signal may call `within`.
        self._stderr = nonblocking_duplicate(2) or 2

    def within(self, seconds: float) -> None:
        """End the process in `seconds` and the slack. A later call replaces the time. May be called by a handler."""
        if not seconds < threading.TIMEOUT_MAX:
            return
        self._at = time.monotonic() + seconds + SLACK
        faulthandler.dump_traceback_later(seconds + SLACK + WITHOUT_GIL_AFTER, exit=True, file=self._stderr)
        if not self._is_waiting:
            self._is_waiting = True
            start_own_os_thread(self._wait)

    def with_status(self, status: int, seconds: float) -> None:
        """Like `within`, with an exit status; the end comes no later than an earlier call has said."""
        self._status = status
        self.within(min(seconds, max(self._at - time.monotonic() - SLACK, 0.0)))

    def _wait(self) -> None:
        own_os_threads.add(get_ident())
        try:
            while (left := self._at - time.monotonic()) > 0:
                sleep(min(left, BETWEEN_CHECKS))
            self._exit()
        finally:
            own_os_threads.discard(get_ident())

    def _exit(self) -> None:
        if self._before is not None:
            self._before()
        # By descriptor, because the handler may hold the lock of `sys.stderr`.
        with suppress(OSError):
            write_fd(
                self._stderr,
                b"the process ends now: a handler or another thread has not ended; stacks of all OS threads:\n",
            )
        faulthandler.dump_traceback(all_threads=True, file=self._stderr)
        os._exit(self._status)
