"""`vthreads.trace`: write a file that shows when each virtual thread ran, parked and was unparked."""

from __future__ import annotations

import io
import os

from .._core.current import running
from .._core.delivery import deferred_delivery
from .._core.engine import Scheduler
from .._os_threads.offload import offload
from ._observers import Observation, observe
from ._recorder import Recorder
from ._trace_events import render

__all__ = ["Trace", "trace"]


class Trace:
    """A recording to a file, as a context manager. Created by `trace`; it can be entered once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = os.path.abspath(path)
        self._pid = os.getpid()
        self._recorders: list[Recorder] = []
        self._observation: Observation | None = None

    def __repr__(self) -> str:
        return f"<Trace to {self.path!r}>"

    def __enter__(self) -> Trace:
        if self._observation is not None:
            raise RuntimeError(f"{self!r} was already entered; call vthreads.trace() again for another trace")
        # Fail now, and not after hours of recording, if the file cannot be written.
        with io.FileIO(self.path, "w"):
            pass
        self._observation = observe(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._observation is not None
        if os.getpid() != self._pid:
            # A forked child also leaves the block; the file belongs to its parent.
            return
        self._observation.end()
        if running() is None:
            self._render()
        else:
            # Rendering takes seconds, in which other threads continue. Deferred, because the file must be complete.
            with deferred_delivery():
                offload(self._render)

    def _record(self, scheduler: Scheduler) -> Recorder:
        recorder = Recorder(scheduler, os.path.dirname(self.path))
        self._recorders.append(recorder)
        return recorder

    def _render(self) -> None:
        recorders, self._recorders = self._recorders, []
        with io.TextIOWrapper(io.BufferedWriter(io.FileIO(self.path, "w"), 1 << 20), "utf-8") as file:
            render(recorders, file.write)


def trace(path: str | os.PathLike[str]) -> Trace:
    """Record what the virtual threads do inside the `with` block, for Perfetto (ui.perfetto.dev) or chrome://tracing.

        with vthreads.trace("out.json"):
            serve()

    All carriers are recorded, including those that start later. Each virtual thread has a track with slices for
    running, parked (in which call, made where) and ready. Arrows point to the threads that a thread spawned or
    unparked. Two curves show how many threads were ready, and how many waits for descriptors there were.

    Events are written to a temporary file beside `path`, about 64 bytes for each time that a thread parks. At the end
    they are converted to JSON, on an OS thread; if the program is killed before that, no file remains. Traces can be
    nested. Leaving the block parks until the file is complete, even if cancelled, and raises nothing that is pending;
    neither entering nor leaving is a checkpoint. Not thread-safe.

    Args:
        path: path of the file, which is overwritten.

    Raises:
        OSError: the file cannot be written.
    """
    return Trace(path)
