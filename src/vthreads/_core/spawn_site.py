"""Where a virtual thread was spawned, kept cheaply and told when it fails."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

__all__ = ["SpawnSite", "caller_site", "describe_sites", "first_frame_outside", "is_own_frame"]

# How many spawners of spawners are remembered; a server that respawns itself must not grow a chain for ever.
LONGEST_CHAIN = 16

PACKAGE = __name__.partition(".")[0]
INSIDE = PACKAGE + "."


class SpawnSite:
    """A place in the code. The line is found only when somebody asks."""

    __slots__ = ("_code", "_instruction")

    def __init__(self, code: CodeType, instruction: int) -> None:
        self._code = code
        self._instruction = instruction

    @property
    def key(self) -> tuple[int, int]:
        """The same for the same place, as long as somebody keeps one of its sites."""
        return id(self._code), self._instruction

    def __str__(self) -> str:
        line = self._code.co_firstlineno
        for start, end, number in self._code.co_lines():
            if start <= self._instruction < end and number is not None:
                line = number
        return f'File "{self._code.co_filename}", line {line}, in {self._code.co_qualname}'


def is_own_frame(frame: FrameType | None) -> bool:
    """Whether `frame` runs code of this package."""
    return frame is not None and first_frame_outside(frame) is not frame


def first_frame_outside(frame: FrameType | None) -> FrameType | None:
    """The innermost frame that is not the package's own."""
    # Written out, since it runs at every spawn.
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(INSIDE) and module != PACKAGE:
            return frame
        frame = frame.f_back
    return None


def caller_site() -> SpawnSite | None:
    """Where the user's code called into the package."""
    frame = first_frame_outside(sys._getframe(1))
    return None if frame is None else SpawnSite(frame.f_code, frame.f_lasti)


def describe_sites(name: str, sites: tuple[SpawnSite, ...]) -> str:
    """A note for the exception of the virtual thread `name`: where it was spawned, up to the root."""
    if not sites:
        return f"in {name}"
    lines = [f"in {name}, spawned at", f"  {sites[0]}"]
    for site in sites[1:]:
        lines += ["whose spawner was spawned at", f"  {site}"]
    if len(sites) == LONGEST_CHAIN:
        lines.append("(earlier spawners are not kept)")
    return "\n".join(lines)
