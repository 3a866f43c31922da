"""What the virtual threads of one carrier do, recorded as numbers: the fast half of a trace.

Each event is a few numbers in a list, which is packed and written to a temporary file now and then, so that a long
trace takes no memory. Nothing here knows how a trace is shown.
"""

from __future__ import annotations

import io
import marshal
import os
import tempfile
from array import array
from collections.abc import Iterator
from sys import _getframe
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .._core.deadlock import HOW_IT_WAITS, threads_below
from .._core.engine import Scheduler, State
from .._core.originals import close_fd, write_fd
from .._core.spawn_site import SpawnSite

__all__ = ["ENDED", "PARKED", "READIED", "RUNS", "Event", "Place", "Recorder", "Track"]

PARKED, READIED, RUNS, ENDED = KINDS = range(4)
# Numbers that make up an event: the time, and ident and kind in one. A park has its place as well, and how many
# descriptors are waited for.
LENGTHS = (4, 2, 2, 2)

# Numbers that are kept in memory before they are written: 32 bytes each there, and 8 in the file.
BLOCK = 65_536

# All code of this package: cheaper to ask of a frame than the name of its module.
OWN_FILES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


class Event(NamedTuple):
    """One thing that happened to a thread. `place` and `descriptors` are told of parks alone."""

    time: float
    kind: int
    ident: int
    place: int = -1
    descriptors: int = -1


class Place(NamedTuple):
    """Where threads park: the call that waits, and the line outside of this package that made it."""

    call: str
    line: str


class Track(NamedTuple):
    """What is known of a thread besides its events."""

    ident: int
    name: str
    group: str | None
    spawned_at: str | None


class Recorder:
    """The observer of one carrier. After `close()` it can be read, once.

    Args:
        scheduler: of the carrier.
        directory: where its temporary files are made; they have no name there.
    """

    def __init__(self, scheduler: Scheduler, directory: str) -> None:
        self.carrier = scheduler.root.name
        self.clock = type(scheduler.clock)
        # What the threads were doing that are there already.
        self.at_first: list[tuple[int, State]] = [
            (thread.thread_ident, thread.state) for thread in threads_below(scheduler)
        ]
        self.began_at = self.ended_at = scheduler.clock.now()
        self._scheduler = scheduler
        self._now = scheduler.clock.now
        self._descriptors = scheduler.descriptors
        self._numbers: list[float] = []
        self._extend = self._numbers.extend
        self._tracks: list[tuple[int, str, str | None, str | None]] = []
        self._places: dict[tuple[Any, ...], int] = {}
        self._named_places: list[Place] = []
        self._sites: dict[tuple[int, int], tuple[SpawnSite, str]] = {}
        # Places are told apart by the address of their code, so that must not be given out again.
        self._codes: list[CodeType | None] = []
        self._numbers_fd, self._tracks_fd = _unnamed_file(directory), _unnamed_file(directory)

    # --- told by the scheduler

    def parked(self, thread: Any) -> None:
        self._extend((thread.parked_at, thread.thread_ident * 4, self._place_of(thread), self._descriptors.waiting))

    def readied(self, thread: Any) -> None:
        self._extend((self._now(), thread.thread_ident * 4 + READIED))

    def runs(self, thread: Any) -> None:
        self._extend((self._now(), thread.thread_ident * 4 + RUNS))
        # Every other event is followed by one of these.
        if len(self._numbers) >= BLOCK:
            self._write()

    def ended(self, thread: Any) -> None:
        self._extend((self._now(), thread.thread_ident * 4 + ENDED))
        # Its name will not change any more.
        self._add_track(thread)

    def close(self) -> None:
        self.ended_at = self._now()
        for thread in threads_below(self._scheduler):
            self._add_track(thread)
        self._write()

    def _add_track(self, thread: Any) -> None:
        group = thread.group
        spawned_at = self._line_of(thread.sites[0]) if thread.sites else None
        self._tracks.append((thread.thread_ident, thread.name, group and group.name, spawned_at))

    def _write(self) -> None:
        _write_all(self._numbers_fd, memoryview(array("d", self._numbers)).cast("B"))
        self._numbers.clear()
        _write_all(self._tracks_fd, memoryview(marshal.dumps(self._tracks)))
        self._tracks.clear()

    # --- places

    def _line_of(self, site: SpawnSite) -> str:
        known = self._sites.get(site.key)
        if known is None:
            known = self._sites[site.key] = site, str(site)
        return known[1]

    def _place_of(self, thread: Any) -> int:
        """The number of the place where the running `thread` parks."""
        call: CodeType | None = None
        frame: FrameType | None = _getframe(2)
        while frame is not None:
            code = frame.f_code
            if not code.co_filename.startswith(OWN_FILES):
                key = id(call), id(code), frame.f_lasti
                place = self._places.get(key)
                return self._new_place(key, call, frame, thread) if place is None else place
            call = code
            frame = frame.f_back
        return self._place_inside()

    def _new_place(self, key: tuple[Any, ...], call: CodeType | None, frame: FrameType, thread: Any) -> int:
        self._codes += call, frame.f_code
        what = call.co_qualname if call is not None else thread.waits_for[0] if thread.waits_for else "park"
        return self._add_place(key, Place(what, self._line_of(SpawnSite(frame.f_code, frame.f_lasti))))

    def _place_inside(self) -> int:
        """The place of a thread whose function is one of this package's own: `sleep`, for example."""
        frame: FrameType | None = _getframe(3)
        what = "park"
        while frame is not None:
            if frame.f_globals["__name__"] not in HOW_IT_WAITS:
                what = frame.f_code.co_qualname
            frame = frame.f_back
        place = self._places.get((what,))
        return self._add_place((what,), Place(what, "")) if place is None else place

    def _add_place(self, key: tuple[Any, ...], place: Place) -> int:
        self._places[key] = len(self._named_places)
        self._named_places.append(place)
        return self._places[key]

    # --- reading, after the end

    @property
    def places(self) -> list[Place]:
        """By their numbers."""
        return self._named_places

    def read_tracks(self) -> Iterator[Track]:
        """Every thread that was there, ended ones first."""
        with _reader(self._tracks_fd) as file:
            while file.peek(1):
                for track in marshal.load(file):
                    yield Track(*track)

    def read_events(self) -> Iterator[Event]:
        """Every event in the order in which it happened."""
        with _reader(self._numbers_fd) as file:
            while header := file.read(16):
                time, key = array("d", header)
                ident, kind = divmod(int(key), len(KINDS))
                if LENGTHS[kind] == 2:
                    yield Event(time, kind, ident)
                else:
                    yield Event(time, kind, ident, *map(int, array("d", file.read(16))))

    def discard(self) -> None:
        """Drop what was recorded, unread."""
        close_fd(self._numbers_fd)
        close_fd(self._tracks_fd)


def _unnamed_file(directory: str) -> int:
    """A descriptor and not a file object: those are the runtime's own by now, and may park."""
    fd, path = tempfile.mkstemp(prefix=".vthreads-trace-", dir=directory)
    os.unlink(path)
    return fd


def _write_all(fd: int, content: memoryview) -> None:
    while content:
        content = content[write_fd(fd, content) :]


def _reader(fd: int) -> io.BufferedReader:
    os.lseek(fd, 0, os.SEEK_SET)
    return io.BufferedReader(io.FileIO(fd, "rb"), 1 << 20)
