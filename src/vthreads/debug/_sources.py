"""Read source files in place: the caller may be a signal handler, inside code that must not be parked."""

from __future__ import annotations

import io
import linecache
import os
import stat
import tokenize
from typing import Any

from .._calls.files.opening import original_open

__all__ = ["lines_of"]


def lines_of(filename: str, module_globals: dict[str, Any] | None = None) -> list[str]:
    """Return the lines of a source file; an empty list if there is none. Not a checkpoint; thread-safe.

    Args:
        filename: as in a code object.
        module_globals: of its module, whose loader may have the source if there is no file.
    """
    if filename not in linecache.cache:
        _read(filename)
    return linecache.getlines(filename, module_globals)


def _read(filename: str) -> None:
    """Put a file into the cache of `linecache`, which would read it with the patched `open`, and so park."""
    try:
        status = os.stat(filename)
        lines = _lines_in(filename) if stat.S_ISREG(status.st_mode) else []
    except OSError:
        # There is no such file, but a loader may have the source.
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
            # Not text, or not in the encoding that it declares.
            return []
