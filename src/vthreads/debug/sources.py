"""Source files, read in place: whoever looks may be a signal handler, in the midst of code that must not be parked."""

from __future__ import annotations

import io
import linecache
import os
import stat
import tokenize
from typing import Any

from ..files.opening import original_open

__all__ = ["lines_of"]


def lines_of(filename: str, module_globals: dict[str, Any] | None = None) -> list[str]:
    """The lines of a source file, none if it is not there. Not a checkpoint; thread-safe.

    Args:
        filename: of a code object.
        module_globals: of its module, whose loader may have the source of what is in no file.
    """
    if filename not in linecache.cache:
        _read(filename)
    return linecache.getlines(filename, module_globals)


def _read(filename: str) -> None:
    """Put a file where `linecache` looks first: it would read by the patched `open`, which parks."""
    try:
        status = os.stat(filename)
        lines = _lines_in(filename) if stat.S_ISREG(status.st_mode) else []
    except OSError:
        # There is none, but perhaps a loader that has the source.
        return
    linecache.cache[filename] = status.st_size, status.st_mtime, lines, filename


def _lines_in(filename: str) -> list[str]:
    with original_open(filename, "rb") as file:
        try:
            encoding, _ = tokenize.detect_encoding(file.readline)
            file.seek(0)
            with io.TextIOWrapper(file, encoding) as text:
                return text.readlines()
        except (ValueError, SyntaxError):
            # Not text, or not of the encoding that it says.
            return []
