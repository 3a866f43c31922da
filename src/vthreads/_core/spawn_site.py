"""The place where a virtual thread was spawned: stored cheaply, and reported when the thread fails."""

from __future__ import annotations

import sys
from traceback import FrameSummary
from types import CodeType, FrameType

from .repeated import repeated_in

__all__ = [
    "ENTRIES",
    "SpawnSite",
    "caller_site",
    "describe_sites",
    "first_frame_outside",
    "is_own_frame",
]

# Length limit of the chain of spawners: a server that spawns its own successor must not grow the chain forever.
LONGEST_CHAIN = 16

PACKAGE = __name__.partition(".")[0]
INSIDE = PACKAGE + "."

# Functions of this package that call user code while no call of the package is in progress.
ENTRIES = {
    ("vthreads._core.engine.reference", "_carry"),
    ("vthreads._core.engine.states", "call_in_a_frame"),
    ("vthreads._core.thread", "run"),
    ("vthreads._core.runtime", "run"),
    ("vthreads._combinators", "run_one"),
    ("vthreads._combinators", "value_or_error"),
    ("vthreads._combinators", "_outcome_of"),
    ("vthreads._mapping", "_feed"),
    ("vthreads.aio._threads", "run"),
    ("vthreads._calls.guards", "call"),
    ("vthreads._patching.threads", "_live"),
    ("vthreads.testing._injection", "_call_once"),
    ("vthreads.testing._injection", "_judge"),
    ("vthreads.testing._explore.operations", "run_after_a_point"),
    ("vthreads.testing._root", "root"),
    ("vthreads.testing._explore.run", "_run_root"),
    ("vthreads._cli", "main"),
    ("vthreads._cli.run", "main"),
    ("vthreads._cli.run", "execute"),
    ("vthreads._cli.run", "_root"),
}


class SpawnSite:
    """A place in the code. The line number is computed on demand."""

    __slots__ = ("_code", "_instruction")

    @repeated_in("_core/compiled/members.pxi")
    def __init__(self, code: CodeType, instruction: int) -> None:
        self._code = code
        self._instruction = instruction

    @property
    def key(self) -> tuple[int, int]:
        """A value that is equal for equal places, as long as a site of the place is alive."""
        return id(self._code), self._instruction

    def __str__(self) -> str:
        return f'File "{self._code.co_filename}", line {self.line}, in {self._code.co_qualname}'

    @property
    def line(self) -> int:
        line = self._code.co_firstlineno
        for start, end, number in self._code.co_lines():
            if start <= self._instruction < end and number is not None:
                line = number
        return line

    @property
    def summary(self) -> FrameSummary:
        return FrameSummary(self._code.co_filename, self.line, self._code.co_name, lookup_line=False)


def is_own_frame(frame: FrameType | None) -> bool:
    """Return whether `frame` runs code of this package."""
    return frame is not None and first_frame_outside(frame) is not frame


def first_frame_outside(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that does not belong to the package."""
    # Without helper functions, because it runs at every spawn.
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        # The program may run code with a `__name__` of any type.
        if not isinstance(module, str) or (not module.startswith(INSIDE) and module != PACKAGE):
            return frame
        frame = frame.f_back
    return None


@repeated_in("_core/compiled/members.pxi")
def caller_site() -> SpawnSite | None:
    """Return the place where user code called the package."""
    frame = first_frame_outside(sys._getframe(1))
    return None if frame is None else SpawnSite(frame.f_code, frame.f_lasti)


def describe_sites(name: str, sites: tuple[SpawnSite, ...]) -> str:
    """Describe where the virtual thread `name` was spawned, up to the root."""
    if not sites:
        return name
    lines = [f"{name}, spawned at", f"  {sites[0]}"]
    for site in sites[1:]:
        lines += ["whose spawner was spawned at", f"  {site}"]
    if len(sites) == LONGEST_CHAIN:
        lines.append("(earlier spawners are not kept)")
    return "\n".join(lines)
