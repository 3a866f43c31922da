"""Mend what captured an original before it was replaced: `from time import sleep`, `_read = os.read`, `wait=wait`.

Looked through is everything in `sys.modules`: module globals, class attributes and function defaults. Closures,
partials and C code cannot be mended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["mend"]

Undo = Callable[[], None]

# The runtime itself keeps the originals.
PACKAGE = __name__.partition(".")[0]
# Where C code looks names up for itself: imports read files by `_io.open`, and stay as they are.
LEFT_ALONE = {"_io"}


def mend(replacements: list[tuple[Any, Any]]) -> list[Undo]:
    """Put the second of each pair wherever the first is referred to; what takes it back."""
    by_id = {id(old): (old, new) for old, new in replacements}
    undo: list[Undo] = []
    for module in _modules():
        for name, value in list(vars(module).items()):
            if id(value) in by_id:
                undo.append(_replace(module, name, value, by_id[id(value)][1]))
            elif isinstance(value, FunctionType):
                _mend_defaults(value, by_id, undo)
            elif isinstance(value, type) and value.__module__ == module.__name__:
                _mend_class(value, by_id, undo)
    return undo


def _modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        is_ours = name == PACKAGE or name.startswith(PACKAGE + ".")
        if isinstance(module, ModuleType) and not is_ours and name not in LEFT_ALONE:
            yield module


def _replace(holder: Any, name: str, old: Any, new: Any) -> Undo:
    setattr(holder, name, new)
    return lambda: setattr(holder, name, old)


def _mend_class(cls: type, by_id: dict[int, tuple[Any, Any]], undo: list[Undo]) -> None:
    for name, value in list(vars(cls).items()):
        if id(value) in by_id:
            undo.append(_replace(cls, name, value, by_id[id(value)][1]))
        elif isinstance(value, FunctionType):
            _mend_defaults(value, by_id, undo)
        elif isinstance(value, staticmethod | classmethod):
            function = value.__func__
            if isinstance(value, staticmethod) and id(function) in by_id:
                undo.append(_replace(cls, name, value, staticmethod(by_id[id(function)][1])))
            elif isinstance(function, FunctionType):
                _mend_defaults(function, by_id, undo)


def _mend_defaults(function: FunctionType, by_id: dict[int, tuple[Any, Any]], undo: list[Undo]) -> None:
    defaults = function.__defaults__
    if defaults and any(id(value) in by_id for value in defaults):
        function.__defaults__ = tuple(by_id[id(value)][1] if id(value) in by_id else value for value in defaults)
        undo.append(lambda: setattr(function, "__defaults__", defaults))
    for name, value in list((function.__kwdefaults__ or {}).items()):
        if id(value) in by_id:
            keywords: dict[str, Any] = function.__kwdefaults__  # type: ignore[assignment]  # not empty, as just seen
            keywords[name] = by_id[id(value)][1]
            undo.append(partial(keywords.__setitem__, name, value))
