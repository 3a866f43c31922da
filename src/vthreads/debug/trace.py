"""`vthreads.trace`: a file that shows when each virtual thread ran, parked and was unparked."""

from __future__ import annotations

import io
import os

from .._core.current import running
from .._core.delivery import deferred_delivery
from .._core.engine import Scheduler
from ..offload import offload
from .observers import Observation, observe
from .recorder import Recorder
from .trace_events import render

__all__ = ["Trace", "trace"]


class Trace:
    """What `trace` returns: a context manager that may be entered once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._pid = os.getpid()
        self._recorders: list[Recorder] = []
        self._observation: Observation | None = None

    def __repr__(self) -> str:
        return f"<Trace to {self.path!r}>"

    def __enter__(self) -> Trace:
        if self._observation is not None:
            raise RuntimeError(f"{self!r} was entered before; call vthreads.trace() again for another one")
        # It is said now, and not after hours, if the file cannot be written.
        with io.FileIO(self.path, "w"):
            pass
        self._observation = observe(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._observation is not None
        if os.getpid() != self._pid:
            # The child of a fork leaves the block as well; the file is its parent's.
            return
        self._observation.end()
        if running() is None:
            self._render()
        else:
            # It takes seconds, in which the other threads go on; and whatever is pending, the file is to be whole.
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

    Every carrier takes part, those included that start meanwhile. Each virtual thread has a track with slices for
    running, parked (in which call, made where) and ready; arrows lead to whom a thread spawned or unparked; two curves
    tell how many threads were ready, and how many descriptors were waited for.

    What happens is kept in a temporary file beside `path`, about 64 bytes for each time that a thread parks. At the end
    it is made JSON, on an OS thread; a program that is killed before leaves nothing. Traces may be nested. Leaving the
    block parks until the file is whole, whatever is cancelled, and raises nothing that is pending; it is no
    checkpoint, and entering is none either. Not thread-safe.

    Args:
        path: of the file, which is overwritten.

    Raises:
        OSError: the file cannot be written.
    """
    return Trace(path)
