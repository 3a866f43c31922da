"""What happens to the virtual threads of one carrier, as numbers: the part of a recording that has to be fast.

Each event is a few numbers in an array, which is written to a file when it is full, so that a long recording
takes no memory. Where there is a C compiler this module is compiled, with the types in `event_log.pxd`.
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

# The last one is not of a thread: in the place of its ident stands how many waits for descriptors there were.
PARKED, READIED, RUNS, ENDED, COUNTED = KINDS = range(5)

# Numbers of 8 bytes that are kept in memory before they are written.
BLOCK = 16_384

# All code of this package: cheaper to ask of a frame than the name of its module.
OWN_FILES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
WATCHING = os.path.join(os.path.dirname(__file__), "")


class EventLog:
    """The time of each event, and ident and kind in one number; of a park also its place.

    Args:
        scheduler: of the carrier.
        fd: of the file.
    """

    def __init__(self, scheduler: Scheduler, fd: int) -> None:
        self.fd = fd
        # The names of the places where threads park, by their numbers: the call that waits, and the line outside of
        # this package that made it.
        self.places: list[tuple[str, str]] = []
        self._now = scheduler.clock.now
        self._descriptors = scheduler.descriptors
        self._numbers = array("d", bytes(8 * BLOCK))
        self._count = 0
        # Where the next event might have no room.
        self._full = BLOCK - 3
        # The time of the last event, who runs, and whether nobody does and that time is when a poll returned.
        self._at = self._now()
        self._running = scheduler.running
        self._is_polled = False
        self._places: dict[Any, int] = {}
        # Places are told apart by the address of their code, which must not be given out again.
        self._codes: list[CodeType | None] = []
        # The last place, told without a key: the threads of a server mostly wait for the same.
        self._last_here = self._last_call = 0
        self._last_place = -1
        # How many frames of this package stood above the user's when a thread parked last.
        self._depth = 0

    # --- told by the scheduler

    def parked(self, thread: Any) -> None:
        place = self._place_of(thread)
        self._at = thread.parked_at
        self._running = None
        self._is_polled = False
        self._add(thread.thread_ident, 0)
        self._numbers[self._count] = place
        self._count += 1

    def readied(self, thread: Any) -> None:
        # Those that one poll unparks become ready at one time.
        if not self._is_polled:
            self._at = self._now()
            if self._running is thread:
                self._running = None
            self._is_polled = self._running is None
            if self._is_polled:
                # Those that the poll has found still count.
                self._add(self._descriptors.waiting, 4)
        self._add(thread.thread_ident, 1)

    def runs(self, thread: Any) -> None:
        # Whoever was queued runs as soon as the one before parks, or the poll returns. Not so a thread that is spawned,
        # nor that of a signal handler.
        if self._running is not None or thread._greenlet is None:
            self._at = self._now()
        self._running = thread
        self._is_polled = False
        self._add(thread.thread_ident, 2)

    def ended(self, thread: Any) -> None:
        self._at = self._now()
        self._running = None
        self._is_polled = False
        self._add(thread.thread_ident, 3)

    def _add(self, ident: int, kind: int) -> None:
        if self._count > self._full:
            self.write()
        self._numbers[self._count] = self._at
        self._numbers[self._count + 1] = ident * 5 + kind
        self._count += 2

    def write(self) -> None:
        """Let the file have what is kept in memory."""
        write_all(self.fd, memoryview(self._numbers)[: self._count])
        self._count = 0

    # --- where a thread parks

    def _place_of(self, thread: Any) -> int:
        """The number of the place where the running `thread` parks."""
        # Most often as deep as the last one.
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
        # Where this is not compiled, the function that asked has a frame as well.
        self._depth = -1 if frame is not None and frame.f_code.co_name == "_innermost" else 0
        while frame is not None and frame.f_code.co_filename.startswith(OWN_FILES):
            # Neither says what is waited for: the function of the root, and several observers of one carrier.
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
        what = call.f_code.co_qualname if call else thread.waits_for[0] if thread.waits_for else "park"
        return self._add_place(key, what, str(SpawnSite(frame.f_code, frame.f_lasti)))

    def _place_inside(self, thread: Any) -> int:
        """The place of a thread whose function is one of this package's own: `sleep`, for example."""
        frame = _innermost()
        what = thread.waits_for[0] if thread.waits_for else "park"
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
    """The frame that asks; None in a thread that only runs compiled code."""
    try:
        return _getframe(0)
    except ValueError:
        return None


def _number(frame: FrameType | None) -> int:
    return 0 if frame is None else instruction_number(frame.f_code, frame.f_lasti)


def write_all(fd: int, content: Any) -> None:
    """Write the bytes of `content`, in as many calls as it takes."""
    left = memoryview(content).cast("B")
    while left:
        left = left[write_fd(fd, left) :]
