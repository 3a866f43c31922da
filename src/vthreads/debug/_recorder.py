"""Record what the virtual threads of one carrier do, to be read later.

This module does not depend on how a recording is shown.
"""

from __future__ import annotations

import io
import marshal
import os
import tempfile
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

from .._core.deadlock import threads_on
from .._core.engine import Scheduler, State
from .._core.originals import close_fd
from .._core.spawn_site import SpawnSite
from ._event_log import COUNTED, ENDED, KINDS, PARKED, READIED, RUNS, EventLog, write_all

__all__ = ["COUNTED", "ENDED", "PARKED", "READIED", "RUNS", "Event", "Recorder", "Track"]

# How many numbers an event of each kind has: see `EventLog`.
LENGTHS = (3, 2, 2, 2, 2)


class Event(NamedTuple):
    """An event of a thread. Only parks have a `place`. In a COUNTED event `ident` is the count."""

    time: float
    kind: int
    ident: int
    place: int = -1


class Track(NamedTuple):
    """The data of a thread besides its events."""

    ident: int
    name: str
    group: str | None
    spawned_at: str | None


class Recorder(EventLog):
    """The observer of one carrier. After `close()` it can be read once.

    Args:
        scheduler: of the carrier.
        directory: for the temporary files, which have no name there.
    """

    def __init__(self, scheduler: Scheduler, directory: str) -> None:
        super().__init__(scheduler, _unnamed_file(directory))
        self.carrier = scheduler.root.name
        self.clock = scheduler.clock
        # The states of the threads that exist already.
        self.at_first: list[tuple[int, State]] = [
            (thread._thread_ident, thread.state) for thread in threads_on(scheduler)
        ]
        self.began_at = self.ended_at = self.clock.now()
        self._scheduler = scheduler
        self._tracks: list[tuple[int, str, str | None, str | None]] = []
        self._tracks_fd = _unnamed_file(directory)
        self._lines: dict[tuple[int, int], tuple[SpawnSite, str]] = {}

    def ended(self, thread: Any) -> None:
        # The name does not change any more. Add the track before the event, because the reader takes it at the event.
        self._add_track(thread)
        super().ended(thread)

    def close(self) -> None:
        self.ended_at = self.clock.now()
        for thread in threads_on(self._scheduler):
            self._add_track(thread)
        self.write()

    def write(self) -> None:
        super().write()
        write_all(self._tracks_fd, marshal.dumps(self._tracks))
        self._tracks.clear()

    def _add_track(self, thread: Any) -> None:
        group = thread.group
        spawned_at = self._line_of(thread._sites[0]) if thread._sites else None
        self._tracks.append((thread._thread_ident, thread.name, group and group.name, spawned_at))

    def _line_of(self, site: SpawnSite) -> str:
        known = self._lines.get(site.key)
        if known is None:
            # Store the site too: its key is valid only as long as it lives.
            known = self._lines[site.key] = site, str(site)
        return known[1]

    # --- reading after the end

    def read_tracks(self) -> Iterator[Track]:
        """Yield every recorded thread, ended ones first."""
        with _reader(self._tracks_fd) as file:
            while file.peek(1):
                for track in marshal.load(file):
                    yield Track(*track)

    def read_events(self) -> Iterator[Event]:
        """Yield every event in the order of time."""
        with _reader(self.fd) as file:
            while header := file.read(16):
                time, key = array("d", header)
                ident, kind = divmod(int(key), len(KINDS))
                if LENGTHS[kind] == 2:
                    yield Event(time, kind, ident)
                else:
                    yield Event(time, kind, ident, int(array("d", file.read(8))[0]))

    def discard(self) -> None:
        """Drop the recording without reading it."""
        close_fd(self.fd)
        close_fd(self._tracks_fd)


def _unnamed_file(directory: str) -> int:
    """Return a descriptor, not a file object: a file object would be one of the patched ones, which may park."""
    fd, path = tempfile.mkstemp(prefix=".vthreads-trace-", dir=directory)
    os.unlink(path)
    return fd


def _reader(fd: int) -> io.BufferedReader:
    os.lseek(fd, 0, os.SEEK_SET)
    return io.BufferedReader(io.FileIO(fd, "rb"), 1 << 20)
