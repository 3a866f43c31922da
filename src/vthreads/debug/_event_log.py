"""Record the events of the virtual threads of one carrier as numbers: the part of a recording that must be fast.

Each event is a few numbers in an array, which is written to a file when it is full, so a long recording does not use
more memory. If there is a C compiler, this module is compiled, with the types in `_event_log.pxd`.
"""

from __future__ import annotations

import os
from array import array
from sys import _getframe
from typing import TYPE_CHECKING, Any

from .._core.current import instruction_here, instruction_number
from .._core.deadlock import HOW_IT_WAITS
from .._core.originals import write_fd
from .._core.runtime import run
from .._core.spawn_site import SpawnSite

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from .._core.engine import Scheduler

__all__ = ["COUNTED", "ENDED", "KINDS", "PARKED", "READIED", "RUNS", "EventLog", "write_all"]

# A COUNTED event has no thread: instead of an ident it has the number of waits for descriptors.
PARKED, READIED, RUNS, ENDED, COUNTED = KINDS = range(5)

# Size of the buffer, in numbers of 8 bytes.
BLOCK = 16_384

# Folder of this package: comparing the file of a frame is cheaper than reading the name of its module.
OWN_FILES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
WATCHING = os.path.join(os.path.dirname(__file__), "")


class EventLog:
    """Records the time of each event, and its ident and kind in one number; for a park also its place.

    Args:
        scheduler: of the carrier.
        fd: descriptor of the file.
    """

    def __init__(self, scheduler: Scheduler, fd: int) -> None:
        self.fd = fd
        # The places where threads park, by their numbers: the name of the call that waits, and the line outside this
        # package that made the call.
        self.places: list[tuple[str, str]] = []
        self._now = scheduler.clock.now
        self._descriptors = scheduler.descriptors
        self._numbers = array("d", bytes(8 * BLOCK))
        self._count = 0
        # Count above which the next event might not fit.
        self._full = BLOCK - 3
        # The time of the last event; the running thread; whether no thread runs and that time is the end of a poll.
        self._at = self._now()
        self._running = scheduler.running
        self._is_polled = False
        self._places: dict[Any, int] = {}
        # Keep the code of all places alive: a place is identified by the address of its code, which must not be reused.
        self._codes: list[CodeType | None] = []
        # The last place, compared without a key: most threads of a server park at the same place.
        self._last_here = self._last_call = 0
        self._last_place = -1
        # How many frames of this package were above the user's frame at the last park.
        self._depth = 0

    # --- called by the scheduler

    def parked(self, thread: Any) -> None:
        place = self._place_of(thread)
        self._at = thread._parked_at
        self._running = None
        self._is_polled = False
        self._add(thread._thread_ident, 0)
        self._numbers[self._count] = place
        self._count += 1

    def readied(self, thread: Any) -> None:
        # All threads that one poll unparks become ready at the same time, so read the clock once.
        if not self._is_polled:
            self._at = self._now()
            if self._running is thread:
                self._running = None
            self._is_polled = self._running is None
            if self._is_polled:
                # The waits that the poll has ended are still included.
                self._add(self._descriptors.waiting, 4)
        self._add(thread._thread_ident, 1)

    def runs(self, thread: Any) -> None:
        # A queued thread starts when the previous one parks or the poll returns, so that time is known. A spawned
        # thread, and the thread of a signal handler, start in between.
        if self._running is not None or thread._greenlet is None:
            self._at = self._now()
        self._running = thread
        self._is_polled = False
        self._add(thread._thread_ident, 2)

    def ended(self, thread: Any) -> None:
        self._at = self._now()
        self._running = None
        self._is_polled = False
        self._add(thread._thread_ident, 3)

    def _add(self, ident: int, kind: int) -> None:
        if self._count > self._full:
            self.write()
        self._numbers[self._count] = self._at
        self._numbers[self._count + 1] = ident * 5 + kind
        self._count += 2

    def write(self) -> None:
        """Write the buffer to the file."""
        write_all(self.fd, memoryview(self._numbers)[: self._count])
        self._count = 0

    # --- where a thread parks

    def _place_of(self, thread: Any) -> int:
        """Return the number of the place where the running `thread` parks."""
        # Most parks have the same depth as the last one, so try that first.
        here = instruction_here(self._depth)
        call = instruction_here(self._depth - 1) if self._depth else 0
        if here and here == self._last_here and call == self._last_call:
            return self._last_place
        place = self._places.get((call, here))
        if place is None:
            return self._find_place(thread, _innermost())
        self._last_here, self._last_call, self._last_place = here, call, place
        return place

    def _find_place(self, thread: Any, innermost: FrameType | None) -> int:
        call: FrameType | None = None
        frame: FrameType | None = innermost
        # If this module is not compiled, the calling function has a frame too.
        self._depth = -1 if frame is not None and frame.f_code.co_name == "_innermost" else 0
        while frame is not None and frame.f_code.co_filename.startswith(OWN_FILES):
            # Skip two kinds of frames that do not show what the thread waits for: the root's function, and observers.
            if frame.f_code is not run.__code__ and not frame.f_code.co_filename.startswith(WATCHING):
                call = frame
            frame = frame.f_back
            self._depth += 1
        if frame is None:
            return self._place_inside(thread)
        key = _number(call), _number(frame)
        if key in self._places:
            return self._places[key]
        self._codes += None if call is None else call.f_code, frame.f_code
        what = call.f_code.co_qualname if call else thread._waits_for[0] if thread._waits_for else "park"
        return self._add_place(key, what, str(SpawnSite(frame.f_code, frame.f_lasti)))

    def _place_inside(self, thread: Any) -> int:
        """Return the place of a thread whose function belongs to this package: `sleep`, for example."""
        frame = _innermost()
        what = thread._waits_for[0] if thread._waits_for else "park"
        while frame is not None:
            if frame.f_globals["__name__"] not in HOW_IT_WAITS and frame.f_code.co_filename != __file__:
                what = frame.f_code.co_qualname
            frame = frame.f_back
        return self._places[what] if what in self._places else self._add_place(what, what, "")

    def _add_place(self, key: Any, what: str, line: str) -> int:
        self._places[key] = len(self.places)
        self.places.append((what, line))
        return self._places[key]


def _innermost() -> FrameType | None:
    """Return the frame of the caller; None in a thread that runs only compiled code."""
    try:
        return _getframe(0)
    except ValueError:
        return None


def _number(frame: FrameType | None) -> int:
    return 0 if frame is None else instruction_number(frame.f_code, frame.f_lasti)


def write_all(fd: int, content: Any) -> None:
    """Write all bytes of `content`, in as many calls as necessary."""
    left = memoryview(content).cast("B")
    while left:
        left = left[write_fd(fd, left) :]
