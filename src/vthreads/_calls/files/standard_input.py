"""`sys.stdin` and `input()`: reads that wait for the user, or for the other end of a pipe.

`sys.stdin` is replaced by a file with the same name, encoding and error handling whose reads park. The first read also
returns what the old file had read ahead. `sys.stdin` stays if it is not the interpreter's own (None, or set by the
program), or if it is a file on a disk, which never waits for another process.

`sys.stdout` and `sys.stderr` stay as they are. Programs write to them from everywhere, including handlers and cleanup,
where a checkpoint would be a surprise. The cost: a write blocks the carrier if a full pipe is not read.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from typing import Any

from ..._core.current import running
from ..._core.originals import close_fd
from .buffer_classes import OriginalReader
from .buffers import Reader
from .kinds import Kind, kind_of
from .raw import File, OriginalFileIO, named_as_original

__all__ = ["input_here", "successor_of"]

original_input, original_dup2, original_open = builtins.input, os.dup2, os.open


@named_as_original
class _Successor(File):
    """The raw file of the new `sys.stdin`: returns what the old one had read ahead, then new data."""

    predecessor: io.TextIOWrapper | None = None
    _given_back = b""

    @property
    def unread(self) -> bytes:
        if self.predecessor is not None:
            predecessor, self.predecessor = self.predecessor, None
            self._given_back = _read_ahead(predecessor)
        return self._given_back

    @unread.setter
    def unread(self, data: bytes) -> None:
        self._given_back = data


def successor_of(stdin: Any) -> io.TextIOWrapper | None:
    """Return the file that replaces `stdin`, or None if `stdin` may stay."""
    if type(stdin) is not io.TextIOWrapper or stdin.closed or type(stdin.buffer) is not OriginalReader:
        return None
    old = stdin.buffer.raw
    # The interpreter's own file does not close its descriptor; a file that a program opened does.
    if type(old) is not OriginalFileIO or old.fileno() != 0 or old.closefd or kind_of(0) in (Kind.DISK, Kind.MEMORY):
        return None
    raw = _Successor(0, "r", closefd=False)
    raw.predecessor = stdin
    raw.name = old.name
    text = io.TextIOWrapper(Reader(raw), stdin.encoding, stdin.errors, "\n", stdin.line_buffering, stdin.write_through)
    text.mode = stdin.mode  # type: ignore[misc]  # read-only in the type stubs
    return text


def _read_ahead(text: io.TextIOWrapper) -> bytes:
    """Take the data that `text` holds in memory. There is no call for it, so its descriptor is empty for a moment."""
    fd = text.fileno()
    inheritable = os.get_inheritable(fd)
    saved, empty = os.dup(fd), original_open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        original_dup2(empty, fd, inheritable)
        return text.read().encode(text.encoding, text.errors or "strict")
    finally:
        original_dup2(saved, fd, inheritable)
        close_fd(saved)
        close_fd(empty)


def input_here(prompt: object = "", /) -> str:
    """`input`. A checkpoint, if standard input may wait."""
    if running() is None or not _is_terminal("stdin", 0) or not _is_terminal("stdout", 1):
        # For anything but terminals the original calls `sys.stdin.readline`, which parks.
        return original_input(prompt)
    sys.audit("builtins.input", prompt)
    if sys.stderr is not None:
        sys.stderr.flush()
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line: str = sys.stdin.readline()
    if not line:
        raise EOFError
    line = line.removesuffix("\n")
    sys.audit("builtins.input/result", line)
    # The editing of GNU readline blocks, so it is not used; but the line can still enter its history.
    readline = sys.modules.get("readline")
    if readline is not None and line:
        readline.add_history(line)
    return line


def _is_terminal(name: str, fd: int) -> bool:
    try:
        return getattr(sys, name).fileno() == fd and os.isatty(fd)
    except (AttributeError, OSError, ValueError):
        # Deleted, None, closed, or not a file.
        return False
