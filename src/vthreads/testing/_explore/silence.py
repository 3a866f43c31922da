"""Suppress the output of a run whose outcome is known, while its threads are ended.

Threads that are cancelled at arbitrary points fail in various ways, and libraries log that. None of it is of interest.
Output of other OS threads is not suppressed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..._core.originals import get_ident

__all__ = ["Silence"]


class Silence:
    """Drops what is written and logged on the OS thread `ident`, from `begin` to `end`."""

    def __init__(self, ident: int) -> None:
        self._ident = ident
        self._undo: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Start to drop output. Idempotent."""
        if self._undo:
            return
        self._replace(logging.Logger, "handle", self._unless_here(logging.Logger.handle))
        self._replace(sys, "unraisablehook", self._unless_here(sys.unraisablehook))
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None:
                self._replace(sys, name, _Stream(stream, self._ident))

    def end(self) -> None:
        """Stop dropping output."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, holder: Any, name: str, new: Any) -> None:
        self._undo.append(partial(setattr, holder, name, getattr(holder, name)))
        setattr(holder, name, new)

    def _unless_here(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            return None if get_ident() == self._ident else function(*args)

        return call


class _Stream:
    """Wraps a stream and drops what one OS thread writes."""

    def __init__(self, stream: Any, ident: int) -> None:
        self._stream = stream
        self._ident = ident

    def write(self, text: str) -> int:
        return len(text) if get_ident() == self._ident else int(self._stream.write(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
