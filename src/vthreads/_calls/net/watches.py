"""A wait for a socket that needs no thread: the scheduler calls a function when data, an end or an error has arrived.

For servers with thousands of connections on which nothing happens. The function is called inside the scheduler, so it
must not wait and must not raise. One event is reported for each `arm`.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from math import inf
from typing import Any

from ..._core.engine import CLOSED, READ, Descriptor, Scheduler, compiled

__all__ = ["Watch"]


@compiled
class Watch:
    """The watch of `sock`, used on the carrier that creates it.

    Args:
        sock: a socket that this carrier reads.
        scheduler: that of the carrier.
        call: called without arguments when `sock` may be readable, has ended or failed; not after `sock` was closed.

    Attributes:
        arrived_at: the scheduler's time of the event; `inf` before it, from `arm` on.
    """

    __slots__ = ("_call", "_entry", "_is_quiet", "_scheduler", "_sock", "arrived_at")

    def __init__(self, sock: socket.socket, scheduler: Scheduler, call: Callable[[], object]) -> None:
        self._sock = sock
        self._call = call
        self._scheduler = scheduler
        self._entry: Descriptor | None = None
        self._is_quiet = False
        self.arrived_at = inf

    def arm(self, quiet: bool = False) -> bool:
        """Report the next event; return False if the peer has ended already, so that no further event may come.

        A watch that is armed stays so. Not a checkpoint.

        Args:
            quiet: store the time of the event, and do not call the function.
        """
        self.arrived_at = inf
        self._is_quiet = quiet
        if self._entry is None:
            descriptors = self._scheduler.descriptors
            entry = descriptors.claim(self._sock.fileno(), weakref.ref(self._sock))
            if entry.hung_up:
                return False
            descriptors.enlist(entry, READ, self, by_number=False)
            self._entry = entry
        return True

    def arm_for_data(self) -> bool:
        """Like `arm`, for a caller whose wait for data has just ended without any; return False if it must try again.

        Data that arrived after that wait have caused their event already.
        """
        if not self.arm():
            return False
        assert self._entry is not None
        return not self._entry.readable

    def disarm(self) -> None:
        """Report no event any more. Not a checkpoint."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._scheduler.descriptors.withdraw(entry, READ, self)

    def _unpark(self, value: Any) -> bool:
        """Handle an event (called by the scheduler)."""
        self.disarm()
        if value is not CLOSED:
            # `vthreads.now` is the clock of a thread, and none runs here.
            self.arrived_at = self._scheduler.clock.now()
            if not self._is_quiet:
                self._call()
        return True
