"""Replacement for `io.FileIO`, for programs that make the raw file of a descriptor by hand.

The constructor returns a raw file as `open` makes it, or one of the original class if it never waits or if the
arguments are wrong. `isinstance` and `issubclass` count both as the new class. A subclass of the new class parks too.
"""

from __future__ import annotations

from typing import Any

from .buffer_classes import Replacing
from .opening import format_if_it_waits, opener_for
from .raw import File, OriginalFileIO

__all__ = ["FileIO"]


def _arguments(file: Any, mode: Any = "r", closefd: Any = True, opener: Any = None) -> tuple[Any, Any, Any, Any]:
    return file, mode, closefd, opener


class FileIO(Replacing, File):
    _original = OriginalFileIO

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        if "_original" not in vars(cls):
            return super().__new__(cls, *arguments, **options)
        try:
            file, mode, closefd, opener = _arguments(*arguments, **options)
        except TypeError:
            # The original raises its own error.
            return OriginalFileIO(*arguments, **options)
        if opener is None:
            file_format = format_if_it_waits(file, mode) if type(mode) is str else None
            if file_format is None:
                return OriginalFileIO(file, mode, closefd)
            opener = opener_for(file, file_format)
        return File(file, mode, closefd, opener)

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        # Only for subclasses: `__new__` returns other classes otherwise.
        file_format = format_if_it_waits(file, mode) if opener is None else None
        super().__init__(file, mode, closefd, opener if file_format is None else opener_for(file, file_format))


FileIO.__module__, FileIO.__doc__ = "io", OriginalFileIO.__doc__
