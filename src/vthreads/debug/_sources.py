"""Read source files in place: the caller may be a signal handler, inside code that must not be parked."""

from __future__ import annotations

import io
import linecache
import os
import stat
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from textwrap import dedent
from types import CodeType
from typing import Any

from .._calls.files.opening import original_open

__all__ = ["lines_of", "lines_of_command"]


def lines_of(filename: str, module_globals: dict[str, Any] | None = None) -> list[str]:
    """Return the lines of a source file; an empty list if there is none. Not a checkpoint; thread-safe.

    Args:
        filename: as in a code object.
        module_globals: of its module, whose loader may have the source if there is no file.
    """
    if filename not in linecache.cache:
        _read(filename)
    return linecache.getlines(filename, module_globals)


def lines_of_command(code: CodeType) -> list[str]:
    """Return the lines of the program that the option `-c` gave, if `code` is a part of it; otherwise an empty list.

    Not a checkpoint; thread-safe. Each call returns the same list.
    """
    return next((lines for lines, parts in _commands() if code in parts), [])


@cache
def _commands() -> list[tuple[list[str], set[CodeType]]]:
    """Return the lines and the code objects of each argument that may be such a program.

    The name of its file is "<string>", as of any string that a program executes. So a program is recognized by its code
    objects: the argument is compiled again, and equal code objects have the same names, lines and instructions.
    """
    found = []
    for option, argument in pairwise(sys.orig_argv):
        # `-c` of Python, also after other letters as in `-uc`, or of `python -m vthreads run`.
        if option.startswith("-") and option.endswith("c"):
            text = dedent(argument)  # as Python 3.14 does
            try:
                code = compile(text, "<string>", "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue
            found.append((text.splitlines(keepends=True), set(_parts_of(code))))
    return found


def _parts_of(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts_of(constant)


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
