"""Replace references that were taken before patching: `from time import sleep`, `_read = os.read`, `wait=wait`.

It searches everything in `sys.modules`: module globals, class attributes and function defaults. That is quick, so it is
used for what is replaced repeatedly; what is replaced once is replaced everywhere (see `captures`).

It only reads the type and identity of a value: `isinstance`, attribute access and comparisons would run code of lazy
objects and proxies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from .below import attributes_of, is_a, module_of

__all__ = ["LEFT_ALONE", "Undo", "replace_references", "set_attribute"]

Undo = Callable[[], None]

# The runtime itself keeps using the originals.
PACKAGE = __name__.partition(".")[0]
# Modules in which C code looks names up: imports read files through `_io.open`, which must stay the original.
LEFT_ALONE = {"_io"}


def replace_references(replacements: list[tuple[Any, Any]]) -> list[Undo]:
    """Replace references to the first of each pair by the second; return the functions that undo it."""
    by_id = {id(old): (old, new) for old, new in replacements}
    undo: list[Undo] = []
    for module in _modules():
        names = attributes_of(module)
        for name, value in list(names.items()):
            if id(value) in by_id:
                undo.append(_replace(names, name, value, by_id[id(value)][1]))
            elif is_a(value, FunctionType):
                _replace_defaults(value, by_id, undo)
            elif is_a(value, type) and module_of(value) == names.get("__name__"):
                _search_class(value, by_id, undo)
    return undo


def set_attribute(holder: Any, name: str, new: Any) -> Undo:
    """Set an attribute of a module or class; return the function that undoes it."""
    if name in vars(holder):
        old = vars(holder)[name]
        setattr(holder, name, new)
        return lambda: setattr(holder, name, old)
    # The attribute was inherited, so undoing means deleting.
    setattr(holder, name, new)
    return lambda: delattr(holder, name)


def _modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        is_ours = name == PACKAGE or name.startswith(PACKAGE + ".")
        if is_a(module, ModuleType) and not is_ours and name not in LEFT_ALONE:
            yield module


def _replace(names: dict[str, Any], name: str, old: Any, new: Any) -> Undo:
    names[name] = new
    return partial(names.__setitem__, name, old)


def _replace_in_class(cls: type, name: str, old: Any, new: Any) -> Undo:
    # Use `type` directly, because a metaclass may refuse.
    type.__setattr__(cls, name, new)
    return partial(type.__setattr__, cls, name, old)


def _search_class(cls: type, by_id: dict[int, tuple[Any, Any]], undo: list[Undo]) -> None:
    for name, value in list(attributes_of(cls).items()):
        if id(value) in by_id:
            undo.append(_replace_in_class(cls, name, value, by_id[id(value)][1]))
        elif is_a(value, FunctionType):
            _replace_defaults(value, by_id, undo)
        elif is_a(value, staticmethod | classmethod):
            function = value.__func__
            if is_a(value, staticmethod) and id(function) in by_id:
                undo.append(_replace_in_class(cls, name, value, staticmethod(by_id[id(function)][1])))
            elif is_a(function, FunctionType):
                _replace_defaults(function, by_id, undo)


def _replace_defaults(function: FunctionType, by_id: dict[int, tuple[Any, Any]], undo: list[Undo]) -> None:
    defaults = function.__defaults__
    if defaults and any(id(value) in by_id for value in defaults):
        function.__defaults__ = tuple(by_id[id(value)][1] if id(value) in by_id else value for value in defaults)
        undo.append(lambda: setattr(function, "__defaults__", defaults))
    for name, value in list((function.__kwdefaults__ or {}).items()):
        if id(value) in by_id:
            keywords: dict[str, Any] = function.__kwdefaults__  # type: ignore[assignment]  # not empty, as just seen
            keywords[name] = by_id[id(value)][1]
            undo.append(partial(keywords.__setitem__, name, value))
