"""Files that were opened before patching, and whose reads block a carrier: those of pipes, sockets and terminals.

They cannot be exchanged. Their classes are written in C, and neither a class of C nor its methods can be changed. A new
file of the same descriptor would not have the data that the old one has read ahead, and both would be in use. Only
`sys.stdin` is exchanged, whose place is known. So they are reported.
"""

from __future__ import annotations

import os

from .._calls.files.kinds import Kind, kind_of
from .._calls.files.raw import OriginalFileIO
from .holders import Survey
from .leftovers import OPENED, Leftover

__all__ = ["files_that_wait"]

KINDS = (Kind.FIFO, Kind.SOCKET, Kind.TTY)


def files_that_wait(survey: Survey) -> list[Leftover]:
    """Return the files whose reads wait for another process. The three standard files are not among them."""
    return [Leftover(file, OPENED) for file in survey.tracked(OriginalFileIO) if _waits(file)]


def _waits(file: OriginalFileIO) -> bool:
    try:
        fd = file.fileno()
        return fd > 2 and file.readable() and os.get_blocking(fd) and kind_of(fd) in KINDS
    except (OSError, ValueError):
        # The file is closed, or its descriptor is.
        return False
