"""Make a replacement look like the function that it replaces.

It gets the same name and module, which pickle and documentation tools use. If it replaces a builtin, it does not become
a method when a class stores it (`class Lock: _close = os.close`).
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NoReturn

from .refusals import refusing_like

__all__ = ["stand_in"]

# Public module of a replacement, for originals in a C module that is left as it is (see `references`).
PUBLIC = {"_io": "io"}


class _Builtin(staticmethod):  # type: ignore[type-arg]  # of any function
    """A callable that does not bind when it is looked up on an instance, like builtin functions."""

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        return self

    @property  # type: ignore[misc]  # read-only: `isinstance`, and so `inspect`, must see a builtin function
    def __class__(self) -> type:
        return BuiltinFunctionType

    @property
    def __self__(self) -> ModuleType:
        # A builtin function is bound to its module.
        return sys.modules[self.__module__]

    @property
    def __dict__(self) -> NoReturn:  # type: ignore[override]  # serializers identify builtins by its absence
        raise AttributeError(f"'builtin_function_or_method' object {self.__name__!r} has no attribute '__dict__'")

    def __repr__(self) -> str:
        return f"<built-in function {self.__name__}>"

    def __reduce__(self) -> str:
        # Pickle by reference, like any function.
        return self.__qualname__


# Existing stand-ins by function, so that patching twice installs the same object.
_made: dict[FunctionType, _Builtin] = {}


def stand_in(old: Any, new: Any) -> Any:
    """Return the object to install in place of `old` so that `new` is called; a class is installed as it is."""
    if not hasattr(new, "__code__"):
        return new
    for attribute in ("__module__", "__name__", "__qualname__"):
        value = getattr(old, attribute, None)
        if isinstance(value, str):
            setattr(new, attribute, PUBLIC.get(value, value))
    new = refusing_like(old, new)
    if not isinstance(old, BuiltinFunctionType):
        return new
    if new not in _made:
        _made[new] = _Builtin(new)
    return _made[new]
