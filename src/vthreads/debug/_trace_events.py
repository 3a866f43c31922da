"""Convert a recording to the Trace Event Format, the JSON that Perfetto and Chrome's tracing page read.

Each virtual thread has a track, and is always in one slice: running, spawning (its child runs first), parked or ready.
A mark at its end names its spawn site. Arrows point from a running thread to the threads that it spawned or unparked.
Curves show how many threads were ready, and how many waits for descriptors there were.

Memory use depends on the number of threads alive at the same time, not on those that have ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from .._core.engine import State
from .._core.idents import serial_number
from ._recorder import COUNTED, ENDED, PARKED, READIED, RUNS, Event, Recorder, Track

__all__ = ["render"]

# Smallest step of a curve, in nanoseconds: one point per switch would double the file.
CURVE_STEP = 100_000

# Names of slices, as JSON.
RUNNING, SPAWNING, READY = '"running"', '"spawning"', '"ready"'
AT_FIRST = {State.RUNNING: RUNNING, State.READY: READY, State.PARKED: '"parked"', State.NEW: '"queued"'}

# Idents of OS threads are larger than the numbers that the viewers accept for a thread.
LARGEST_TRACK = 2**31 - 1

Write = Callable[[str], object]


def render(recorders: list[Recorder], write: Write) -> None:
    """Write the recordings of all carriers as one JSON object."""
    pid = os.getpid()
    write('{"displayTimeUnit":"ns","traceEvents":[\n')
    write(_metadata(pid, 0, "process_name", {"name": "vthreads"}))
    began: dict[type, float] = {}
    for recorder in recorders:
        began[type(recorder.clock)] = min(recorder.began_at, began.get(type(recorder.clock), recorder.began_at))
    for number, recorder in enumerate(recorders):
        _Rendering(recorder, write, pid, began[type(recorder.clock)], LARGEST_TRACK - number).run()
    write("\n]}\n")


def _metadata(pid: int, tid: int, what: str, arguments: dict[str, str]) -> str:
    return json.dumps({"ph": "M", "pid": pid, "tid": tid, "name": what, "args": arguments})


class _Curve:
    """A number over time. Points within one step are merged."""

    def __init__(self, write: Write, pid: int, name: str, unit: str) -> None:
        self._write = write
        self._head = f',\n{{"ph":"C","pid":{pid},"name":{json.dumps(name)},"args":{{{json.dumps(unit)}:'
        self._at: int | None = None
        self._value = self._drawn = -1

    def set(self, at: int, value: int) -> None:
        if value == self._value:
            return
        if self._at is not None and at - self._at >= CURVE_STEP:
            self.draw()
        if self._at is None:
            self._at = at
        self._value = value

    def draw(self) -> None:
        """Write the pending point."""
        if self._at is not None and self._value != self._drawn:
            self._write(f'{self._head}{self._value}}},"ts":{self._at / 1000:.3f}}}')
            self._drawn = self._value
        self._at = None


class _Rendering:
    """The rendering of one carrier."""

    def __init__(self, recorder: Recorder, write: Write, pid: int, began_at: float, root_track: int) -> None:
        self._recorder = recorder
        self._write = write
        self._pid = pid
        self._began_at = began_at
        self._root_track = root_track
        self._tracks = recorder.read_tracks()
        # Time of the last event, in nanoseconds since the start of the first recording with this clock.
        self._now = first = self._nanoseconds(recorder.began_at)
        # The current slice of each living thread: its name and start.
        self._slices = {ident: (AT_FIRST[state], first) for ident, state in recorder.at_first}
        self._running = next((ident for ident, state in recorder.at_first if state is State.RUNNING), None)
        self._ready = sum(state is State.READY for _, state in recorder.at_first)
        # Arrows that have started, by the thread to which they point.
        self._arrows: dict[int, tuple[str, int]] = {}
        # Unique per carrier, and small enough for a JavaScript number.
        self._arrow_number = (LARGEST_TRACK - root_track) << 40
        self._run_queue = _Curve(write, pid, f"run queue of {recorder.carrier}", "ready threads")
        self._descriptors = _Curve(write, pid, f"descriptors of {recorder.carrier}", "waited for")
        self._place_names = [json.dumps(f"parked in {call}") for call, _ in recorder.places]
        self._place_lines = [json.dumps({"at": line}) for _, line in recorder.places]

    def run(self) -> None:
        handlers = {
            PARKED: self._parked,
            READIED: self._readied,
            RUNS: self._runs,
            ENDED: self._ended,
            COUNTED: self._counted,
        }
        for event in self._recorder.read_events():
            handlers[event.kind](event, self._advance(event.time))
        end = self._advance(self._recorder.ended_at)
        for ident in list(self._slices):
            self._leave_slice(ident, end)
        for track in self._tracks:
            self._finish_track(track, "not ended", end)
        self._run_queue.draw()
        self._descriptors.draw()

    def _nanoseconds(self, time: float) -> int:
        return round((time - self._began_at) * 1e9)

    def _advance(self, time: float) -> int:
        """Convert `time` to whole nanoseconds, the finest unit of the format, later than the previous event.

        Perfetto would nest a slice without length in the slice that begins at its end, and move its arrows there.
        """
        self._now = max(self._nanoseconds(time), self._now + 1)
        return self._now

    def _track(self, ident: int) -> int:
        number = serial_number(ident)
        return number if number < LARGEST_TRACK >> 1 else self._root_track

    # --- events

    def _parked(self, event: Event, at: int) -> None:
        self._leave_slice(event.ident, at)
        self._slices[event.ident] = f'{self._place_names[event.place]},"args":{self._place_lines[event.place]}', at
        self._running = None

    def _readied(self, event: Event, at: int) -> None:
        if event.ident == self._running:
            self._running = None
        elif self._running is not None:
            self._begin_arrow("unpark" if event.ident in self._slices else "spawn", event.ident, at)
        self._leave_slice(event.ident, at)
        self._slices[event.ident] = READY, at
        self._ready += 1
        self._run_queue.set(at, self._ready)

    def _runs(self, event: Event, at: int) -> None:
        if self._running is not None and self._running != event.ident:
            self._leave_slice(self._running, at)
            self._slices[self._running] = SPAWNING, at
            if event.ident not in self._slices:
                self._begin_arrow("spawn", event.ident, at)
        if self._leave_slice(event.ident, at) == READY:
            self._ready -= 1
            self._run_queue.set(at, self._ready)
        self._slices[event.ident] = RUNNING, at
        self._running = event.ident
        self._end_arrow(event.ident, at)

    def _ended(self, event: Event, at: int) -> None:
        self._leave_slice(event.ident, at)
        self._running = None
        # The tracks of ended threads are recorded in the order of their ends, so the next one belongs to this thread.
        self._finish_track(next(self._tracks), "ended", at)

    def _counted(self, event: Event, at: int) -> None:
        self._descriptors.set(at, event.ident)

    # --- output

    def _leave_slice(self, ident: int, at: int) -> str | None:
        """Write the current slice of the thread, which ends now; return its name."""
        slice_ = self._slices.pop(ident, None)
        if slice_ is None:
            return None
        name, since = slice_
        self._write(
            f',\n{{"ph":"X","pid":{self._pid},"tid":{self._track(ident)},"ts":{since / 1000:.3f},'
            f'"dur":{(at - since) / 1000:.3f},"name":{name}}}'
        )
        return name

    def _begin_arrow(self, name: str, ident: int, at: int) -> None:
        assert self._running is not None
        self._arrow_number += 1
        self._arrows[ident] = name, self._arrow_number
        self._write_arrow("s", name, self._arrow_number, self._running, at)

    def _end_arrow(self, ident: int, at: int) -> None:
        arrow = self._arrows.pop(ident, None)
        if arrow is not None:
            self._write_arrow("f", *arrow, ident, at)

    def _write_arrow(self, phase: str, name: str, number: int, ident: int, at: int) -> None:
        # `bp`: bind the arrow to the slice at that time, and not to the next one.
        self._write(
            f',\n{{"ph":"{phase}","pid":{self._pid},"tid":{self._track(ident)},"ts":{at / 1000:.3f},'
            f'"id":{number},"cat":"{name}","name":"{name}","bp":"e"}}'
        )

    def _finish_track(self, track: Track, mark: str, at: int) -> None:
        # The viewers show only the name of a track, so the other data of the thread go into a mark.
        tid = self._track(track.ident)
        self._write(",\n" + _metadata(self._pid, tid, "thread_name", {"name": track.name}))
        known = {"group": track.group, "spawned at": track.spawned_at}
        arguments = json.dumps({key: value for key, value in known.items() if value})
        self._write(
            f',\n{{"ph":"i","pid":{self._pid},"tid":{tid},"ts":{at / 1000:.3f},"s":"t","name":"{mark}",'
            f'"args":{arguments}}}'
        )
