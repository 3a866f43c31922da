"""Describe places in the program under test for a reader."""

from __future__ import annotations

import dis
import linecache
import os
from types import CodeType

from ..._core.exceptions import traceback_of
from .interleaving import Place

__all__ = ["describe_instruction", "describe_place", "describe_raise", "line_of"]


def describe_place(place: Place | None) -> str:
    """Return file, line, function and source of `place`, on one line."""
    if place is None:
        return "code outside the program"
    code = place.code
    line = place.line if place.line is not None else line_of(code, place.offset or 0)
    source = linecache.getline(code.co_filename, line).strip()
    text = f"{_short(code.co_filename)}:{line} in {code.co_name}"
    return f"{text}: {source}" if source else text


def describe_raise(error: BaseException) -> str:
    """Return the line that raised `error`, for an error without a message."""
    traceback = traceback_of(error)
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return (
        "" if traceback is None else f"at {describe_place(Place(traceback.tb_frame.f_code, None, traceback.tb_lineno))}"
    )


def describe_instruction(place: Place) -> str:
    """Return the instruction before which a thread was stopped, such as "STORE_ATTR balance"; empty if unknown."""
    if place.offset is None:
        return ""
    for instruction in dis.get_instructions(place.code):
        if instruction.offset >= place.offset and instruction.opname not in ("CACHE", "EXTENDED_ARG"):
            return f"{instruction.opname} {instruction.argrepr}".strip()
    return ""


def line_of(code: CodeType, offset: int) -> int:
    """Return the line of the instruction at `offset`."""
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno


def _short(path: str) -> str:
    """Return the path relative to the working directory, if that is shorter."""
    try:
        relative = os.path.relpath(path)
    except ValueError:
        # On another drive.
        return path
    return min(path, relative, key=len)
